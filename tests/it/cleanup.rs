//! Cleaning up and releasing take nothing that is somebody else's or still in use.

use serde_json::{Value, json};

use crate::support::{Home, Request, finish, owner, port_of, serve};

/// Allocates by command line in that project, for a process.
fn allocate(home: &Home, project: &str, name: &str, pid: u32) -> Value {
    let root = home.project(project);
    let pid = pid.to_string();
    let args = ["allocate", "--json", "-s", "dev", "-n", name, "--pid", &pid];
    home.styxy_in(&root, &args).ok().json()
}

#[test]
fn a_plain_cleanup_frees_nothing_that_is_held() {
    let home = Home::new();
    let _daemon = home.daemon();
    let owner = owner();
    home.post("/instance/register", json!({ "instance_id": "agent" })).expect(201);
    home.allocate_for(owner.pid());
    home.post("/allocate", json!({ "service_type": "dev" })).expect(201);
    let body = json!({ "service_type": "dev", "instance_id": "agent" });
    home.post("/allocate", body).expect(201);
    let shell = finish(&mut home.shell("styxy allocate --json -s dev; exit 0")).ok().json();
    let server = serve(&mut home.command("python3"), port_of(&shell));
    home.listens(&shell["lock_id"], server.pid());
    let lock_ids =
        || -> Vec<_> { home.allocations().iter().map(|one| one["lock_id"].clone()).collect() };
    let before = lock_ids();
    assert_eq!(before.len(), 4);

    home.styxy(&["cleanup"]).ok();
    let answer = home.send(&Request::new("POST", "/cleanup")).expect(200);

    assert_eq!((&answer["cleaned"], &answer["released"]), (&json!(0), &json!([])), "{answer:#}");
    assert_eq!(lock_ids(), before);
}

#[test]
fn force_frees_this_projects_alone_and_all_frees_everything() {
    let home = Home::new();
    let _daemon = home.daemon();
    let owner = owner();
    allocate(&home, "one", "web", owner.pid());
    allocate(&home, "one", "db", owner.pid());
    let other = allocate(&home, "two", "web", owner.pid());
    home.allocate_for(owner.pid());

    let dry = home.styxy_in(&home.path("one"), &["cleanup", "--force", "--dry-run"]).ok();
    assert_eq!(home.allocations().len(), 4, "a dry run changes nothing\n{}", dry.whole());

    home.styxy_in(&home.path("one"), &["cleanup", "--force"]).ok();
    let left = home.allocations();
    assert_eq!(left.len(), 2, "{left:#?}");
    assert!(home.allocation(&other["lock_id"]).is_some(), "{left:#?}");

    home.styxy_in(&home.path("one"), &["cleanup", "--force", "--all"]).ok();
    assert_eq!(home.allocations(), [Value::Null; 0]);
}

#[test]
fn force_over_http_keeps_to_the_project_that_it_names() {
    let home = Home::new();
    let _daemon = home.daemon();
    let owner = owner();
    let one = allocate(&home, "one", "web", owner.pid());
    let two = allocate(&home, "two", "web", owner.pid());

    let body = json!({ "force": true, "project_path": home.path("one"), "dry_run": true });
    let dry = home.post("/cleanup", body).expect(200);
    assert_eq!(dry["released"][0]["lock_id"], one["lock_id"], "{dry:#}");
    assert_eq!(home.allocations().len(), 2);

    let body = json!({ "force": true, "project_path": home.path("one") });
    let forced = home.post("/cleanup", body).expect(200);
    assert_eq!(forced["cleaned"], 1, "{forced:#}");
    assert_eq!(forced["released"][0]["lock_id"], one["lock_id"], "{forced:#}");
    assert!(home.allocation(&two["lock_id"]).is_some());

    let forced = home.post("/cleanup", json!({ "force": true })).expect(200);
    assert_eq!(forced["cleaned"], 1, "{forced:#}");
    assert_eq!(home.allocations(), [Value::Null; 0]);
}

#[test]
fn anothers_name_or_port_is_refused_with_its_owner_named() {
    let home = Home::new();
    let _daemon = home.daemon();
    let owner = owner();
    let theirs = allocate(&home, "theirs", "web", owner.pid());
    let mine = home.project("mine");
    let port = port_of(&theirs).to_string();
    let pid = owner.pid().to_string();

    let refused = home.styxy_in(&mine, &["release", &port]).exits(77);
    refused.complains(&pid).complains("theirs");
    let refused = home.styxy_in(&mine, &["release", "web"]);
    assert!(matches!(refused.code(), Some(1 | 77)), "{}", refused.whole());
    assert!(home.allocation(&theirs["lock_id"]).is_some());

    let lock_id = theirs["lock_id"].as_str().expect("a lock id");
    home.styxy_in(&mine, &["release", lock_id]).ok();
    assert_eq!(home.allocations(), [Value::Null; 0], "a lock id always works");
}

#[test]
fn ones_own_is_released_by_name_port_or_lock_id() {
    let home = Home::new();
    let _daemon = home.daemon();
    let owner = owner();
    let root = home.project("one");
    for what in ["service_name", "port", "lock_id"] {
        let answer = allocate(&home, "one", "web", owner.pid());
        let word = match &answer["allocation"][what] {
            Value::String(word) => word.clone(),
            other => other.to_string(),
        };
        home.styxy_in(&root, &["release", &word]).ok();
        assert_eq!(home.allocations(), [Value::Null; 0], "by {what}");
        home.styxy_in(&root, &["release", &word]).exits(1);
    }
}

#[test]
fn an_instance_releases_what_is_its_own() {
    let home = Home::new();
    let _daemon = home.daemon();
    for id in ["a", "b"] {
        home.post("/instance/register", json!({ "instance_id": id })).expect(201);
    }
    let owner = owner();
    let ask = |id: &str| {
        let body = json!({
            "service_type": "dev", "instance_id": id, "process_id": owner.pid(),
            "project_path": home.project(id),
        });
        home.post("/allocate", body).expect(201)
    };
    let (a, b) = (ask("a"), ask("b"));
    let release = |port: u16| {
        let mut command = home.styxy_command(&["release", &port.to_string()]);
        finish(command.env("STYXY_INSTANCE", "a"))
    };
    release(port_of(&b)).exits(77);
    assert!(home.allocation(&b["lock_id"]).is_some());
    release(port_of(&a)).ok();
    assert!(home.allocation(&a["lock_id"]).is_none());
}
