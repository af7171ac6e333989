//! Two sockets, several users, and a stop that lasts.

use std::net::TcpStream;

use super::machine::Machine;
use super::user::UNITS;
use crate::support::{PATIENCE, eventually};

#[test]
fn where_9876_is_taken_the_unix_socket_works() {
    let Some(machine) = Machine::start() else { return };
    let ada = machine.ada();
    let holder = ada.listener(9876);
    eventually(PATIENCE, || {
        let taken = machine.in_network(|| TcpStream::connect("127.0.0.1:9876"));
        taken.map_err(|error| error.to_string())
    });
    let enabled = ada.systemctl(&["enable", "--now", "styxy.socket"]);
    assert!(!enabled.status.success(), "systemd says that a socket could not be had");
    assert_eq!(ada.show("styxy.socket", "ActiveState"), "failed");
    assert_eq!(ada.show("styxy-unix.socket", "ActiveState"), "active");

    ada.styxy(&["allocate", "-s", "dev", "--lease", "10m"]).ok().port();
    let status = ada.ask(&["daemon", "status"]);
    assert_eq!(status["pid"], ada.service_pid());
    let socket = format!("unix:/run/user/{}/styxy/styxy.sock", ada.id());
    assert_eq!(status["listening"], serde_json::json!([socket]));

    let doctor = ada.styxy(&["doctor"]);
    let named = format!("(python3, pid {holder}) listens on 127.0.0.1:9876");
    assert!(doctor.stdout.contains(&named), "{}", doctor.whole());
}

#[test]
fn of_two_users_the_second_is_served_too_and_each_sees_only_its_own() {
    let Some(machine) = Machine::start() else { return };
    let (ada, bob) = (machine.ada(), machine.bob());
    ada.enable();
    // Ada has the port.
    bob.systemctl(&["enable", "--now", "styxy.socket"]);
    let (of_ada, of_bob) = (ada.allocate_for_owners(2), bob.allocate_for_owners(3));
    assert_eq!(ada.lock_ids(), of_ada);
    assert_eq!(bob.lock_ids(), of_bob);
    assert_eq!(ada.styxy_processes(), [ada.service_pid()]);
    assert_eq!(bob.styxy_processes(), [bob.service_pid()]);

    // Whose the port is, as far as Bob may see.
    let doctor = bob.styxy(&["doctor"]);
    let named = format!("another user (ada, uid {}) listens on 127.0.0.1:9876", ada.id());
    assert!(doctor.stdout.contains(&named), "{}", doctor.whole());

    // Bob reaches the port of Ada's daemon, and is refused.
    let refused = bob.shell("curl --silent --max-time 20 127.0.0.1:9876/allocations");
    assert_eq!(refused.ok().json()["code"], "forbidden_peer");
    let socket = format!("/run/user/{}/styxy/styxy.sock", ada.id());
    let refused = bob.shell(&format!("curl --silent --unix-socket {socket} localhost/allocations"));
    assert!(!refused.status.success(), "{refused:?}");
}

#[test]
fn a_stop_stops_both_sockets_and_the_service_until_somebody_wants_it_again() {
    let Some(machine) = Machine::start() else { return };
    let ada = machine.ada();
    ada.enable();
    let curl = "curl --silent --fail --max-time 20 127.0.0.1:9876/status";
    let stops = || {
        ada.styxy(&["daemon", "stop"]).ok();
        for unit in UNITS {
            assert_eq!(ada.show(unit, "ActiveState"), "inactive", "{unit}");
        }
        let refused = ada.shell(curl);
        assert_eq!(refused.status.code(), Some(7), "CURLE_COULDNT_CONNECT: {refused:?}");
        assert!(ada.styxy_processes().is_empty());
    };
    ada.shell(curl).ok();
    stops();
    ada.styxy(&["daemon", "start"]).ok();
    ada.shell(curl).ok();
    stops();
    ada.styxy(&["allocate", "-s", "dev"]).ok();
    ada.shell(curl).ok();
    assert_eq!(ada.show("styxy.service", "ActiveState"), "active");
    assert_eq!(ada.styxy_processes(), [ada.service_pid()], "no background daemon");
}
