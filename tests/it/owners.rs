//! Owners: a port is free the moment its owner dies, and no sooner.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{
    Home, PATIENCE, Request, Running, Serve, as_nobody, delay_after_death, eventually, finish,
    is_root, keep_the_promise, owner, reuse_pid, skip,
};

#[test]
fn the_port_of_a_killed_owner_can_be_allocated_again_within_50_ms() {
    let home = Home::alone(32);
    let _daemon = home.daemon();
    let mut connection = home.connect();
    let mut allocate = |pid: u32| {
        let body = json!({
            "service_type": "dev", "preferred_port": home.spare_port(0), "exact": true,
            "process_id": pid,
        });
        connection.send(&Request::json("POST", "/allocate", &body)).expect("an answer")
    };
    let mut delay = |_| {
        let (first, second) = (owner(), owner());
        allocate(first.pid()).expect(201);
        allocate(second.pid()).refused(409, "port_unavailable");
        let start = Instant::now();
        let mut lock_id = Value::Null;
        let delay = delay_after_death(&first, || {
            lock_id = loop {
                let reply = allocate(second.pid());
                if reply.status == 201 {
                    break reply.json()["lock_id"].clone();
                }
                reply.refused(409, "port_unavailable");
                assert!(start.elapsed() < PATIENCE, "{reply:#?}");
            };
        });
        let path = format!("/allocate/{}", lock_id.as_str().expect("a lock id"));
        home.delete(&path).expect(200);
        delay
    };
    let mut delays: Vec<Duration> = (0..100).map(&mut delay).collect();
    keep_the_promise(&mut delays);
    assert!(delays[50] < Duration::from_millis(5), "usually much sooner: {delays:?}");
}

#[test]
fn an_owner_whose_pid_another_process_has_now_is_dead() {
    if !is_root() {
        return skip("choosing a pid needs root");
    }
    let home = Home::new();
    let daemon = home.daemon();
    let first = owner();
    let pid = first.pid();
    let lock_id = home.allocate_for(pid)["lock_id"].clone();

    // While nobody watches, so that only the start time can tell.
    daemon.crash();
    let _reused = reuse_pid(first, 1);
    let _daemon = home.daemon();

    assert_eq!(home.allocation(&lock_id), None, "pid {pid} is another process now");
}

#[test]
fn a_start_time_that_is_not_the_owners_is_refused() {
    let home = Home::new();
    let _daemon = home.daemon();
    let owner = owner();
    let ask = |start_time: Value| {
        let body = json!({
            "service_type": "dev", "process_id": owner.pid(), "process_start_time": start_time,
        });
        home.post("/allocate", body)
    };

    let allocation = ask(Value::Null).expect(201)["allocation"].clone();
    let start_time = allocation["process_start_time"].as_u64().expect("a start time");
    for near in [start_time - 1, start_time, start_time + 1] {
        ask(near.into()).expect(201);
    }
    for far in [start_time - 10, start_time + 10, 1] {
        ask(far.into()).refused(422, "unknown_process");
    }
}

#[test]
fn only_a_living_process_of_this_user_can_own() {
    let home = Home::new();
    let _daemon = home.daemon();
    let ask =
        |pid: u32| home.post("/allocate", json!({ "service_type": "dev", "process_id": pid }));

    let mut dead = owner();
    dead.kill();
    ask(dead.pid()).refused(422, "unknown_process");
    ask(i32::MAX.unsigned_abs()).refused(422, "unknown_process");
    if !is_root() {
        return skip("a process of another user needs root");
    }
    let mut command = Command::new("sleep");
    command.arg("3600").stdout(Stdio::null());
    // Without env: setpriv is found by the search path that is there.
    let path = std::env::var_os("PATH").unwrap_or_default();
    let stranger = Running::spawn(as_nobody(&command).env("PATH", path));
    eventually(PATIENCE, || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", stranger.pid()));
        let status = status.expect("a living process");
        if status.contains("Uid:\t65534") { Ok(()) } else { Err(status) }
    });
    ask(stranger.pid()).refused(422, "unknown_process");
    assert!(home.allocations().is_empty());
}

/// `styxy run` of a shell that starts a listener in the background and then waits itself.
fn owner_with_listener(home: &Home) -> (Running, u32) {
    let script = "python3 -c \"$0\" 127.0.0.1 $PORT & echo $!; exec sleep 3600";
    let mut owner = home.run(&["--", "sh", "-c", script, Serve::SCRIPT]);
    let lines = [owner.line(), owner.line()];
    let listener = lines.iter().find_map(|line| line.parse().ok());
    (owner, listener.unwrap_or_else(|| panic!("no pid in {lines:?}")))
}

#[test]
fn a_server_that_outlives_its_owner_keeps_its_port() {
    let home = Home::new();
    let _daemon = home.daemon();
    let (mut owner, listener) = owner_with_listener(&home);
    let lock_id = home.allocation_of(owner.pid())["lock_id"].clone();

    owner.kill();

    home.listens(&lock_id, listener);
    home.styxy(&["cleanup"]).ok();
    assert!(home.allocation(&lock_id).is_some(), "the listener holds it");

    home.kill(listener);
    home.ends_within(Duration::from_secs(2), &lock_id);
}

#[test]
fn a_child_that_has_not_bound_yet_inherits_the_port_of_its_dead_owner() {
    let home = Home::new();
    let _daemon = home.daemon();
    let mut owner = home.run(&["--", "sh", "-c", "setsid sleep 3600 & echo $!; exec sleep 3600"]);
    let heir: u32 = owner.line().parse().expect("a pid");
    // In the middle of an execve(2) a process shows no environment.
    eventually(PATIENCE, || {
        let name = std::fs::read_to_string(format!("/proc/{heir}/comm")).expect("it lives");
        if name.trim() == "sleep" { Ok(()) } else { Err(name) }
    });
    let lock_id = home.allocation_of(owner.pid())["lock_id"].clone();

    owner.kill();

    eventually(PATIENCE, || match home.allocation(&lock_id) {
        Some(allocation) if allocation["process_id"] == heir => Ok(()),
        other => Err(format!("heir {heir}, {other:#?}")),
    });
    home.kill(heir);
    home.ends_within(Duration::from_secs(2), &lock_id);
}

/// Before it becomes its program, nothing but its parent's memory has the lock id.
#[test]
fn a_child_that_its_shell_leaves_before_it_becomes_a_server_inherits_the_port() {
    let home = Home::new();
    let _daemon = home.daemon();
    let script = "mkfifo go && eval \"$(styxy allocate --shell -s dev --pid $$)\" || exit; \
        { read -r _ <go; exec python3 -c \"$1\" 127.0.0.1 $PORT; } >served 2>&1 & echo $!";
    let mut shell = home.shell(script);
    shell.args(["sh", Serve::SCRIPT]);
    let heir: u32 = finish(&mut shell).ok().stdout.trim().parse().expect("a pid");

    let lock_id = home.allocation_of(heir)["lock_id"].clone();
    std::fs::write(home.work().join("go"), "\n").expect("it reads");
    home.listens(&lock_id, heir);
    home.kill(heir);
    home.ends_within(Duration::from_secs(2), &lock_id);
}

#[test]
fn an_owner_that_ends_by_itself_frees_its_port_as_well() {
    let home = Home::new();
    let _daemon = home.daemon();
    let mut child = home.run(&["--", "sh", "-c", "read line"]);
    // stdin is /dev/null: it ends at once.
    assert!(!child.wait().success());
    eventually(PATIENCE, || {
        let left = home.allocations();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:#?}")) }
    });
}
