//! What a service manager hears of the daemon (sd_notify(3)), on a socket of this test's own.

use std::io::{ErrorKind, Write as _};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::time::Instant;

use rustix::process::Signal;

use crate::support::{Home, PATIENCE, Running};

/// The next message, which must come.
fn hear(socket: &UnixDatagram) -> String {
    let mut message = [0; 1000];
    let length = socket.recv(&mut message).expect("a message in time");
    String::from_utf8_lossy(&message[..length]).into_owned()
}

#[test]
fn it_is_ready_once_it_answers_and_stops_before_its_listeners_go() {
    let home = Home::new();
    let socket = UnixDatagram::bind(home.path("notify")).expect("a socket");
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let mut command = home.styxy_command(&["daemon", "run"]);
    let mut daemon = Running::spawn(command.env("NOTIFY_SOCKET", home.path("notify")));
    assert_eq!(hear(&socket), "READY=1\n", "and nothing before it");
    home.try_get("/status").expect("it is ready");

    // A request that never becomes whole keeps the daemon from its end.
    let mut unfinished = UnixStream::connect(home.socket()).expect("it listens");
    unfinished.write_all(b"GET /status HTTP/1.1\r\n").expect("it reads");
    daemon.signal(Signal::TERM);
    let deadline = Instant::now() + PATIENCE;
    while UnixStream::connect(home.socket()).is_ok() {
        assert!(Instant::now() < deadline, "it listens on");
    }
    // What was said before is there now.
    socket.set_nonblocking(true).expect("a socket");
    let mut heard = String::new();
    let mut message = [0; 1000];
    let nothing_more = loop {
        match socket.recv(&mut message) {
            Ok(length) => heard.push_str(&String::from_utf8_lossy(&message[..length])),
            Err(error) => break error,
        }
    };
    assert_eq!(nothing_more.kind(), ErrorKind::WouldBlock);
    assert!(heard.lines().any(|line| line == "STOPPING=1"), "{heard}");
    drop(unfinished);
    assert!(daemon.wait().success());
}
