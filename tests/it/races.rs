//! Things that happen at once, on purpose, again and again: whoever is first, nothing is given twice
//! and nothing stays behind.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::process::Stdio;
use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{
    Connection, Home, PATIENCE, Reply, Request, Running, eventually, full, owner, port_of,
    random_below, report, tcp_socket,
};

/// Sends one request from each of so many clients at the same moment.
fn at_once(home: &Home, clients: usize, request: &Request) -> Vec<Reply> {
    let start = Barrier::new(clients);
    thread::scope(|scope| {
        let clients: Vec<_> = (0..clients)
            .map(|n| {
                let address = if n % 2 == 0 { home.tcp() } else { home.unix() };
                let mut connection = Connection::open(&address).expect("a daemon");
                let start = &start;
                scope.spawn(move || {
                    start.wait();
                    connection.send(request).expect("an answer")
                })
            })
            .collect();
        clients.into_iter().map(|one| one.join().expect("no panic")).collect()
    })
}

fn release(home: &Home, answer: &Value) -> Reply {
    home.delete(&format!("/allocate/{}", answer["lock_id"].as_str().expect("a lock id")))
}

#[test]
fn one_of_64_clients_gets_the_port_that_all_want() {
    let home = Home::new();
    let daemon = home.daemon();
    let owner = owner();
    let exact = json!({ "service_type": "dev", "preferred_port": home.spare_port(0), "exact": true,
        "process_id": owner.pid() });
    let rounds = if full() { 200 } else { 10 };
    for round in 0..rounds {
        let replies = at_once(&home, 64, &Request::json("POST", "/allocate", &exact));
        let (got, refused): (Vec<_>, Vec<_>) = replies.iter().partition(|one| one.status == 201);
        assert_eq!(got.len(), 1, "round {round}: {got:#?}");
        for one in refused {
            let body = one.refused(409, "port_unavailable");
            assert!(!body["context"]["holder"].is_null(), "{body:#}");
        }
        release(&home, &got[0].json()).expect(200);
    }
    assert_eq!(home.allocations(), [Value::Null; 0]);
    daemon.is_well(&home);
    report(&format!("{rounds} rounds"));
}

#[test]
fn the_last_free_port_of_a_range_is_given_once() {
    let home = Home::new();
    let daemon = home.daemon();
    let owner = owner();
    let body = json!({ "service_type": "api", "process_id": owner.pid() });
    // Four of its own range and four of the overflow range, but one.
    for _ in 0..7 {
        home.post("/allocate", body.clone()).expect(201);
    }
    let rounds = if full() { 2000 } else { 100 };
    for round in 0..rounds {
        let replies = at_once(&home, 2, &Request::json("POST", "/allocate", &body));
        let got: Vec<_> = replies.iter().filter(|one| one.status == 201).collect();
        assert_eq!(got.len(), 1, "round {round}: {replies:#?}");
        let refused = replies.iter().find(|one| one.status != 201).expect("the other");
        refused.refused(503, "range_exhausted");
        release(&home, &got[0].json()).expect(200);
    }
    daemon.is_well(&home);
    report(&format!("{rounds} rounds"));
}

/// A named service is started once, however many start it.
#[test]
fn two_that_start_the_same_service_get_one_allocation_when_they_reuse() {
    let home = Home::new();
    let daemon = home.daemon();
    let owner = owner();
    let body = json!({ "service_type": "dev", "service_name": "web", "if_running": "reuse",
        "project_path": home.work(), "process_id": owner.pid() });
    for _ in 0..if full() { 500 } else { 50 } {
        let replies = at_once(&home, 8, &Request::json("POST", "/allocate", &body));
        let ids: BTreeSet<_> =
            replies.iter().map(|one| one.json()["lock_id"].to_string()).collect();
        assert_eq!(ids.len(), 1, "{replies:#?}");
        let first = replies.iter().filter(|one| one.status == 201).count();
        assert_eq!(first, 1, "{replies:#?}");
        release(&home, &replies[0].json()).expect(200);
    }
    daemon.is_well(&home);
}

/// Starts `styxy run -n web OPTION -- …` twice at the same moment. Each with what it says first, be
/// that the command or Styxy itself.
fn run_twice(home: &Home, option: &[&str]) -> [(Running, String); 2] {
    let start = Barrier::new(2);
    let run = || {
        let script = format!(
            "exec styxy run -q -n web {} -- sh -c 'echo ran on $PORT; exec sleep 3600' 2>&1",
            option.join(" ")
        );
        let mut command = home.shell(&script);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        start.wait();
        let mut run = Running::spawn(&mut command);
        let line = run.line();
        (run, line)
    };
    thread::scope(|scope| [(); 2].map(|()| scope.spawn(run)).map(|one| one.join().expect("said")))
}

/// The port that a command ran on, if it ran.
fn ran_on(said: &str) -> Option<u16> {
    said.strip_prefix("ran on ")?.parse().ok()
}

#[test]
fn of_two_runs_of_one_name_at_once_one_runs_and_the_other_says_where() {
    let home = Home::new();
    let daemon = home.daemon();
    let rounds = if full() { 200 } else { 10 };
    for round in 0..rounds {
        for (option, exit) in [(None, 1), (Some("--reuse"), 0)] {
            let mut runs = run_twice(&home, option.as_slice());
            // The one that ran first.
            runs.sort_by_key(|(_, said)| ran_on(said).is_none());
            let [(winner, ran), (loser, said)] = &mut runs;
            let context = format!("round {round}, {option:?}: {ran:?}, {said:?}");

            let port = ran_on(ran).unwrap_or_else(|| panic!("none ran: {context}"));
            let url = format!("http://localhost:{port}");
            let expected = match option {
                Some(_) => url,
                None => format!("error: web runs already: {url}"),
            };
            assert_eq!(*said, expected, "{context}");
            assert_eq!(loser.wait().code(), Some(exit), "{context}");
            let allocations = home.allocations();
            assert_eq!(allocations.len(), 1, "{context}: {allocations:#?}");
            assert_eq!(allocations[0]["process_id"], winner.pid(), "{context}");
            assert!(winner.try_wait().is_none(), "the one that runs goes on: {context}");

            winner.kill();
            home.ends_within(PATIENCE, &allocations[0]["lock_id"]);
        }
    }
    daemon.is_well(&home);
    report(&format!("{rounds} rounds"));
}

#[test]
fn two_runs_of_one_name_at_once_both_run_when_another_one_is_wanted() {
    let home = Home::new();
    let daemon = home.daemon();
    let rounds = if full() { 200 } else { 10 };
    for round in 0..rounds {
        let runs = run_twice(&home, &["--another"]);
        let ports: BTreeSet<_> = runs.iter().filter_map(|(_, said)| ran_on(said)).collect();
        assert_eq!(ports.len(), 2, "round {round}: {runs:#?}");
        let allocations = home.allocations();
        let theirs: BTreeSet<_> = allocations.iter().map(port_of).collect();
        assert_eq!(theirs, ports, "round {round}: {allocations:#?}");
        drop(runs);
        for one in &allocations {
            home.ends_within(PATIENCE, &one["lock_id"]);
        }
    }
    daemon.is_well(&home);
    report(&format!("{rounds} rounds"));
}

#[test]
fn a_release_while_the_owner_dies_ends_it_once() {
    let home = Home::new();
    let daemon = home.daemon();
    let mut events = Connection::open(&home.unix()).expect("a daemon");
    events.send_head(&Request::new("GET", "/events")).expect("sent");
    let rounds = if full() { 1000 } else { 100 };
    let mut by_release = 0;
    for _ in 0..rounds {
        let mut owner = owner();
        let made = home.allocate_for(owner.pid());
        let lock_id = made["lock_id"].as_str().expect("a lock id");
        let start = Barrier::new(2);
        let reply = thread::scope(|scope| {
            scope.spawn(|| {
                start.wait();
                owner.kill();
            });
            let mut connection = home.connect();
            let request = Request::new("DELETE", &format!("/allocate/{lock_id}"));
            start.wait();
            connection.send(&request).expect("an answer")
        });
        match reply.status {
            200 => by_release += 1,
            _ => drop(reply.refused(404, "unknown_lock")),
        }
        // Free at once for the next, and not by another end of the first.
        let text = events.read_until("event: released").expect("events");
        assert_eq!(text.matches("event: released").count(), 1, "{text}");
        assert!(text.contains(lock_id), "{text}");
        events.forget();
        assert_eq!(home.allocations(), [Value::Null; 0]);
    }
    daemon.is_well(&home);
    report(&format!("{rounds} rounds, the release was first in {by_release}"));
}

/// After a restart a lease has its whole length again; what ended before it stays ended.
#[test]
fn a_restart_while_a_lease_ends_neither_doubles_nor_keeps_it() {
    let home = Home::new();
    let mut daemon = home.daemon();
    let rounds = if full() { 60 } else { 4 };
    let mut survived = 0;
    for round in 0..rounds {
        let body = json!({ "service_type": "dev", "lease_seconds": 1 });
        let made = home.post("/allocate", body).expect(201);
        // Around the lease's end, a little before or after.
        thread::park_timeout(Duration::from_millis(900 + random_below(200) as u64));
        if round % 2 == 0 {
            daemon.crash();
        } else {
            daemon.stop();
        }
        daemon = home.daemon();
        let found = home.allocations();
        assert!(found.len() <= 1, "{found:#?}");
        if let [found] = &found[..] {
            survived += 1;
            assert_eq!(found["lock_id"], made["lock_id"]);
        }
        home.ends_within(PATIENCE, &made["lock_id"]);
    }
    daemon.is_well(&home);
    report(&format!("{rounds} rounds, {survived} leases seen again"));
}

/// Programs that bind ports of the range while others allocate: no port is given to two, and none
/// that was taken all the time.
#[test]
fn ports_that_come_and_go_while_clients_allocate_are_never_given_twice() {
    let home = Home::with_ports(64);
    let daemon = home.daemon();
    let owner = owner();
    let (first, last) = home.dev_range();
    let fixed = tcp_socket(&format!("127.0.0.1:{}", first + 3), false, true);
    let rounds = if full() { 20_000 } else { 500 };
    let body = json!({ "service_type": "dev", "process_id": owner.pid() });
    let allocate = Request::json("POST", "/allocate", &body);
    let client = || {
        let mut connection = home.connect();
        for _ in 0..rounds {
            let answer = connection.send(&allocate).expect("an answer").expect(201);
            assert_ne!(port_of(&answer), first + 3, "somebody listens there");
            let path = format!("/allocate/{}", answer["lock_id"].as_str().expect("a lock id"));
            connection.send(&Request::new("DELETE", &path)).expect("an answer").expect(200);
        }
    };
    let taken = thread::scope(|scope| {
        let clients = [(); 4].map(|()| scope.spawn(client));
        let mut taken = 0;
        while !clients.iter().all(thread::ScopedJoinHandle::is_finished) {
            let below = u16::try_from(random_below(usize::from(last - first))).expect("a port");
            // It may be anybody's at this moment.
            taken += usize::from(TcpListener::bind(("127.0.0.1", first + below)).is_ok());
        }
        taken
    });
    drop(fixed);
    eventually(PATIENCE, || match home.allocations().len() {
        0 => Ok(()),
        left => Err(format!("{left} allocations")),
    });
    daemon.is_well(&home);
    report(&format!("{taken} ports taken and left, {} allocations", 4 * rounds));
}
