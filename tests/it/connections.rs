//! Connections that nobody uses, or that somebody uses too slowly, keep nobody else waiting.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::support::{Connection, Home, Request};

/// More than the daemon serves at once.
const MANY: usize = 700;

#[test]
fn idle_connections_give_way() {
    let home = Home::new();
    let daemon = home.daemon();
    let begun = Instant::now();
    let address = home.unix();
    let idle: Vec<_> = (0..MANY).map(|_| Connection::open(&address).expect("a daemon")).collect();
    home.get("/status").expect(200);
    // One that says nothing is ended after 10 s anyway.
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    drop(idle);
    daemon.is_well(&home);
}

#[test]
fn a_connection_that_was_used_gives_way_between_two_requests() {
    let home = Home::new();
    let _daemon = home.daemon();
    let status = Request::new("GET", "/status");
    let mut first = Connection::open(&home.unix()).expect("a daemon");
    first.send(&status).expect("an answer").expect(200);
    let _idle: Vec<_> =
        (0..MANY).map(|_| Connection::open(&home.unix()).expect("a daemon")).collect();
    home.get("/status").expect(200);
    assert!(first.send(&status).is_err(), "it was the oldest");
}

#[test]
fn who_says_nothing_for_ten_seconds_is_not_waited_for() {
    let home = Home::new();
    let daemon = home.daemon();
    let connect = || {
        let stream = TcpStream::connect(("127.0.0.1", home.daemon_port())).expect("a daemon");
        stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a socket");
        stream
    };
    let begun = Instant::now();
    let (mut silent, mut slow, mut idle) = (connect(), connect(), connect());
    slow.write_all(b"GET /status HTTP/1.1\r\nHost:").expect("half a head");
    let request = format!("GET /status HTTP/1.1\r\nHost: localhost:{}\r\n\r\n", home.daemon_port());
    idle.write_all(request.as_bytes()).expect("a request");
    let mut answer = String::new();
    idle.read_to_string(&mut answer).expect("an answer, and the end");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    for stream in [&mut silent, &mut slow] {
        assert_eq!(stream.read_to_end(&mut Vec::new()).expect("the end"), 0, "nothing is said");
    }
    let took = begun.elapsed();
    assert!((10..15).contains(&took.as_secs()), "{took:?}");
    daemon.is_well(&home);
}

#[test]
fn a_head_has_its_limit() {
    let home = Home::new();
    let daemon = home.daemon();
    let with = |length: usize| Request::new("GET", "/status").header("X-Much", &"x".repeat(length));
    home.send(&with(16 << 10)).expect(200);
    // RFC 6585, section 5.
    home.send(&with(64 << 10)).refused(431, "malformed_request");
    daemon.is_well(&home);
}
