//! Named services: who asks again for a name gets what the interface promises.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Barrier;
use std::thread;

use serde_json::{Value, json};

use crate::support::{
    Connection, Home, PATIENCE, Reply, Request, eventually, finish, owner, port_of, serve,
};

fn request(project: &Path, pid: u32, if_running: &str) -> Request {
    let body = json!({
        "service_type": "dev", "service_name": "web", "project_path": project,
        "process_id": pid, "if_running": if_running,
    });
    Request::json("POST", "/allocate", &body)
}

#[test]
fn the_same_owner_gets_the_same_allocation() {
    let home = Home::new();
    let _daemon = home.daemon();
    let owner = owner();
    for if_running in ["another", "refuse", "reuse"] {
        let first = home.send(&request(&home.work(), owner.pid(), if_running)).json();
        let again = home.send(&request(&home.work(), owner.pid(), if_running)).expect(200);
        assert_eq!(again["reused"], true, "{again:#}");
        assert_eq!(again["lock_id"], first["lock_id"], "{again:#}");
        assert_eq!(again["port"], first["port"], "{again:#}");
    }
    assert_eq!(home.allocations().len(), 1);
}

#[test]
fn the_next_shell_gets_the_allocation_that_nobody_used() {
    let home = Home::new();
    let _daemon = home.daemon();
    let shell = || {
        let command = "styxy allocate --json -s dev -n web; exit 0";
        finish(&mut home.shell(command)).ok().json()
    };
    let (first, second) = (shell(), shell());

    assert_eq!(second["reused"], true, "{second:#}");
    assert_eq!(second["lock_id"], first["lock_id"], "{second:#}");
    assert_eq!(home.allocations().len(), 1);
    let ends = |answer: &Value| answer["allocation"]["expires_at"].as_str().map(str::to_owned);
    assert!(ends(&first) < ends(&second), "its lease is renewed: {first:#} {second:#}");
}

#[test]
fn the_next_shell_does_not_get_the_allocation_of_a_running_server() {
    let home = Home::new();
    let _daemon = home.daemon();
    let allocate = || home.styxy(&["allocate", "--json", "-s", "dev", "-n", "web"]).ok().json();
    let first = allocate();
    let server = serve(&mut home.command("python3"), port_of(&first));
    home.listens(&first["lock_id"], server.pid());

    let mut shell = home.shell("styxy allocate --json -s dev -n web; exit 0");
    let second = finish(&mut shell).ok().json();

    assert_ne!(second["port"], first["port"], "{second:#}");
    assert_eq!(second["also_running"][0]["lock_id"], first["lock_id"], "{second:#}");
}

#[test]
fn a_second_owner_gets_what_if_running_says() {
    let home = Home::new();
    let _daemon = home.daemon();
    let (one, two) = (owner(), owner());
    let first = home.send(&request(&home.work(), one.pid(), "another")).expect(201);

    let refused = home.send(&request(&home.work(), two.pid(), "refuse"));
    let refused = refused.refused(409, "already_running");
    assert_eq!(refused["context"]["running"]["lock_id"], first["lock_id"], "{refused:#}");

    let same = home.send(&request(&home.work(), two.pid(), "reuse")).expect(200);
    assert_eq!(same["lock_id"], first["lock_id"], "{same:#}");
    assert_eq!(same["allocation"]["process_id"], one.pid(), "as it is: {same:#}");

    let another = home.send(&request(&home.work(), two.pid(), "another")).expect(201);
    assert_ne!(another["port"], first["port"], "{another:#}");
    assert_eq!(another["also_running"][0]["lock_id"], first["lock_id"], "{another:#}");
}

/// Two owners ask at the same moment, over connections that are open already.
fn race(home: &Home, project: &Path, if_running: &str) -> [Reply; 2] {
    let owners = [owner(), owner()];
    let barrier = Barrier::new(2);
    thread::scope(|scope| {
        let askers = owners.each_ref().map(|owner| {
            let request = request(project, owner.pid(), if_running);
            let (barrier, address) = (&barrier, home.tcp());
            scope.spawn(move || {
                let mut connection = Connection::open(&address).expect("a daemon");
                barrier.wait();
                connection.send(&request).expect("an answer")
            })
        });
        askers.map(|asker| asker.join().expect("an asker that does not panic"))
    })
}

fn statuses(replies: &[Reply; 2]) -> [u16; 2] {
    let mut statuses = replies.each_ref().map(|reply| reply.status);
    statuses.sort_unstable();
    statuses
}

#[test]
fn of_two_askers_at_once_one_is_first() {
    // Each project keeps an assignment.
    let home = Home::with_ports(256);
    let _daemon = home.daemon();
    for round in 0..20 {
        let project = home.project(&format!("refuse-{round}"));
        let replies = race(&home, &project, "refuse");
        assert_eq!(statuses(&replies), [201, 409], "{replies:#?}");

        let project = home.project(&format!("reuse-{round}"));
        let replies = race(&home, &project, "reuse");
        assert_eq!(statuses(&replies), [200, 201], "{replies:#?}");
        let [one, two] = replies.map(|reply| reply.json()["lock_id"].clone());
        assert_eq!(one, two);

        let project = home.project(&format!("another-{round}"));
        let replies = race(&home, &project, "another");
        assert_eq!(statuses(&replies), [201, 201], "{replies:#?}");
        let [one, two] = replies.map(|reply| port_of(&reply.json()));
        assert_ne!(one, two);
    }
}

#[test]
fn a_service_comes_back_on_its_port() {
    let home = Home::new();
    let daemon = home.daemon();
    let port = |pid| port_of(&home.send(&request(&home.work(), pid, "another")).expect(201));
    let mut first = owner();
    let before = port(first.pid());
    let stranger = owner();
    home.allocate_for(stranger.pid());

    first.kill();
    eventually(PATIENCE, || {
        let left = home.allocations();
        if left.len() == 1 { Ok(()) } else { Err(format!("{left:#?}")) }
    });
    daemon.stop();
    let _daemon = home.daemon();

    let second = owner();
    assert_eq!(port(second.pid()), before, "its assignment outlives it and the daemon");
}

#[test]
fn an_assigned_port_goes_to_no_other_project() {
    let home = Home::new();
    let _daemon = home.daemon();
    let mut ports = BTreeSet::new();
    for n in 0..6 {
        let project = home.project(&format!("project-{n}"));
        let mut owner = owner();
        let answer = home.send(&request(&project, owner.pid(), "another")).expect(201);
        owner.kill();
        home.ends_within(PATIENCE, &answer["lock_id"]);
        assert!(ports.insert(port_of(&answer)), "{answer:#}");
    }
}

#[test]
fn a_repeated_lock_id_gives_the_same_allocation() {
    let home = Home::new();
    let _daemon = home.daemon();
    let lock_id = "0e0b8c9e-3f0a-4a52-9d2c-6a3a4a1f8e11";
    let ask = |service_type: &str, name: Value| {
        let body = json!({
            "service_type": service_type, "service_name": name, "lock_id": lock_id,
        });
        home.post("/allocate", body)
    };
    let first = ask("dev", Value::Null).expect(201);
    assert_eq!(first["lock_id"], lock_id);

    let again = ask("dev", Value::Null).expect(200);
    assert_eq!(again["port"], first["port"], "{again:#}");
    assert_eq!(again["reused"], true, "{again:#}");
    ask("api", Value::Null).refused(409, "lock_id_conflict");
    ask("dev", "web".into()).refused(409, "lock_id_conflict");
    assert_eq!(home.allocations().len(), 1);
}
