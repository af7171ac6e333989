//! How an allocation lives and ends: it lives while any holder lives.

use std::io::Write as _;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{
    Home, PATIENCE, Request, Running, Serve, delay_after_death, eventually, finish, full,
    keep_the_promise, owner, port_of, report, serve,
};

/// How soon the end of the last holder is the end of the allocation. Not at the next tick of the
/// safety net, which is 10 s.
const AT_ONCE: Duration = Duration::from_secs(2);

/// Waits until `seconds` have passed, with a lease that nothing else holds as the clock.
fn lease_of(home: &Home, seconds: u64) {
    let body = json!({ "service_type": "api", "lease_seconds": seconds });
    let lock_id = home.post("/allocate", body).expect(201)["lock_id"].clone();
    home.ends_within(Duration::from_secs(seconds + 4), &lock_id);
}

/// A listener in the home's project, as an editor or a makefile would start it.
fn listen(home: &Home, port: u16) -> Running {
    serve(&mut home.command("python3"), port)
}

/// `styxy allocate ARGS` in a shell that is dead before the answer is read.
fn allocate_in_a_dying_shell(home: &Home, args: &str) -> Value {
    finish(&mut home.shell(&format!("styxy allocate --json -s dev {args}; exit 0"))).ok().json()
}

#[test]
fn an_implicit_owner_that_dies_at_once_leaves_a_lease_then_the_first_listener_holds() {
    let home = Home::new();
    let _daemon = home.daemon();
    let answer = allocate_in_a_dying_shell(&home, "-n web");
    let lock_id = &answer["lock_id"];

    let reserved = home.allocation(lock_id).expect("the lease holds it");
    assert_eq!(reserved["implicit_owner"], true, "{reserved:#}");
    assert!(reserved["expires_at"].is_string(), "{reserved:#}");
    assert_eq!(reserved["state"], "reserved", "{reserved:#}");

    let mut server = listen(&home, port_of(&answer));
    let listening = home.listens(lock_id, server.pid());
    assert_eq!(listening["expires_at"], Value::Null, "the listener has taken over: {listening:#}");

    server.kill();
    home.ends_within(AT_ONCE, lock_id);
}

#[test]
fn a_program_that_is_bound_to_a_udp_port_holds_it_as_a_listener_does() {
    let home = Home::new();
    let _daemon = home.daemon();
    let answer = allocate_in_a_dying_shell(&home, "-n dns --protocol udp");
    let lock_id = &answer["lock_id"];

    let bind = "import socket, sys, time; s = socket.socket(type=socket.SOCK_DGRAM); \
        s.bind(('127.0.0.1', int(sys.argv[1]))); print('ready', flush=True); time.sleep(600)";
    let mut command = home.command("python3");
    command.args(["-c", bind, &port_of(&answer).to_string()]).stdout(Stdio::piped());
    let mut server = Running::spawn(&mut command);
    assert_eq!(server.line(), "ready");
    let bound = home.listens(lock_id, server.pid());
    assert_eq!(bound["expires_at"], Value::Null, "it has taken over: {bound:#}");

    server.kill();
    home.ends_within(AT_ONCE, lock_id);
}

#[test]
fn the_lease_of_a_dead_implicit_owner_ends_by_itself() {
    let home = Home::new();
    home.configure("default_lease = \"1s\"");
    let _daemon = home.daemon();
    // The parent of this one is the test itself, and lives.
    let body = home.styxy(&["allocate", "--json", "-s", "dev"]).ok().json();
    let left = allocate_in_a_dying_shell(&home, "");

    home.ends_within(Duration::from_secs(5), &left["lock_id"]);
    let held = home.allocation(&body["lock_id"]);
    assert!(held.is_some(), "a living parent holds longer than its lease");
}

#[test]
fn a_shell_that_stays_open_pins_nothing_once_a_listener_came_and_went() {
    let home = Home::new();
    let _daemon = home.daemon();
    let answer = home.styxy(&["allocate", "--json", "-s", "dev"]).ok().json();
    let mut server = listen(&home, port_of(&answer));
    home.listens(&answer["lock_id"], server.pid());

    server.kill();

    home.ends_within(AT_ONCE, &answer["lock_id"]);
}

#[test]
fn an_explicit_owner_holds_without_a_lease_and_a_listener_does_not_take_over() {
    let home = Home::new();
    let _daemon = home.daemon();
    let mut owner = owner();
    let args = ["allocate", "--json", "-s", "dev", "--pid", &owner.pid().to_string()];
    let answer = home.styxy(&args).ok().json();
    let lock_id = &answer["lock_id"];
    assert_eq!(answer["allocation"]["implicit_owner"], false, "{answer:#}");
    assert_eq!(answer["allocation"]["expires_at"], Value::Null, "{answer:#}");

    // A server that restarts itself is gone for a moment, and another process then.
    for _ in 0..2 {
        let mut server = listen(&home, port_of(&answer));
        home.listens(lock_id, server.pid());
        server.kill();
        home.becomes(lock_id, "reserved");
    }

    owner.kill();
    home.ends_within(AT_ONCE, lock_id);
}

#[test]
fn a_lease_that_was_asked_for_outlives_the_owner() {
    let home = Home::new();
    let _daemon = home.daemon();
    let mut owner = owner();
    let ask = |lease: u64| {
        let body = json!({
            "service_type": "dev", "process_id": owner.pid(), "lease_seconds": lease,
        });
        home.post("/allocate", body).expect(201)["lock_id"].clone()
    };
    let (short, long) = (ask(1), ask(600));

    owner.kill();

    assert!(home.allocation(&long).is_some(), "its lease holds it");
    home.ends_within(Duration::from_secs(5), &short);
    assert!(home.allocation(&long).is_some(), "its lease holds it");
}

#[test]
fn without_owner_and_instance_a_lease_holds_and_can_be_renewed() {
    let home = Home::new();
    home.configure("default_lease = \"1s\"");
    let _daemon = home.daemon();
    let ask = || home.post("/allocate", json!({ "service_type": "dev" })).expect(201);
    let (left, renewed) = (ask(), ask());
    let before = renewed["allocation"]["expires_at"].as_str().expect("a lease's end").to_owned();
    assert!(left["allocation"]["expires_at"].is_string(), "{left:#}");

    let path = format!("/allocate/{}/renew", renewed["lock_id"].as_str().expect("a lock id"));
    let renewal = home.post(&path, json!({ "lease_seconds": 600 })).expect(200);

    assert_eq!(renewal["lock_id"], renewed["lock_id"]);
    let after = renewal["expires_at"].as_str().expect("a lease's end");
    assert!(before.as_str() < after, "{before} then {after}");
    home.ends_within(Duration::from_secs(5), &left["lock_id"]);
    let living = home.allocation(&renewed["lock_id"]).expect("it was renewed");
    let end = living["expires_at"].as_str().expect("a lease's end");
    assert!(before.as_str() < end, "{before} then {end}");
}

#[test]
fn the_first_listener_takes_over_from_a_lease() {
    let home = Home::new();
    let _daemon = home.daemon();
    let answer = home.post("/allocate", json!({ "service_type": "dev" })).expect(201);
    let mut server = listen(&home, port_of(&answer));
    let listening = home.listens(&answer["lock_id"], server.pid());
    assert_eq!(listening["expires_at"], Value::Null, "{listening:#}");

    server.kill();

    home.ends_within(AT_ONCE, &answer["lock_id"]);
}

#[test]
fn a_server_that_only_closes_its_socket_frees_its_port_within_two_seconds() {
    let home = Home::new();
    let _daemon = home.daemon();
    let answer = home.post("/allocate", json!({ "service_type": "dev" })).expect(201);
    let script = Serve::SCRIPT.replace("signal.pause()", "input(); server.close(); signal.pause()");
    let mut command = home.command("python3");
    command.args(["-c", &script, "127.0.0.1", &port_of(&answer).to_string()]);
    let (reader, mut order) = std::io::pipe().expect("a pipe");
    let mut server = Running::spawn(command.stdin(reader).stdout(Stdio::piped()));
    assert_eq!(server.line(), "ready");
    home.listens(&answer["lock_id"], server.pid());
    let mut stream = home.connect();

    order.write_all(b"close\n").expect("it reads");

    // Nobody asks for the allocation meanwhile: the daemon sees it by itself.
    let check = Request::new("GET", "/status");
    eventually(AT_ONCE, || {
        let status = stream.send(&check).expect("an answer").expect(200);
        if status["allocations"] == 0 { Ok(()) } else { Err(format!("{status:#}")) }
    });
    assert_eq!(server.try_wait(), None);
}

#[test]
fn the_death_of_the_last_listener_frees_its_port_within_50_ms() {
    let home = Home::alone(32);
    let _daemon = home.daemon();
    let mut stream = home.connect();
    let status = Request::new("GET", "/status");
    let mut delay = |_| {
        let answer = home.post("/allocate", json!({ "service_type": "dev" })).expect(201);
        let server = listen(&home, port_of(&answer));
        home.listens(&answer["lock_id"], server.pid());
        let start = Instant::now();
        delay_after_death(&server, || {
            while stream.send(&status).expect("an answer").expect(200)["allocations"] != 0 {
                assert!(start.elapsed() < PATIENCE, "it does not end");
            }
        })
    };
    let mut delays: Vec<Duration> = (0..20).map(&mut delay).collect();
    keep_the_promise(&mut delays);
}

#[test]
fn a_listener_outlives_the_lease_that_it_came_under() {
    let home = Home::new();
    let _daemon = home.daemon();
    let body = json!({ "service_type": "dev", "lease_seconds": 1 });
    let answer = home.post("/allocate", body).expect(201);
    // Nobody asks for the allocation while its listener comes: the lease's end has to see it.
    let server = listen(&home, port_of(&answer));
    lease_of(&home, 2);

    let allocation = home.allocation(&answer["lock_id"]).expect("its listener holds it");
    assert_eq!(allocation["listener"]["pid"], server.pid(), "{allocation:#}");
}

#[test]
fn a_dead_instance_ends_what_it_alone_holds() {
    let home = Home::new();
    let _daemon = home.daemon();
    let (mut agent, worker) = (owner(), owner());
    let body = json!({ "instance_id": "agent", "process_id": agent.pid() });
    home.post("/instance/register", body).expect(201);
    let ask = |more: Value| {
        let mut body = json!({ "service_type": "dev", "instance_id": "agent" });
        body.as_object_mut().expect("an object").extend(more.as_object().cloned().expect("too"));
        home.post("/allocate", body).expect(201)
    };
    let held = ask(json!({}));
    let labelled = ask(json!({ "process_id": worker.pid() }));
    let leased = ask(json!({ "lease_seconds": 600 }));
    assert_eq!(held["allocation"]["expires_at"], Value::Null, "the instance holds it: {held:#}");

    agent.kill();

    home.ends_within(AT_ONCE, &held["lock_id"]);
    assert!(home.allocation(&labelled["lock_id"]).is_some(), "its owner lives");
    assert!(home.allocation(&leased["lock_id"]).is_some(), "its lease has not ended");
    let list = home.get("/instance/list").expect(200);
    assert_eq!(list["instances"], json!([]), "{list:#}");
}

#[test]
fn a_silent_instance_ends_what_it_alone_holds_after_three_missed_heartbeats() {
    const SILENCE: Duration = Duration::from_secs(90);
    if !full() {
        return report("in the short form not how long a silent instance lives");
    }
    let home = Home::new();
    let _daemon = home.daemon();
    let register = |id: &str| {
        home.post("/instance/register", json!({ "instance_id": id })).expect(201);
        let body = json!({ "service_type": "dev", "instance_id": id });
        home.post("/allocate", body).expect(201)["lock_id"].clone()
    };
    let start = Instant::now();
    let (silent, beating) = (register("silent"), register("beating"));

    eventually(SILENCE + Duration::from_secs(10), || {
        // More often than anybody has to, so that a busy machine makes no difference.
        home.post("/instance/heartbeat", json!({ "instance_id": "beating" })).expect(200);
        if home.allocation(&silent).is_none() { Ok(()) } else { Err("it lives".to_owned()) }
    });

    assert!(start.elapsed() >= SILENCE, "ended after {:?}", start.elapsed());
    assert!(home.allocation(&beating).is_some(), "its instance beats");
    let list = home.get("/instance/list").expect(200);
    let ids: Vec<_> = list["instances"].as_array().expect("a list").iter().collect();
    assert!(matches!(ids[..], [one] if one["instance_id"] == "beating"), "{list:#}");
}

#[test]
fn removing_an_instance_releases_what_no_other_holder_keeps() {
    let home = Home::new();
    let _daemon = home.daemon();
    home.post("/instance/register", json!({ "instance_id": "agent" })).expect(201);
    let owner = owner();
    let pid = owner.pid().to_string();
    let allocate = ["allocate", "--json", "-s", "dev", "--instance", "agent"];
    let labelled = home.styxy(&[&allocate[..], &["--pid", &pid]].concat()).ok().json();
    let without = home.styxy(&allocate).ok().json();
    let body = json!({ "service_type": "dev", "instance_id": "agent" });
    let held = home.post("/allocate", body).expect(201);

    let removed = home.delete("/instance/agent").expect(200);

    for gone in [held, without] {
        assert!(home.allocation(&gone["lock_id"]).is_none(), "{removed:#}");
    }
    let left = home.allocation(&labelled["lock_id"]).expect("its owner lives");
    assert_eq!(left["instance_id"], "agent", "{left:#}");
}

#[test]
fn styxy_instance_is_the_instance_of_a_command_line() {
    let home = Home::new();
    let _daemon = home.daemon();
    home.post("/instance/register", json!({ "instance_id": "agent" })).expect(201);
    let mut command = home.styxy_command(&["allocate", "--json", "-s", "dev"]);
    let answer = finish(command.env("STYXY_INSTANCE", "agent")).ok().json();
    assert_eq!(answer["allocation"]["instance_id"], "agent", "{answer:#}");
}

#[test]
fn a_release_ends_it_at_once_whoever_holds_it() {
    let home = Home::new();
    let _daemon = home.daemon();
    let owner = owner();
    let answer = home.allocate_for(owner.pid());
    let lock_id = answer["lock_id"].as_str().expect("a lock id");

    let released = home.delete(&format!("/allocate/{lock_id}")).expect(200);
    assert_eq!((&released["port"], &released["lock_id"]), (&answer["port"], &answer["lock_id"]));
    home.delete(&format!("/allocate/{lock_id}")).refused(404, "unknown_lock");
    assert!(home.allocations().is_empty());
}
