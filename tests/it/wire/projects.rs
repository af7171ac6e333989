//! Instances and assignments on the wire.

use serde_json::{Value, json};

use super::{has, is_time};
use crate::support::{Home, Request, owner};

const INSTANCE: &[&str] = &[
    "instance_id",
    "working_directory",
    "process_id",
    "registered_at",
    "last_heartbeat",
    "active_allocations",
    "metadata",
];
const ASSIGNMENT: &[&str] =
    &["port", "project_path", "service_type", "service_name", "slot", "last_used"];

#[test]
fn instances() {
    let home = Home::new();
    let _daemon = home.daemon();
    let agent = owner();
    let body = json!({
        "instance_id": "editor_a", "working_directory": home.work(), "process_id": agent.pid(),
        "metadata": { "model": "any", "nested": { "deep": [1, null, "x"] } },
    });
    let first = home.post("/instance/register", body.clone()).expect(201);
    has(&first, &["success", "instance_id", "heartbeat_seconds", "message"]);
    assert_eq!(first["heartbeat_seconds"], 30, "{first:#}");
    assert_eq!(first["instance_id"], "editor_a");
    home.post("/instance/register", body.clone()).expect(200);
    let made = home.post("/instance/register", json!({})).expect(201);
    assert!(made["instance_id"].as_str().is_some_and(|id| !id.is_empty()), "{made:#}");
    let empty = home.send(&Request::json("POST", "/instance/register", &json!({}))).expect(201);
    assert_ne!(empty["instance_id"], made["instance_id"]);

    let heartbeat = json!({ "instance_id": "editor_a" });
    for beat in [
        home.post("/instance/heartbeat", heartbeat).expect(200),
        home.send(&Request::new("PUT", "/instance/editor_a/heartbeat")).expect(200),
    ] {
        has(&beat, &["success", "instance_id", "last_heartbeat"]);
        is_time(&beat["last_heartbeat"]);
    }

    let request = json!({ "service_type": "dev", "instance_id": "editor_a" });
    let allocated = home.post("/allocate", request).expect(201);
    let list = home.get("/instance/list").expect(200);
    let list = list["instances"].as_array().expect("a list");
    assert_eq!(list.len(), 3);
    for instance in list {
        has(instance, INSTANCE);
        is_time(&instance["registered_at"]);
        is_time(&instance["last_heartbeat"]);
    }
    let ours = list.iter().find(|one| one["instance_id"] == "editor_a").expect("it is there");
    assert_eq!(ours["active_allocations"], json!([allocated["lock_id"]]), "{ours:#}");
    for field in ["working_directory", "process_id", "metadata"] {
        assert_eq!(ours[field], body[field], "{ours:#}");
    }
    home.delete("/instance/editor_a").expect(200);
    home.delete("/instance/editor_a").refused(404, "unknown_instance");
}

#[test]
fn assignments() {
    let home = Home::new();
    let _daemon = home.daemon();
    let body = json!({ "project_path": home.work(), "services": [
        { "service_type": "dev", "service_name": "web" },
        { "service_type": "api", "service_name": "api", "preferred_port": home.spare_port(0) },
    ] });
    let assigned = home.post("/assign", body.clone()).expect(200);
    has(&assigned, &["success", "assignments", "moved"]);
    assert_eq!(assigned["moved"], json!([]));
    let list = assigned["assignments"].as_array().expect("a list");
    let names: Vec<_> = list.iter().map(|one| one["service_name"].clone()).collect();
    assert_eq!(names, ["web", "api"], "in the order asked: {assigned:#}");
    assert_eq!(list[1]["port"], home.spare_port(0), "{assigned:#}");
    for one in list {
        has(one, ASSIGNMENT);
        is_time(&one["last_used"]);
        assert_eq!(one["project_path"], json!(home.work()));
        assert_eq!(one["slot"], Value::Null);
    }
    assert_eq!(home.allocations(), [Value::Null; 0], "it reserves nothing");
    let again = home.post("/assign", body).expect(200);
    assert_eq!(again["assignments"][0]["port"], list[0]["port"]);

    let unnamed = json!({ "service_type": "dev", "project_path": home.work() });
    home.post("/allocate", unnamed).expect(201);
    let all = home.get("/assignments").expect(200);
    let all = all["assignments"].as_array().expect("a list");
    assert_eq!(all.len(), 3);
    for one in all {
        has(one, ASSIGNMENT);
    }
    assert!(all.iter().any(|one| one["slot"] == 0 && one["service_name"].is_null()), "{all:#?}");

    let work = home.work();
    let query = format!("/assignments?project_path={}", work.display());
    let of_work = home.get(&query).expect(200);
    assert_eq!(of_work["assignments"].as_array().map(Vec::len), Some(3), "{of_work:#}");
    let other = home.get("/assignments?project_path=/nowhere").expect(200);
    assert_eq!(other["assignments"], json!([]));
}

#[test]
fn an_assignment_moves_when_somebody_else_listens_and_says_so() {
    let home = Home::new();
    let _daemon = home.daemon();
    let ask = |port: u16| {
        let body = json!({ "project_path": home.work(), "services": [
            { "service_type": "dev", "service_name": "web", "preferred_port": port },
        ] });
        home.post("/assign", body).expect(200)
    };
    ask(home.spare_port(0));
    let moved = ask(home.spare_port(1));
    let expected = json!([{
        "project_path": home.work(), "service_type": "dev", "service_name": "web",
        "from": home.spare_port(0), "to": home.spare_port(1),
    }]);
    assert_eq!(moved["moved"], expected, "{moved:#}");
}
