//! Allocations on the wire.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{ALLOCATED, has, is_allocation, is_time};
use crate::support::{Home, Request, owner, port_of, serve};

#[test]
fn allocate() {
    let home = Home::new();
    let _daemon = home.daemon();
    let bare = home.post("/allocate", json!({ "service_type": "dev" })).expect(201);
    has(&bare, ALLOCATED);
    is_allocation(&bare["allocation"]);
    for (field, value) in [
        ("success", json!(true)),
        ("reused", json!(false)),
        ("also_running", json!([])),
        ("port", bare["allocation"]["port"].clone()),
        ("lock_id", bare["allocation"]["lock_id"].clone()),
    ] {
        assert_eq!(bare[field], value, "{field} of {bare:#}");
    }
    for (field, value) in [
        ("protocol", json!("tcp")),
        ("service_type", json!("dev")),
        ("service_name", Value::Null),
        ("process_id", Value::Null),
        ("process_start_time", Value::Null),
        ("instance_id", Value::Null),
        ("project_path", Value::Null),
        ("implicit_owner", json!(false)),
        ("state", json!("reserved")),
        ("listener", Value::Null),
    ] {
        assert_eq!(bare["allocation"][field], value, "{field} of {bare:#}");
    }

    let owner = owner();
    let full = json!({
        "service_type": "dev", "service_name": "main-app", "preferred_port": home.spare_port(0),
        "exact": true, "process_id": owner.pid(), "implicit_owner": false,
        "instance_id": "editor_a", "project_path": home.work(), "lease_seconds": 60,
        "protocol": "both", "if_running": "another",
        "lock_id": "0e0b8c9e-3f0a-4a52-9d2c-6a3a4a1f8e11", "dry_run": false, "new_field": 1,
    });
    let answer = home.post("/allocate", full.clone()).expect(201);
    let allocation = &answer["allocation"];
    is_allocation(allocation);
    for field in
        ["service_name", "process_id", "instance_id", "project_path", "protocol", "lock_id"]
    {
        assert_eq!(allocation[field], full[field], "{field} of {answer:#}");
    }
    assert_eq!(answer["port"], home.spare_port(0));
    let message = answer["message"].as_str().expect("a message");
    let expected = format!("Port {} allocated for dev service 'main-app'", home.spare_port(0));
    assert_eq!(message, expected);
}

#[test]
fn a_dry_run_says_what_would_be_and_keeps_nothing() {
    let home = Home::new();
    let _daemon = home.daemon();
    let body = json!({
        "service_type": "dev", "service_name": "web", "project_path": home.work(),
        "dry_run": true,
    });
    let dry = home.post("/allocate", body.clone()).expect(200);
    has(&dry, ALLOCATED);
    assert_eq!(home.allocations(), [Value::Null; 0]);
    let assigned = home.get("/assignments").expect(200);
    assert_eq!(assigned["assignments"], json!([]));

    let mut real = body;
    real["dry_run"] = false.into();
    assert_eq!(port_of(&home.post("/allocate", real).expect(201)), port_of(&dry));
}

#[test]
fn allocate_batch() {
    let home = Home::new();
    let _daemon = home.daemon();
    let service = |name: &str| {
        json!({
            "service_type": "dev", "service_name": name, "project_path": home.work(),
        })
    };
    let body = json!({ "requests": [service("a"), service("b"), { "service_type": "api" }] });
    let answer = home.post("/allocate/batch", body).expect(201);
    has(&answer, &["success", "allocations"]);
    let made = answer["allocations"].as_array().expect("a list");
    let names: Vec<_> = made.iter().map(|one| one["allocation"]["service_name"].clone()).collect();
    assert_eq!(names, [json!("a"), json!("b"), Value::Null], "in the order asked: {answer:#}");
    for one in made {
        has(one, ALLOCATED);
        is_allocation(&one["allocation"]);
    }
    let many = json!({ "requests": vec![json!({ "service_type": "dev" }); 10] });
    let answer = home.post("/allocate/batch", many).expect(201);
    let ports: BTreeSet<_> =
        answer["allocations"].as_array().expect("a list").iter().map(port_of).collect();
    assert_eq!(ports.len(), 10, "{answer:#}");
}

#[test]
fn renew_and_release() {
    let home = Home::new();
    let _daemon = home.daemon();
    let body = json!({ "service_type": "dev", "lease_seconds": 60 });
    let made = home.post("/allocate", body).expect(201);
    let path = format!("/allocate/{}", made["lock_id"].as_str().expect("a lock id"));

    for request in [
        Request::new("POST", &format!("{path}/renew")),
        Request::json("POST", &format!("{path}/renew"), &json!({})),
        Request::json("POST", &format!("{path}/renew"), &json!({ "lease_seconds": null })),
        Request::json("POST", &format!("{path}/renew"), &json!({ "lease_seconds": 600 })),
    ] {
        let renewed = home.send(&request).expect(200);
        has(&renewed, &["success", "lock_id", "expires_at"]);
        is_time(&renewed["expires_at"]);
    }
    let released = home.delete(&path).expect(200);
    has(&released, &["success", "port", "lock_id", "message"]);
    assert_eq!(released["port"], made["port"]);
}

#[test]
fn allocations_by_port_with_their_listeners() {
    let home = Home::new();
    let _daemon = home.daemon();
    for _ in 0..5 {
        home.allocate_for(std::process::id());
    }
    let wish = json!({ "service_type": "dev", "preferred_port": home.spare_port(0) });
    let first = home.post("/allocate", wish).expect(201);
    let server = serve(&mut home.command("python3"), port_of(&first));
    home.listens(&first["lock_id"], server.pid());

    let list = home.allocations();
    let ports: Vec<_> = list.iter().map(port_of).collect();
    assert!(ports.is_sorted(), "{ports:?}");
    list.iter().for_each(is_allocation);
    let listener = &list[0]["listener"];
    has(listener, &["pid", "name", "local_address"]);
    assert_eq!(listener["pid"], server.pid());
    assert_eq!(listener["local_address"], format!("127.0.0.1:{}", home.spare_port(0)));
    assert!(listener["name"].as_str().is_some_and(|name| name.starts_with("python3")));
}

#[test]
fn a_stranger_on_an_allocated_port_is_a_conflict_and_holds_nothing() {
    let home = Home::new();
    let _daemon = home.daemon();
    let mut owner = owner();
    let project = home.project("elsewhere");
    let body = json!({
        "service_type": "dev", "process_id": owner.pid(), "project_path": project,
    });
    let made = home.post("/allocate", body).expect(201);
    // Not the owner's child, not in its session, not in the project, no lock id.
    let mut stranger = home.command("setsid");
    stranger.arg("python3").current_dir("/");
    let _stranger = serve(&mut stranger, port_of(&made));

    home.becomes(&made["lock_id"], "conflict");
    let checked = home.get(&format!("/check/{}", port_of(&made))).expect(200);
    assert!(checked["system_usage"].is_object(), "{checked:#}");
    assert_eq!(checked["allocated_to"]["lock_id"], made["lock_id"], "{checked:#}");
    owner.kill();
    // The owner has gone; by the rule a listener of this user is then the allocation's own, so
    // whichever way it is seen, the port goes to nobody else while something listens there.
    let exact = json!({
        "service_type": "dev", "preferred_port": made["port"], "exact": true,
    });
    home.post("/allocate", exact).refused(409, "port_unavailable");
}
