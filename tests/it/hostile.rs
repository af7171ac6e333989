//! Clients that mean harm, or know no better: others are answered meanwhile, memory stays bounded,
//! and what is no HTTP is refused as everything else is.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;

use crate::support::{
    Address, Connection, Daemon, Home, PATIENCE, Request, STRANGER, as_user, full, is_root, report,
};

/// How soon everybody else is answered.
const PROMISE: Duration = Duration::from_millis(50);

/// What a daemon may use, whatever is done to it, in KiB. The unit allows it ten times as much.
const MEMORY: u64 = 48 << 10;

fn open(home: &Home) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(("127.0.0.1", home.daemon_port()))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// The most memory that the daemon has had so far, in KiB (VmHWM of proc_pid_status(5)).
fn memory(daemon: &Daemon) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid()));
    let status = status.expect("a living daemon");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    number.expect("a number")
}

/// The slowest answer to somebody who comes anew each time, while `attack` goes on.
fn slowest_during(address: &Address, attack: impl FnOnce() + Send) -> (Duration, usize) {
    thread::scope(|scope| {
        let attack = scope.spawn(attack);
        let (mut slowest, mut asked) = (Duration::ZERO, 0);
        while !attack.is_finished() {
            let start = Instant::now();
            let request = Request::json(
                "POST",
                "/allocate",
                &json!({
                    "service_type": "dev", "dry_run": true,
                }),
            );
            let reply = Connection::open(address).and_then(|mut it| it.send(&request));
            reply.expect("an answer").expect(200);
            slowest = slowest.max(start.elapsed());
            asked += 1;
        }
        (slowest, asked)
    })
}

/// Where the others come in.
#[derive(Clone, Copy)]
enum Others {
    /// Where the attack comes in too, over TCP.
    Beside,
    /// Over the unix socket, as all of Styxy's own commands do. In front of the TCP socket everybody
    /// on the machine stands in the kernel's one queue, which whoever floods it makes longer.
    Unix,
}

/// Attacks a daemon, and checks that others were answered in time and memory stayed bounded.
#[track_caller]
fn withstands(name: &str, others: Others, attack: impl Fn(&Home) + Send + Sync) {
    let home = Home::alone(32);
    let daemon = home.daemon();
    let address = match others {
        Others::Beside => home.tcp(),
        Others::Unix => home.unix(),
    };
    // Other programs than these tests may have the processors: one try of five must do.
    let mut tries = (0..5).map(|_| slowest_during(&address, || attack(&home)));
    let good = tries.find(|(slowest, asked)| {
        let good = *slowest < PROMISE && *asked > 0;
        if !good {
            eprintln!("{name}: another try after {slowest:?}, {asked} answers");
        }
        good
    });
    let (slowest, asked) = good.unwrap_or_else(|| panic!("{name}: not within {PROMISE:?}"));
    let memory = memory(&daemon);
    assert!(memory < MEMORY, "{name}: {memory} KiB");
    daemon.is_well(&home);
    report(&format!("{asked} others, the slowest in {slowest:?}; {memory} KiB"));
}

/// Opens that many connections, says `text` on each, and keeps them for a while.
fn crowd(home: &Home, count: usize, text: &str) {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, Rlimit { ..limit }).expect("up to the hard limit everybody may");
    let crowd: Vec<_> = (0..count)
        .map(|_| {
            let mut stream = open(home).expect("a daemon");
            // It may have had to give way already.
            let _ = stream.write_all(text.as_bytes());
            stream
        })
        .collect();
    drop(crowd);
}

fn head(home: &Home, rest: &str) -> String {
    format!("POST /allocate HTTP/1.1\r\nHost: 127.0.0.1:{}\r\n{rest}", home.daemon_port())
}

const JSON: &str = "Content-Type: application/json\r\n";

#[test]
fn ten_thousand_connections_keep_nobody_waiting() {
    withstands("10,000 connections", Others::Unix, |home| crowd(home, 10_000, ""));
}

#[test]
fn slow_heads_keep_nobody_waiting() {
    withstands("slow heads", Others::Unix, |home| crowd(home, 2000, &head(home, "X-Slow: ")));
}

/// Of this user, who may: more of them than are served at once would have to be waited for.
#[test]
fn slow_bodies_keep_nobody_waiting() {
    withstands("slow bodies", Others::Beside, |home| {
        crowd(home, 450, &head(home, &format!("{JSON}Content-Length: 1000\r\n\r\n{{")));
    });
}

#[test]
fn a_stranger_with_a_crowd_keeps_nobody_waiting_or_out() {
    if !is_root() {
        return crate::support::skip("being another user needs root");
    }
    withstands("a stranger", Others::Unix, |home| {
        let mut events = Connection::open(&home.tcp()).expect("a daemon");
        events.send_head(&Request::new("GET", "/events")).expect("sent");
        let body = format!("{JSON}Content-Length: 1000\r\n\r\n{{");
        as_user(STRANGER, || crowd(home, 5000, &head(home, &body)));
        let lock_id = home.allocate_for(std::process::id())["lock_id"].clone();
        let lock_id = lock_id.as_str().expect("a lock id");
        home.delete(&format!("/allocate/{lock_id}")).expect(200);
        events.read_until(lock_id).expect("it did not have to give way");
    });
}

#[test]
fn endless_bodies_keep_nobody_waiting() {
    withstands("endless bodies", Others::Beside, |home| {
        let chunk = format!("4000\r\n{}\r\n", " ".repeat(0x4000));
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let mut stream = open(home).expect("a daemon");
                    let head = head(home, &format!("{JSON}Transfer-Encoding: chunked\r\n\r\n"));
                    stream.write_all(head.as_bytes()).expect("sent");
                    let start = Instant::now();
                    while stream.write_all(chunk.as_bytes()).is_ok() {
                        assert!(start.elapsed() < PATIENCE, "nobody ends it");
                    }
                });
            }
        });
    });
}

#[test]
fn an_event_stream_stays_when_others_crowd_in() {
    let home = Home::new();
    let _daemon = home.daemon();
    let mut events = Connection::open(&home.unix()).expect("a daemon");
    events.send_head(&Request::new("GET", "/events")).expect("an answer");
    let crowd: Vec<_> =
        (0..700).map(|_| Connection::open(&home.unix()).expect("a daemon")).collect();
    let lock_id = home.allocate_for(std::process::id())["lock_id"].clone();
    drop(crowd);
    let text = events.read_until("allocated").expect("the stream goes on");
    assert!(text.contains(lock_id.as_str().expect("a lock id")), "{text}");
}

#[test]
fn who_shuts_down_its_side_is_answered() {
    let home = Home::new();
    let daemon = home.daemon();
    let body = json!({ "service_type": "dev" }).to_string();
    let post = head(&home, &format!("{JSON}Content-Length: {}\r\n\r\n{body}", body.len()));
    let get = |path: &str| {
        format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\n\r\n", home.daemon_port())
    };
    let requests = [
        (post, "201"),
        (get("/status"), "200"),
        // These look through /proc, on another thread.
        (get("/allocations"), "200"),
        (get("/check/1"), "200"),
        (get("/scan"), "200"),
    ];
    for _ in 0..20 {
        for (request, status) in &requests {
            let mut stream = open(&home).expect("a daemon");
            stream.write_all(request.as_bytes()).expect("sent");
            stream.shutdown(Shutdown::Write).expect("half of it");
            let mut answer = String::new();
            stream.read_to_string(&mut answer).expect("an answer, and the end");
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{request}\n{answer}");
            assert!(answer.ends_with('}'), "{answer}");
        }
    }
    // A stream has no end to wait for, and in the middle of a request there is nothing to answer.
    let start = Instant::now();
    let mut stream = open(&home).expect("a daemon");
    stream.write_all(get("/events").as_bytes()).expect("sent");
    stream.shutdown(Shutdown::Write).expect("half of it");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("a head, and the end");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let mut stream = open(&home).expect("a daemon");
    let half = head(&home, &format!("{JSON}Content-Length: 1000\r\n\r\n{{"));
    stream.write_all(half.as_bytes()).expect("sent");
    stream.shutdown(Shutdown::Write).expect("half of it");
    stream.read_to_end(&mut Vec::new()).expect("the end");
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    daemon.is_well(&home);
}

#[test]
fn pipelined_requests_are_answered_in_their_order() {
    let home = Home::new();
    let daemon = home.daemon();
    let count = if full() { 10_000 } else { 500 };
    let first = home.dev_range().0;
    let host = format!("Host: localhost:{}\r\n\r\n", home.daemon_port());
    let request = |n| format!("GET /check/{} HTTP/1.1\r\n{host}", first + n % 8);
    let requests = (0..count).map(request).collect::<Vec<_>>().concat();
    let mut stream = open(&home).expect("a daemon");
    let mut writer = stream.try_clone().expect("a second handle");
    let sender = thread::spawn(move || {
        writer.write_all(requests.as_bytes()).expect("sent");
        writer.shutdown(Shutdown::Write).expect("half of it");
    });
    let mut answers = String::new();
    stream.read_to_string(&mut answers).expect("answers, and the end");
    sender.join().expect("it was sent");
    let ports: Vec<u16> = answers
        .split("{\"port\":")
        .skip(1)
        .map(|rest| rest.split(',').next().and_then(|it| it.parse().ok()).expect("a port"))
        .collect();
    let expected: Vec<_> = (0..count).map(|n| first + n % 8).collect();
    assert_eq!(ports, expected);
    daemon.is_well(&home);
}

/// What is no request, or one that two readers would read as two different ones (RFC 9112, 11.2).
#[test]
fn nonsense_is_refused_in_json_and_nothing_is_smuggled_in() {
    let home = Home::new();
    let daemon = home.daemon();
    let host = format!("Host: 127.0.0.1:{}\r\n", home.daemon_port());
    let inner = format!("POST /cleanup HTTP/1.1\r\n{host}\r\n");
    let long = "x".repeat(100_000);
    let allocate = format!("POST /allocate HTTP/1.1\r\n{host}{JSON}");
    let chunked = format!("{allocate}Transfer-Encoding: chunked\r\n");
    for (bytes, status) in [
        ("\0\0\0\0\r\n\r\n".to_owned(), 400),
        ("nonsense\r\n\r\n".to_owned(), 400),
        ("GET\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/9.9\r\n\r\n".to_owned(), 400),
        (format!("GET /status HTTP/1.1\r\n{host}Bad Header: x\r\n\r\n"), 400),
        (format!("GET /status HTTP/1.1\r\n{host}X: a\0b\r\n\r\n"), 400),
        (format!("GET /status HTTP/1.1\r\n{host}{}\r\n", "X: y\r\n".repeat(200)), 431),
        (format!("GET /status HTTP/1.1\r\n{host}X: {long}\r\n\r\n"), 431),
        (format!("GET /{long} HTTP/1.1\r\n{host}\r\n"), 431),
        (format!("{allocate}Content-Length: 5\r\nContent-Length: 6\r\n\r\n{inner}"), 400),
        (format!("{allocate}Content-Length: -1\r\n\r\n{inner}"), 400),
        (format!("{allocate}Content-Length: +5\r\n\r\n{inner}"), 400),
        (format!("{allocate}Content-Length: 0x10\r\n\r\n{inner}"), 400),
        (format!("{allocate}Transfer-Encoding: gzip\r\n\r\n{inner}"), 400),
        (format!("{chunked}\r\nzz\r\n{inner}"), 400),
        (format!("{chunked}\r\n-1\r\n{inner}"), 400),
        (format!("{chunked}\r\nffffffffffffffffff\r\n{inner}"), 400),
        (format!("{chunked}\r\n5\r\nabcdefgh\r\n0\r\n\r\n{inner}"), 400),
        (format!("{chunked}\r\n2;{long}\r\n{{}}\r\n0\r\n\r\n{inner}"), 400),
    ] {
        let shown = &bytes[..bytes.len().min(200)];
        let mut stream = open(&home).expect("a daemon");
        // It may be refused before all of it has come.
        let _ = stream.write_all(bytes.as_bytes());
        let _ = stream.shutdown(Shutdown::Write);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{shown:?}\n{answer}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{shown:?}\n{answer}");
        assert!(answer.contains("\r\nserver: styxy/"), "{shown:?}\n{answer}");
        assert!(answer.contains("\"code\":\"malformed_request\""), "{shown:?}\n{answer}");
        assert!(answer.ends_with("}}"), "{shown:?}\n{answer}");
    }
    daemon.is_well(&home);
}
