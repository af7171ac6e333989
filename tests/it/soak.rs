//! For weeks: memory, descriptors and the state directory end where they were.

use serde_json::json;

use crate::support::{
    Connection, Daemon, Home, PATIENCE, Request, eventually, full, owner, report,
};

/// What a daemon has of the machine.
#[derive(Debug, Clone, Copy)]
struct Use {
    memory_kib: u64,
    descriptors: usize,
    state_files: usize,
    state_bytes: u64,
}

impl Use {
    fn of(home: &Home, daemon: &Daemon) -> Self {
        let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid()));
        let status = status.expect("a living daemon");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its memory");
        let memory = line.split_whitespace().next().expect("a number").parse();
        let state = home.state_dir().expect("a state directory");
        let files = std::fs::read_dir(state).expect("a directory").flatten();
        let lengths: Vec<_> =
            files.map(|file| file.metadata().map_or(0, |metadata| metadata.len())).collect();
        Self {
            memory_kib: memory.expect("a number"),
            descriptors: daemon.descriptors(),
            state_files: lengths.len(),
            state_bytes: lengths.iter().sum(),
        }
    }
}

/// Lets a daemon do the same `total` times; it must not have grown since the first `warm` times.
#[track_caller]
fn soak(what: &str, warm: usize, total: usize, once: impl Fn(&Home, &mut Connection)) {
    let home = Home::with_ports(64);
    let daemon = home.daemon();
    let mut connection = Connection::open(&home.unix()).expect("a daemon");
    let mut before = None;
    let start = std::time::Instant::now();
    for count in 1..=total {
        once(&home, &mut connection);
        if count == warm {
            before = Some(Use::of(&home, &daemon));
        }
    }
    let before = before.expect("some of them were warm-up");
    let after = eventually(PATIENCE, || {
        let after = Use::of(&home, &daemon);
        let grown = after.descriptors > before.descriptors
            || after.state_files > before.state_files
            // Pages that the allocator keeps come and go.
            || after.memory_kib > before.memory_kib + 1024
            // The journal grows to 4,096 lines beyond what lives, and is compacted then.
            || after.state_bytes > 2 << 20;
        if grown { Err(format!("{before:?} became {after:?}")) } else { Ok(after) }
    });
    daemon.is_well(&home);
    let seconds = start.elapsed().as_secs_f32();
    report(&format!("{total} {what} in {seconds:.1} s: {before:?} after {warm}, then {after:?}"));
}

#[test]
fn cycles_of_allocation_and_release_leave_nothing_behind() {
    let (warm, total) = if full() { (10_000, 1_000_000) } else { (3000, 9000) };
    let owner = owner();
    let body = json!({ "service_type": "dev", "service_name": "web", "process_id": owner.pid() });
    let allocate = Request::json("POST", "/allocate", &body);
    soak("cycles", warm, total, |_, connection| {
        let answer = connection.send(&allocate).expect("an answer").expect(201);
        let path = format!("/allocate/{}", answer["lock_id"].as_str().expect("a lock id"));
        connection.send(&Request::new("DELETE", &path)).expect("an answer").expect(200);
    });
}

#[test]
fn deaths_of_owners_leave_nothing_behind() {
    let (warm, total) = if full() { (10_000, 100_000) } else { (200, 600) };
    soak("deaths", warm, total, |_, connection| {
        let owner = owner();
        let body = json!({ "service_type": "dev", "process_id": owner.pid() });
        let request = Request::json("POST", "/allocate", &body);
        let answer = connection.send(&request).expect("an answer").expect(201);
        drop(owner);
        let lock_id = answer["lock_id"].as_str().expect("a lock id");
        eventually(PATIENCE, || {
            let list = connection.send(&Request::new("GET", "/allocations")).expect("an answer");
            if list.body.contains(lock_id) { Err(list.body) } else { Ok(()) }
        });
    });
}
