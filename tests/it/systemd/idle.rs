//! Gone when nobody needs it, and back when somebody does.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::thread::sleep;
use std::time::Duration;

use super::machine::Machine;
use super::user::{UNITS, User};
use crate::support::{PATIENCE, eventually, full};

/// The shortest that the configuration allows.
const SHORT: &str = "[daemon]\nidle_exit = \"50ms\"\n";

const SERVICE: &str = "styxy.service";

#[test]
fn after_the_last_allocation_and_the_idle_time_no_process_is_left() {
    let Some(machine) = Machine::start() else { return };
    let ada = machine.ada();
    ada.configure(SHORT);
    ada.enable();
    let owner = ada.owner();
    let held = ada.ask(&["allocate", "-s", "dev", "--pid", &owner.to_string()]);
    ada.ask(&["instance", "register", "agent"]);
    let pid = ada.service_pid();
    ada.styxy(&["release", held["lock_id"].as_str().expect("a lock id")]).ok();
    // The instance alone holds it: ten times the idle time go by.
    sleep(Duration::from_millis(500));
    assert_eq!(ada.service_pid(), pid, "a registered instance needs it");

    ada.styxy(&["instance", "remove", "agent"]).ok();
    ada.becomes("styxy.service", "ActiveState", "inactive");
    assert!(ada.styxy_processes().is_empty());
    assert_eq!(ada.show("styxy.service", "Result"), "success");
    for socket in ["styxy.socket", "styxy-unix.socket"] {
        assert_eq!(ada.show(socket, "SubState"), "listening");
    }
}

#[test]
fn the_death_of_the_last_owner_is_a_reason_to_leave() {
    let Some(machine) = Machine::start() else { return };
    let ada = machine.ada();
    ada.configure(SHORT);
    ada.enable();
    let owner = ada.owner();
    ada.ask(&["allocate", "-s", "dev", "--pid", &owner.to_string()]);
    sleep(Duration::from_millis(200));
    assert_ne!(ada.service_pid(), 0, "an allocation needs it");
    ada.shell(&format!("kill {owner}")).ok();
    eventually(PATIENCE, || match ada.styxy_processes() {
        none if none.is_empty() => Ok(()),
        some => Err(format!("{some:?}")),
    });
}

#[test]
fn a_client_that_comes_at_the_moment_of_the_idle_exit_is_answered() {
    let Some(machine) = Machine::start() else { return };
    let ada = machine.ada();
    ada.configure(SHORT);
    write_down_failures(&ada);
    ada.enable();
    ada.wake();
    let rounds = if full() { 1_000 } else { 100 };
    let path = machine.root(&format!("run/user/{}/styxy/styxy.sock", ada.id()));
    let left = machine.in_network(|| {
        let mut pause = Duration::from_millis(50);
        let mut known = None;
        let mut left = 0;
        for round in 0..rounds {
            sleep(pause);
            // By turns over either socket.
            let pid = if round % 2 == 0 {
                connect().and_then(|tcp| status_pid(tcp, "localhost:9876"))
            } else {
                UnixStream::connect(&path).and_then(|unix| {
                    unix.set_read_timeout(Some(PATIENCE))?;
                    status_pid(unix, "localhost")
                })
            };
            let pid = pid.unwrap_or_else(|error| panic!("round {round}: {error}"));
            // It stayed: later next time. It had left: earlier. So the very moment is met.
            let step = Duration::from_micros(50 + round * 71 % 500);
            if known.replace(pid) == Some(pid) {
                pause += step;
            } else {
                left += 1;
                pause = pause.saturating_sub(step);
            }
        }
        left
    });
    let both = rounds / 10..rounds - rounds / 10;
    assert!(both.contains(&left), "it had left in {left} of {rounds} rounds");
    never_failed(&ada);
}

#[test]
fn an_idle_connection_does_not_keep_it_and_is_closed() {
    let Some(machine) = Machine::start() else { return };
    let ada = machine.ada();
    ada.configure(SHORT);
    write_down_failures(&ada);
    ada.enable();
    let rest = machine.in_network(|| {
        let mut connection = connect().expect("systemd listens");
        write!(connection, "GET /status HTTP/1.1\r\nHost: localhost:9876\r\n\r\n")?;
        let mut answer = String::new();
        // To its end, which the daemon makes, without a reset.
        connection.read_to_string(&mut answer).map(|_| answer)
    });
    let answer = rest.expect("a clean end");
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with('}'), "{answer}");
    ada.becomes("styxy.service", "ActiveState", "inactive");
    never_failed(&ada);
}

/// Which process answers now.
fn status_pid(mut connection: impl Read + Write, host: &str) -> std::io::Result<u64> {
    write!(connection, "GET /status HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer)?;
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body);
    let status = body.and_then(|body| serde_json::from_str::<serde_json::Value>(body).ok());
    status
        .and_then(|status| status["pid"].as_u64())
        .ok_or_else(|| std::io::Error::other(format!("no answer: {answer:?}")))
}

fn connect() -> std::io::Result<TcpStream> {
    let connection = TcpStream::connect("127.0.0.1:9876")?;
    connection.set_read_timeout(Some(Duration::from_secs(20)))?;
    Ok(connection)
}

/// Has every failure of a unit written down from now on. What `systemctl show` says of one goes
/// with the next start.
fn write_down_failures(ada: &User<'_>) {
    let handler = "[Service]\nType=oneshot\nExecStart=/bin/sh -c 'echo %i >>%h/failures'\n";
    ada.write(&ada.home(".config/systemd/user/failure@.service"), handler);
    for unit in UNITS {
        // A service that is to be restarted after a crash has not failed yet (systemd.unit(5)).
        let restart = if unit == SERVICE { "[Service]\nRestart=no\n" } else { "" };
        ada.edit(unit, &format!("[Unit]\nOnFailure=failure@%n.service\n{restart}"));
    }
}

/// Neither the service nor a socket has come to a bad end since [`write_down_failures`].
fn never_failed(ada: &User<'_>) {
    // One that is meant, which is written down after all others. It stays until then.
    ada.ask(&["allocate", "-s", "dev", "--pid", &ada.owner().to_string()]);
    ada.signal_service("KILL");
    let failures = eventually(PATIENCE, || {
        let text = fs::read_to_string(ada.home("failures")).map_err(|error| error.to_string())?;
        if text.ends_with('\n') { Ok(text) } else { Err(text) }
    });
    assert_eq!(failures, format!("{SERVICE}\n"), "only the last is meant");
    for socket in ["styxy.socket", "styxy-unix.socket"] {
        assert_eq!(ada.show(socket, "Result"), "success", "{socket}");
    }
}
