//! One daemon per user and machine: a second one ends, and says why.

use std::process::Stdio;

use crate::support::{Home, Output, PATIENCE, Running, eventually, finish, owner, tcp_socket};

/// Runs `styxy daemon run ARGS`, which must end by itself, and not well.
#[track_caller]
fn refused_daemon(home: &Home, args: &[&str]) -> Output {
    let output = home.styxy(&[&["daemon", "run"], args].concat());
    assert!(!output.status.success(), "{}", output.whole());
    assert!(output.code().is_some(), "ended by a signal\n{}", output.whole());
    assert!(!output.stderr.contains("panicked"), "{}", output.whole());
    output
}

#[test]
fn the_second_daemon_names_the_first_and_changes_nothing() {
    let home = Home::new();
    let daemon = home.daemon();
    let owner = owner();
    let lock_id = home.allocate_for(owner.pid())["lock_id"].clone();
    let journal = std::fs::read(home.journal()).expect("a journal");

    let pid = daemon.pid().to_string();
    refused_daemon(&home, &[]).complains(&pid);
    // Elsewhere, but with the same state.
    let listen = format!("127.0.0.1:{}", home.spare_port(0));
    let socket = home.path("other.sock");
    let elsewhere = ["--listen", &listen, "--socket", socket.to_str().expect("ASCII")];
    refused_daemon(&home, &elsewhere).complains(&pid);

    daemon.is_well(&home);
    assert!(home.allocation(&lock_id).is_some());
    assert!(std::fs::read(home.journal()).expect("a journal") == journal, "it was written to");
    let holder = home.lock_holder().expect("the lock file names the daemon");
    assert_eq!(holder["pid"], daemon.pid(), "{holder:#}");
}

#[test]
fn an_address_that_is_not_loopback_is_refused() {
    let home = Home::new();
    for address in ["0.0.0.0:1", "0.0.0.0:0", "[::]:19876", "192.0.2.1:9876"] {
        refused_daemon(&home, &["--listen", address]).exits(2).complains(address);
    }
    for nonsense in ["localhost", "127.0.0.1", "127.0.0.1:65536", ""] {
        refused_daemon(&home, &["--listen", nonsense]).exits(2);
    }
}

#[test]
fn an_address_given_by_hand_that_is_taken_names_the_holder() {
    let home = Home::new();
    let port = home.spare_port(0);
    let _taken = tcp_socket(&format!("127.0.0.1:{port}"), false, true);
    let pid = std::process::id().to_string();
    let refused = refused_daemon(&home, &["--listen", &format!("127.0.0.1:{port}")]);
    refused.complains(&port.to_string()).complains(&pid);
}

#[test]
fn a_daemon_runs_where_it_was_told() {
    let home = Home::new();
    let port = home.spare_port(0);
    let socket = home.path("by-hand.sock");
    let listen = format!("127.0.0.1:{port}");
    let args = ["--listen", &listen, "--socket", socket.to_str().expect("ASCII")];
    let mut command = home.styxy_command(&["daemon", "run"]);
    command.args(args).stderr(Stdio::null());
    let daemon = Running::spawn(&mut command);

    for url in [format!("http://{listen}"), format!("unix:{}", socket.display())] {
        eventually(PATIENCE, || {
            let mut status = home.styxy_command(&["daemon", "status", "--json"]);
            let output = finish(status.env("STYXY_URL", &url));
            match output.code() {
                Some(0) if output.json()["pid"] == daemon.pid() => Ok(()),
                _ => Err(output.whole()),
            }
        });
    }
}

#[test]
fn a_clean_stop_leaves_neither_socket_nor_process() {
    let home = Home::new();
    let daemon = home.daemon();
    let pid = daemon.pid();
    daemon.stop();
    assert!(!home.socket().exists(), "its socket file is gone");
    assert!(!home.styxy_processes().contains(&pid));
    home.daemon().stop();
}
