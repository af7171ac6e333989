//! Is a port free? Every kind of socket that would make a server's start fail is seen.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use serde_json::{Value, json};
use socket2::Socket;

use crate::support::{
    Connection, Home, PATIENCE, Request, eventually, finish, leave_time_wait, owner, port_of,
    tcp_socket, udp_socket,
};

/// Every way that Styxy says whether a port is free says that this one is not.
#[track_caller]
fn is_taken(home: &Home, port: u16, protocol: &str) -> Value {
    let checked = home.get(&format!("/check/{port}?protocol={protocol}")).expect(200);
    assert_eq!(checked["available"], false, "{checked:#}");
    home.styxy(&["check", &port.to_string(), "--protocol", protocol]).exits(1);

    let exact = json!({
        "service_type": "dev", "preferred_port": port, "exact": true, "protocol": protocol,
    });
    let refused = home.post("/allocate", exact).refused(409, "port_unavailable");
    assert!(refused["context"].get("holder").is_some(), "{refused:#}");

    let wish = json!({
        "service_type": "dev", "preferred_port": port, "protocol": protocol, "dry_run": true,
    });
    let other = home.post("/allocate", wish).expect(200);
    assert_ne!(other["port"], port, "{other:#}");
    let notes = other["notes"].as_array().expect("notes");
    assert!(!notes.is_empty(), "why not the port that was asked for: {other:#}");
    checked
}

#[track_caller]
fn is_free(home: &Home, port: u16, protocol: &str) {
    // A program that another test starts has this process's closed sockets until its execve(2).
    eventually(PATIENCE, || {
        let checked = home.get(&format!("/check/{port}?protocol={protocol}")).expect(200);
        if checked["available"] == true { Ok(()) } else { Err(format!("{checked:#}")) }
    });
    home.styxy(&["check", &port.to_string(), "--protocol", protocol]).ok();
    let exact = json!({
        "service_type": "dev", "preferred_port": port, "exact": true, "protocol": protocol,
    });
    let answer = home.post("/allocate", exact).expect(201);
    let lock_id = answer["lock_id"].as_str().expect("a lock id");
    home.delete(&format!("/allocate/{lock_id}")).expect(200);
}

/// Checks all of that for a socket of this process on the first port of `dev`.
#[track_caller]
fn a_socket_is_seen(protocol: &str, open: impl FnOnce(u16) -> Socket) -> Value {
    let home = Home::new();
    let _daemon = home.daemon();
    let (port, _) = home.dev_range();
    let socket = open(port);
    let checked = is_taken(&home, port, protocol);
    drop(socket);
    is_free(&home, port, protocol);
    checked
}

/// A listener has a name: the kernel says which process it is.
#[track_caller]
fn a_listener_is_named(address: &str) {
    for reuse_address in [false, true] {
        let open = |port| tcp_socket(&format!("{address}:{port}"), reuse_address, true);
        let checked = a_socket_is_seen("tcp", open);
        let usage = &checked["system_usage"];
        assert_eq!(usage["protocol"], "tcp", "{checked:#}");
        assert_eq!(usage["local_address"], format!("{address}:{}", port_of(&checked)));
        assert_eq!(usage["process"]["pid"], std::process::id(), "{checked:#}");
    }
}

#[test]
fn a_listener_on_the_ipv6_loopback_address_alone() {
    a_listener_is_named("[::1]");
}

#[test]
fn a_listener_on_127_0_0_2_alone() {
    a_listener_is_named("127.0.0.2");
}

#[test]
fn a_listener_on_127_0_0_1() {
    a_listener_is_named("127.0.0.1");
}

#[test]
fn a_listener_on_every_ipv4_address() {
    a_listener_is_named("0.0.0.0");
}

#[test]
fn a_listener_on_every_ipv6_address_alone() {
    a_listener_is_named("[::]");
}

#[test]
fn a_socket_that_is_bound_and_does_not_listen() {
    for address in ["127.0.0.1", "0.0.0.0", "[::1]", "127.0.0.2"] {
        for reuse_address in [false, true] {
            a_socket_is_seen("tcp", |port| {
                tcp_socket(&format!("{address}:{port}"), reuse_address, false)
            });
        }
    }
}

#[test]
fn a_udp_socket() {
    for address in ["127.0.0.1", "0.0.0.0", "[::1]", "[::]"] {
        for reuse_address in [false, true] {
            let open = |port| udp_socket(&format!("{address}:{port}"), reuse_address);
            let checked = a_socket_is_seen("udp", open);
            assert_eq!(checked["system_usage"]["protocol"], "udp", "{checked:#}");
        }
    }
}

#[test]
fn tcp_and_udp_are_two_port_spaces_and_both_asks_for_both() {
    let home = Home::new();
    let _daemon = home.daemon();
    let (first, _) = home.dev_range();
    let _udp = udp_socket(&format!("0.0.0.0:{first}"), false);
    let _tcp = tcp_socket(&format!("0.0.0.0:{}", first + 1), false, true);

    is_free(&home, first, "tcp");
    is_free(&home, first + 1, "udp");
    let both =
        |port: u16| {
            home.post("/allocate", json!({
            "service_type": "dev", "preferred_port": port, "exact": true, "protocol": "both",
        }))
        };
    both(first).refused(409, "port_unavailable");
    both(first + 1).refused(409, "port_unavailable");
    let answer = both(first + 2).expect(201);
    assert_eq!(answer["allocation"]["protocol"], "both", "{answer:#}");
    is_taken(&home, first + 2, "tcp");
    is_taken(&home, first + 2, "udp");
}

#[test]
fn a_server_that_stopped_a_moment_ago_with_connections_in_time_wait_is_free() {
    let home = Home::new();
    let _daemon = home.daemon();
    let (port, _) = home.dev_range();
    leave_time_wait(port);
    is_free(&home, port, "tcp");
}

#[test]
fn time_wait_beside_a_new_listener_or_a_bound_socket_is_taken() {
    let home = Home::new();
    let _daemon = home.daemon();
    let (port, _) = home.dev_range();
    for listens in [true, false] {
        let port = port + u16::from(listens);
        leave_time_wait(port);
        let _socket = tcp_socket(&format!("127.0.0.1:{port}"), true, listens);
        is_taken(&home, port, "tcp");
    }
}

/// A server that starts and stops 5000 times on the port `argv[1]`, and says how often it failed.
const RESTARTS: &str = "\
import socket, sys
failures = 0
for _ in range(5000):
    try:
        socket.create_server(('127.0.0.1', int(sys.argv[1]))).close()
    except OSError:
        failures += 1
print(failures)
";

#[test]
fn an_allocated_port_is_looked_up_and_never_bound() {
    let home = Home::new();
    let daemon = home.daemon();
    let owner = owner();
    let port = port_of(&home.allocate_for(owner.pid()));
    let done = AtomicBool::new(false);

    let output = thread::scope(|scope| {
        scope.spawn(|| {
            let mut connection = Connection::open(&home.unix()).expect("a daemon");
            let paths = [format!("/check/{port}"), "/allocations".into(), "/suggest/dev".into()];
            for path in paths.iter().cycle().take_while(|_| !done.load(Ordering::Relaxed)) {
                connection.send(&Request::new("GET", path)).expect("an answer").expect(200);
            }
        });
        let mut server = home.command("python3");
        let output = finish(server.args(["-c", RESTARTS, &port.to_string()]));
        done.store(true, Ordering::Relaxed);
        output
    });
    assert_eq!(output.text(), "0", "starts failed because somebody probed\n{}", output.whole());
    daemon.is_well(&home);
}

#[test]
fn suggestions_and_picks_go_around_what_others_have() {
    let home = Home::new();
    let _daemon = home.daemon();
    let (first, last) = home.dev_range();
    // Every second port is somebody's, in all the ways there are.
    let _sockets: Vec<_> = (first..=last)
        .step_by(2)
        .enumerate()
        .map(|(n, port)| {
            let address = ["127.0.0.1", "[::1]", "0.0.0.0", "127.0.0.2"][n % 4];
            tcp_socket(&format!("{address}:{port}"), n % 3 == 0, n % 5 != 0)
        })
        .collect();

    let body = home.get("/suggest/dev?count=10").expect(200);
    let suggestions = body["suggestions"].as_array().expect("a list of ports");
    assert_eq!(suggestions.len(), 10, "{body:#}");
    for port in suggestions.iter().filter_map(Value::as_u64) {
        assert_eq!((port - u64::from(first)) % 2, 1, "{port} is taken: {body:#}");
    }
    for _ in 0..10 {
        let answer = home.allocate_for(std::process::id());
        assert_eq!((port_of(&answer) - first) % 2, 1, "{answer:#}");
    }
}
