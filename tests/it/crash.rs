//! `kill -9` of the daemon: what was answered is there, and nothing is there twice.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use serde_json::{Value, json};
use styxy::registry::Change;

use crate::support::{
    Connection, Daemon, Home, PATIENCE, Request, Running, changes, eventually, full, owner,
    port_of, random_below, report, said,
};

const CLIENTS: usize = 16;

/// What one client knows when its daemon is gone.
#[derive(Default)]
struct Knowledge {
    /// Answered and not released: lock id to port.
    held: BTreeMap<String, u16>,
    /// Answered releases.
    released: BTreeSet<String>,
}

/// Allocates, and now and then releases, until the daemon does not answer any more.
fn work(connection: &mut Connection, owner: u32, answered: &AtomicUsize) -> Knowledge {
    let mut known = Knowledge::default();
    for turn in 1_usize.. {
        if turn.is_multiple_of(4) {
            // From here on nobody knows, until it is answered.
            let (lock_id, _) = known.held.pop_first().expect("three were allocated");
            let request = Request::new("DELETE", &format!("/allocate/{lock_id}"));
            let Ok(reply) = connection.send(&request) else { break };
            reply.expect(200);
            known.released.insert(lock_id);
        } else {
            let body = json!({ "service_type": "dev", "process_id": owner });
            let Ok(reply) = connection.send(&Request::json("POST", "/allocate", &body)) else {
                break;
            };
            if reply.status == 503 {
                reply.refused(503, "range_exhausted");
                continue;
            }
            let answer = reply.expect(201);
            let lock_id = answer["lock_id"].as_str().expect("a lock id").to_owned();
            known.held.insert(lock_id, port_of(&answer));
        }
        answered.fetch_add(1, Ordering::Relaxed);
    }
    known
}

/// Lets all clients work at once, and kills the daemon in the middle of it.
fn crash_at_work(home: &Home, daemon: Daemon, owners: &[Running], after: usize) -> Vec<Knowledge> {
    let answered = AtomicUsize::new(0);
    thread::scope(|scope| {
        let clients: Vec<_> = owners
            .iter()
            .map(|owner| {
                let mut connection = home.connect();
                let (pid, answered) = (owner.pid(), &answered);
                scope.spawn(move || work(&mut connection, pid, answered))
            })
            .collect();
        eventually(PATIENCE, || match answered.load(Ordering::Relaxed) {
            count if count >= after => Ok(()),
            count => Err(format!("{count} answers of {after}")),
        });
        daemon.crash();
        clients.into_iter().map(|one| one.join().expect("a client that does not panic")).collect()
    })
}

#[track_caller]
fn check(allocations: &[Value], knowledge: &[Knowledge], round: usize) {
    let by_lock: BTreeMap<_, _> = allocations
        .iter()
        .map(|one| (one["lock_id"].as_str().expect("a lock id"), port_of(one)))
        .collect();
    assert_eq!(by_lock.len(), allocations.len(), "round {round}: a lock id twice");
    let ports: BTreeSet<_> = by_lock.values().collect();
    assert_eq!(ports.len(), allocations.len(), "round {round}: a port twice: {allocations:#?}");
    for known in knowledge {
        for (lock_id, port) in &known.held {
            let found = by_lock.get(lock_id.as_str());
            assert_eq!(found, Some(port), "round {round}: {lock_id} was answered");
        }
        for lock_id in &known.released {
            let found = by_lock.get(lock_id.as_str());
            assert_eq!(found, None, "round {round}: {lock_id} was released");
        }
    }
}

#[test]
fn every_answered_allocation_survives_a_kill_in_the_middle_of_sixteen_clients() {
    let home = Home::with_ports(512);
    let rounds = if full() { 1000 } else { 20 };
    let mut daemon = home.daemon();
    let (mut answered, mut released) = (0, 0);
    for round in 0..rounds {
        let mut owners: Vec<_> = (0..CLIENTS).map(|_| owner()).collect();
        // One dies while no daemon is there: what it had must be gone.
        let knowledge = crash_at_work(&home, daemon, &owners, 1 + random_below(400));
        released += knowledge.iter().map(|known| known.released.len()).sum::<usize>();
        answered += knowledge.iter().map(|known| known.held.len()).sum::<usize>();
        let dead = owners.pop().expect("an owner");
        let dead_pid = dead.pid();
        drop(dead);

        daemon = home.daemon();
        let allocations = home.allocations();
        assert!(allocations.iter().all(|one| one["process_id"] != dead_pid), "{allocations:#?}");
        check(&allocations, &knowledge[..CLIENTS - 1], round);
        daemon.is_well(&home);
        if round % 4 == 0 {
            // Killed again before anything new was written: what was replayed is replayed again.
            daemon.crash();
            daemon = home.daemon();
            assert_eq!(home.allocations(), allocations, "round {round}");
        }

        drop(owners);
        eventually(PATIENCE, || match home.allocations().len() {
            0 => Ok(()),
            left => Err(format!("{left} allocations of dead owners")),
        });
    }
    report(&format!(
        "{rounds} rounds, {answered} answered allocations kept, {released} answered releases"
    ));
}

/// Every operation that writes to the journal, and then the end of the daemon after each byte that
/// it wrote: what is found is what the whole lines say, and a daemon lives with it.
#[test]
fn every_prefix_of_a_journal_that_a_daemon_wrote_is_a_journal() {
    let home = Home::new();
    let daemon = home.daemon();
    let (first, second) = (owner(), owner());
    let register = json!({ "instance_id": "agent", "process_id": second.pid(),
        "metadata": { "name": "größe" } });
    home.post("/instance/register", register).expect(201);
    let work = home.work();
    let services = json!([{ "service_type": "api", "service_name": "db" }]);
    home.post("/assign", json!({ "project_path": work, "services": services })).expect(200);
    let named = json!({ "service_type": "dev", "service_name": "web", "project_path": work,
        "process_id": first.pid(), "instance_id": "agent" });
    let web = home.post("/allocate", named).expect(201);
    let leased = json!({ "service_type": "dev", "lease_seconds": 60, "protocol": "both" });
    let leased = home.post("/allocate/batch", json!({ "requests": [leased, leased] })).expect(201);
    let path = |answer: &Value| format!("/allocate/{}", answer["lock_id"].as_str().expect("an id"));
    let [one, other] = [0, 1].map(|n| path(&leased["allocations"][n]));
    home.post(&format!("{one}/renew"), json!({ "lease_seconds": 90 })).expect(200);
    home.delete(&other).expect(200);
    drop(first);
    home.ends_within(PATIENCE, &web["lock_id"]);
    home.delete("/instance/agent").expect(200);
    home.post("/cleanup", json!({ "force": true })).expect(200);
    home.allocate_for(second.pid());
    daemon.crash();

    let bytes = std::fs::read(home.journal()).expect("a journal");
    let lines = |bytes: &[u8]| bytes.split_inclusive(|byte| *byte == b'\n').count();
    assert!(lines(&bytes) > 12, "{}", bytes.escape_ascii());
    let mut whole = Vec::new();
    for length in 0..=bytes.len() {
        let dir = tempfile::TempDir::new().expect("a temporary directory");
        let journal = dir.path().join("state.jsonl");
        std::fs::write(&journal, &bytes[..length]).expect("a new file");
        let found = styxy::store::peek(dir.path()).expect("any prefix is a journal");
        if length > 0 && bytes[length - 1] == b'\n' {
            whole = said(&changes(&bytes[..length]));
        }
        assert_eq!(found, whole, "{length} bytes");
        opens_and_takes_more(dir.path(), &found);
    }
    report(&format!("{} prefixes of {} lines", bytes.len() + 1, lines(&bytes)));
}

/// A daemon that starts on it knows that much, and what it appends is found with it.
fn opens_and_takes_more(dir: &std::path::Path, expected: &[Change]) {
    let holder = styxy::store::LockHolder {
        pid: std::process::id(),
        start_ticks: 0,
        version: String::new(),
        role: "daemon".to_owned(),
        sockets: Vec::new(),
        systemd: false,
    };
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").expect("/proc");
    let open = || styxy::store::Store::open(dir, boot.trim(), &holder, PATIENCE);
    let (mut store, loaded) = open().expect("any prefix opens");
    assert_eq!(loaded.changes, expected);
    let more = Change::InstanceRemoved { instance_id: "more".to_owned() };
    store.append(std::slice::from_ref(&more)).expect("room on the disk");
    drop(store);
    let (_store, loaded) = open().expect("it opened before");
    assert_eq!(loaded.changes, [expected, &[more]].concat());
    assert_eq!(loaded.notices, [""; 0], "it was mended");
}

#[test]
fn an_answered_release_survives_a_kill() {
    let home = Home::new();
    let daemon = home.daemon();
    let owner = owner();
    let (kept, released) = (home.allocate_for(owner.pid()), home.allocate_for(owner.pid()));
    let lock_id = released["lock_id"].as_str().expect("a lock id");
    home.delete(&format!("/allocate/{lock_id}")).expect(200);

    daemon.crash();
    let _daemon = home.daemon();

    let left = home.allocations();
    assert_eq!(left.len(), 1, "{left:#?}");
    assert_eq!(left[0]["lock_id"], kept["lock_id"]);
    assert_eq!(left[0]["process_id"], owner.pid());
}

#[test]
fn after_a_restart_owners_are_watched_as_before() {
    let home = Home::new();
    let daemon = home.daemon();
    let mut owner = owner();
    let lock_id = home.allocate_for(owner.pid())["lock_id"].clone();
    daemon.crash();
    let _daemon = home.daemon();
    assert!(home.allocation(&lock_id).is_some());

    owner.kill();

    home.ends_within(std::time::Duration::from_secs(2), &lock_id);
}
