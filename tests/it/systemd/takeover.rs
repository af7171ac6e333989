//! A daemon in the background gives way to the units.

use std::time::{Duration, Instant};

use super::machine::Machine;
use super::user::{UNITS, User};
use crate::support::{PATIENCE, eventually};

/// Starts a daemon in the background, before the units are there, with five allocations of
/// processes that live on. Answers their lock ids.
fn background(ada: &User<'_>) -> Vec<String> {
    // A manager that doesn't have the units can't start them.
    for unit in UNITS {
        ada.systemctl(&["mask", "--runtime", unit]).ok();
    }
    let ids = ada.allocate_for_owners(5);
    assert_eq!(ada.ask(&["daemon", "status"])["socket_activated"], false);
    assert_eq!(ada.styxy_processes().len(), 1);
    ids
}

fn unmask(ada: &User<'_>, units: &[&str]) {
    ada.systemctl(&[&["unmask", "--runtime"], units].concat()).ok();
}

#[test]
fn a_background_daemon_with_five_allocations_gives_way_to_the_units() {
    let Some(machine) = Machine::start() else { return };
    let ada = machine.ada();
    let ids = background(&ada);
    let former = ada.styxy_processes();
    unmask(&ada, &UNITS);
    ada.enable();
    assert_eq!(ada.lock_ids(), ids);
    assert_eq!(ada.ask(&["daemon", "status"])["socket_activated"], true);
    assert_eq!(ada.styxy_processes(), [ada.service_pid()]);
    assert!(!former.contains(&ada.service_pid()));
    // Plain HTTP too: the port is systemd's now.
    assert_eq!(ada.show("styxy.socket", "SubState"), "running");
    ada.shell("curl --silent --fail --max-time 20 127.0.0.1:9876/status").ok();
    assert_eq!(ada.show("styxy-unix.socket", "SubState"), "running");
    assert!(machine.root(&format!("run/user/{}/styxy/styxy.sock", ada.id())).exists());
}

#[test]
fn the_service_itself_ends_a_background_daemon_that_it_finds() {
    let Some(machine) = Machine::start() else { return };
    let ada = machine.ada();
    let ids = background(&ada);
    // Without the socket that would have ended it already.
    unmask(&ada, &["styxy-unix.socket", "styxy.service"]);
    ada.systemctl(&["start", "styxy-unix.socket"]).ok();
    assert_eq!(ada.lock_ids(), ids);
    assert_eq!(ada.ask(&["daemon", "status"])["socket_activated"], true);
    assert_eq!(ada.styxy_processes(), [ada.service_pid()]);
    assert!(machine.journal().contains("ended the daemon in the background"));
}

#[test]
fn a_background_daemon_that_does_not_end_is_served_beside_and_taken_over_later() {
    let Some(machine) = Machine::start() else { return };
    let ada = machine.ada();
    let ids = background(&ada);
    let former = ada.styxy_processes()[0];
    ada.shell(&format!("kill -STOP {former}")).ok();
    unmask(&ada, &["styxy-unix.socket", "styxy.service"]);
    ada.systemctl(&["start", "styxy-unix.socket"]).ok();
    // The very first client has its answer well before the 10 s after which it would give up.
    let asked = Instant::now();
    let refused = ada.styxy(&["allocate", "-s", "dev"]).exits(74);
    assert!(refused.stderr.contains("another styxy works on"), "{refused:?}");
    assert!(asked.elapsed() < Duration::from_secs(8), "{:?}", asked.elapsed());
    let status = ada.ask(&["daemon", "status"]);
    assert!(status["problems"].to_string().contains(&former.to_string()), "{status:#}");

    ada.shell(&format!("kill -CONT {former}")).ok();
    eventually(PATIENCE, || {
        let now = ada.lock_ids();
        (now == ids).then_some(()).ok_or_else(|| format!("{now:?}"))
    });
    assert_eq!(ada.styxy_processes(), [ada.service_pid()]);
}

#[test]
fn a_background_daemon_leaves_too_when_nobody_needs_it() {
    let Some(machine) = Machine::start() else { return };
    let ada = machine.ada();
    ada.configure("[daemon]\nidle_exit = \"50ms\"\n");
    ada.systemctl(&["mask", "--runtime", "styxy.socket", "styxy-unix.socket"]).ok();
    // Each command comes in another moment of the daemon's life, and is answered.
    let script = "for n in $(seq 40); do
            styxy --quiet suggest dev --count 1 || exit 1
            sleep 0.0$((20 + n))
        done";
    ada.shell(script).ok();
    eventually(PATIENCE, || match ada.styxy_processes() {
        none if none.is_empty() => Ok(()),
        some => Err(format!("{some:?}")),
    });
    let socket = machine.root(&format!("run/user/{}/styxy/styxy.sock", ada.id()));
    assert!(!socket.exists(), "it takes its socket with it");
}
