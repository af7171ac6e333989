//! Nothing has to be started: the first `styxy` that needs a daemon starts one, and only one.

use std::collections::BTreeSet;
use std::fs;
use std::process::Stdio;

use crate::support::{Connection, Home, PATIENCE, eventually, finish, port_of, session_of};

#[test]
fn two_hundred_allocations_at_once_get_two_hundred_ports_from_one_daemon() {
    let home = Home::alone(256);
    let mut command = home.styxy_command(&["allocate", "-s", "dev"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());

    let children: Vec<_> = (0..200).map(|_| command.spawn().expect("styxy starts")).collect();
    let mut ports = BTreeSet::new();
    for child in children {
        let output = child.wait_with_output().expect("styxy ends");
        let (stdout, stderr) = (&output.stdout, String::from_utf8_lossy(&output.stderr));
        let stdout = String::from_utf8_lossy(stdout);
        let port = stdout.trim_end().parse::<u16>();
        let port = port.unwrap_or_else(|_| panic!("{}: {stdout:?} {stderr}", output.status));
        assert!(ports.insert(port), "{port} was given twice");
    }

    assert_eq!(ports.len(), 200);
    let daemons = home.styxy_processes();
    assert_eq!(daemons.len(), 1, "one daemon: {daemons:?}");
    let listed: BTreeSet<_> = home.allocations().iter().map(port_of).collect();
    assert_eq!(listed, ports);
}

#[test]
fn a_command_substitution_never_hangs_on_the_daemon_that_it_started() {
    let home = Home::new();
    // finish() fails when stdout or stderr stays open behind the shell.
    let output = finish(&mut home.shell("OUTPUT=$(styxy allocate -s dev 2>&1)"));
    output.ok();
    assert_eq!(home.styxy_processes().len(), 1);

    home.styxy(&["daemon", "stop"]).ok();
    let output = finish(&mut home.shell("PORT=$(styxy allocate -s dev); echo $PORT")).ok();
    let (first, last) = home.dev_range();
    assert!((first..=last).contains(&output.port()), "{}", output.whole());
}

#[test]
fn the_daemon_that_a_client_started_keeps_nothing_of_the_client() {
    let home = Home::new();
    let file = home.path("inherited");
    let script = format!("exec 9>{}; styxy allocate -s dev", file.display());
    finish(&mut home.shell(&script)).ok();

    let pid = home.get("/status").expect(200)["pid"].clone();
    let link = |name: &str| fs::read_link(format!("/proc/{pid}/{name}")).expect("our daemon");
    assert_eq!(link("cwd"), std::path::Path::new("/"));
    for descriptor in 0..=2 {
        assert_eq!(link(&format!("fd/{descriptor}")), std::path::Path::new("/dev/null"));
    }
    let open = fs::read_dir(format!("/proc/{pid}/fd")).expect("our daemon");
    let open: Vec<_> = open.flatten().filter_map(|fd| fs::read_link(fd.path()).ok()).collect();
    assert!(!open.contains(&file), "it has the client's file open: {open:?}");
    let pid = pid.as_u64().and_then(|pid| u32::try_from(pid).ok()).expect("a pid");
    let ours = session_of(std::process::id());
    assert_ne!(session_of(pid), ours, "it is in the client's session");
}

#[test]
fn after_a_stop_http_is_refused_and_the_next_command_starts_a_daemon() {
    let home = Home::new();
    home.styxy(&["daemon", "start"]).ok();
    let first = home.get("/status").expect(200)["pid"].clone();
    home.styxy(&["daemon", "start"]).ok();
    assert_eq!(home.get("/status").expect(200)["pid"], first, "a second start changes nothing");

    home.styxy(&["daemon", "stop"]).ok();
    assert!(home.try_get("/status").is_err(), "plain HTTP is refused after a stop");
    assert!(Connection::open(&home.unix()).is_err(), "so is the unix socket");
    assert_eq!(home.styxy_processes(), [0_u32; 0]);
    home.styxy(&["daemon", "status"]).exits(1);

    home.styxy(&["allocate", "-s", "dev"]).ok();
    let second = home.get("/status").expect(200)["pid"].clone();
    assert_ne!(second, first);
}

#[test]
fn autostart_0_starts_nothing() {
    let home = Home::new();
    let mut command = home.styxy_command(&["allocate", "-s", "dev"]);
    finish(command.env("STYXY_AUTOSTART", "0")).ok();
    assert_eq!(home.styxy_processes(), [0_u32; 0]);
    assert!(home.try_get("/status").is_err());
}

#[test]
fn a_restart_keeps_what_was_allocated() {
    let home = Home::new();
    let port = home.styxy(&["allocate", "-s", "dev", "-n", "web"]).ok().port();
    let before = home.allocations();
    assert_eq!(before.len(), 1);

    let old = home.get("/status").expect(200)["pid"].clone();
    home.styxy(&["daemon", "restart"]).ok();
    let new = home.get("/status").expect(200)["pid"].clone();

    assert_ne!(old, new);
    let after = home.allocations();
    assert_eq!(after.len(), 1, "{after:#?}");
    assert_eq!(after[0]["port"], port);
    assert_eq!(after[0]["lock_id"], before[0]["lock_id"]);
}

#[test]
fn a_crashed_daemon_is_replaced_and_its_socket_file_is_no_obstacle() {
    let home = Home::new();
    let daemon = home.daemon();
    let port = home.styxy(&["allocate", "-s", "dev"]).ok().port();
    daemon.crash();
    assert!(home.socket().exists(), "a crash leaves the socket file behind");

    let second = home.styxy(&["allocate", "-s", "dev"]).ok().port();
    assert_ne!(port, second, "the new daemon knows what the old one gave");
    eventually(PATIENCE, || match home.styxy_processes().len() {
        1 => Ok(()),
        count => Err(format!("{count} daemons")),
    });
    assert!(Connection::open(&home.unix()).is_ok());
}
