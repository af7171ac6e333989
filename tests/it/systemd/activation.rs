//! Nobody runs until somebody asks.

use super::machine::Machine;
use super::user::UNITS;
use crate::support::{PATIENCE, eventually, finish};

#[test]
fn the_units_are_well_formed() {
    let Some(machine) = Machine::start() else { return };
    let ada = machine.ada();
    let mut verify = ada.command("systemd-analyze");
    verify.args(["verify", "--user", "--man=no"]).args(UNITS);
    let said = finish(&mut verify).ok();
    assert_eq!(said.stderr, "", "no warning about any directive");
}

#[test]
fn enabled_and_not_running_it_answers_and_is_active() {
    let Some(machine) = Machine::start() else { return };
    let ada = machine.ada();
    ada.enable();
    assert_eq!(ada.service_pid(), 0, "nobody has asked yet");

    ada.shell("mkdir -p shop/.git").ok();
    let owner = ada.owner().to_string();
    let allocate = ["allocate", "-s", "dev", "-n", "web", "--project", "shop", "--pid", &owner];
    let answer = ada.ask(&allocate);
    assert_eq!(ada.show("styxy.service", "ActiveState"), "active");
    assert_eq!(ada.show("styxy.service", "Type"), "notify");
    let status = ada.ask(&["daemon", "status"]);
    assert_eq!(status["pid"], ada.service_pid());
    assert_eq!(status["socket_activated"], true);
    let socket = format!("unix:/run/user/{}/styxy/styxy.sock", ada.id());
    assert_eq!(status["listening"], serde_json::json!(["127.0.0.1:9876", socket]));

    // The journal has the lines with their fields, and finds them by each.
    let port = answer["port"].to_string();
    let entry = |fields: &[&str]| {
        let words = ["--quiet", "--output=json", "_SYSTEMD_USER_UNIT=styxy.service"];
        let args = [&words[..], fields].concat();
        eventually(PATIENCE, || {
            let found = machine.run("journalctl", &args);
            serde_json::from_str::<serde_json::Value>(&found.stdout).map_err(|_| machine.journal())
        })
    };
    let project = ada.home("shop").display().to_string();
    let has_fields = |entry: &serde_json::Value| {
        assert_eq!(entry["STYXY_PORT"], port.as_str(), "{entry:#}");
        assert_eq!(entry["STYXY_LOCK_ID"], answer["lock_id"], "{entry:#}");
        assert_eq!(entry["STYXY_SERVICE_TYPE"], "dev", "{entry:#}");
        assert_eq!(entry["STYXY_PID"], owner.as_str(), "{entry:#}");
        assert_eq!(entry["STYXY_PROJECT"], project.as_str(), "{entry:#}");
        assert_eq!(entry["PRIORITY"], "6", "informational: {entry:#}");
    };
    let by_pid = (format!("STYXY_PORT={port}"), format!("STYXY_PID={owner}"));
    has_fields(&entry(&[&by_pid.0, &by_pid.1, &format!("STYXY_PROJECT={project}")]));
    ada.styxy(&["release", answer["lock_id"].as_str().expect("a lock id")]).ok();
    has_fields(&entry(&[&by_pid.0, "STYXY_REASON=released"]));
}

#[test]
fn a_hundred_clients_at_once_get_one_daemon_and_an_answer_each() {
    let Some(machine) = Machine::start() else { return };
    let ada = machine.ada();
    ada.enable();
    // Half over the unix socket, half over TCP.
    let script = "for n in $(seq 50); do
            styxy --quiet allocate -s dev --lease 10m >unix.$n 2>&1 &
            curl --silent --show-error --fail --max-time 20 127.0.0.1:9876/allocate \
                --json '{\"service_type\":\"test\",\"lease_seconds\":600}' >tcp.$n 2>&1 &
        done; wait; cat unix.*; cat tcp.* | grep --only-matching '\"success\":true' | wc --lines";
    let said = ada.shell(script).ok();
    let lines: Vec<&str> = said.text().lines().collect();
    assert_eq!(lines.len(), 51, "{lines:#?}");
    assert!(lines.iter().all(|line| line.parse::<u16>().is_ok()), "{lines:#?}");
    assert_eq!(lines[50], "50", "all over TCP were answered");
    assert_eq!(ada.ask(&["daemon", "status"])["allocations"], 100);
    assert_eq!(ada.show("styxy.service", "NRestarts"), "0");
    assert_eq!(ada.styxy_processes(), [ada.service_pid()]);
}

#[test]
fn what_cannot_be_served_is_closed_and_the_rest_served() {
    let Some(machine) = Machine::start() else { return };
    let ada = machine.ada();
    // Two more descriptors, of kinds that are none of the daemon's.
    ada.edit("styxy-unix.socket", "[Socket]\nListenDatagram=%t/datagram\nListenFIFO=%t/fifo\n");
    ada.enable();
    ada.styxy(&["allocate", "-s", "dev", "--lease", "10m"]).ok().port();
    ada.shell("curl --silent --fail --max-time 20 127.0.0.1:9876/status").ok();
    let status = ada.ask(&["daemon", "status"]);
    assert_eq!(status["problems"].as_array().map(Vec::len), Some(2), "{status:#}");
    assert!(machine.journal().contains("is no TCP or unix stream listener"));
    let open = ada.shell(&format!("readlink /proc/{}/fd/*", ada.service_pid()));
    assert!(!open.ok().text().contains("/fifo"), "it is closed");
}

#[test]
fn the_status_line_counts_ports_and_projects() {
    let Some(machine) = Machine::start() else { return };
    let ada = machine.ada();
    ada.enable();
    ada.shell("mkdir -p a/.git b/.git && for n in 1 2 3; do styxy allocate -s dev --lease 10m --project a; done")
        .ok();
    ada.becomes("styxy.service", "StatusText", "3 ports for 1 project");
    let one = ada.ask(&["allocate", "-s", "dev", "--lease", "10m", "--project", "b"]);
    ada.becomes("styxy.service", "StatusText", "4 ports for 2 projects");
    ada.styxy(&["release", one["lock_id"].as_str().expect("a lock id")]).ok();
    ada.becomes("styxy.service", "StatusText", "3 ports for 1 project");
}
