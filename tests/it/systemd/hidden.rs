//! What a filter or a mount option hides from the service: it says what it can't see, lets nobody in
//! for it, and goes on.

use super::machine::Machine;
use crate::support::{PATIENCE, eventually};

/// /proc shows a user the user's own processes alone (hidepid of proc(5)).
#[test]
fn where_proc_shows_own_processes_alone_the_others_are_said_to_be_hidden() {
    let Some(machine) = Machine::start() else { return };
    let ada = machine.ada();
    machine.run("mount", &["-o", "remount,hidepid=invisible", "/proc"]).ok();
    ada.enable();
    let ids = ada.allocate_for_owners(2);
    assert_eq!(ada.lock_ids(), ids);
    // A stranger's: it is not even known that the process exists.
    let refused = ada.styxy(&["allocate", "-s", "dev", "--pid", "1"]);
    refused.exits(2).complains("process 1 cannot be seen");

    let server =
        "import socket, time; s = socket.create_server((\"127.0.0.1\", 8765)); time.sleep(3600)";
    let script = format!("setsid python3 -c '{server}' >/dev/null 2>&1 &");
    machine.run("sh", &["-c", &script]).ok();
    eventually(PATIENCE, || {
        let check = ada.styxy(&["check", "8765"]);
        let is_said = check.code() == Some(1) && check.stdout.contains("another user");
        is_said.then_some(()).ok_or_else(|| check.whole())
    });

    machine.run("mount", &["-o", "remount,hidepid=off", "/proc"]).ok();
    assert_eq!(ada.lock_ids(), ids);
    assert_eq!(ada.show("styxy.service", "NRestarts"), "0");
}

/// Without netlink, /proc/net/tcp says whose a connection is and which ports are taken.
#[test]
fn where_netlink_is_refused_proc_tells_who_asks_and_what_is_taken() {
    let Some(machine) = Machine::start() else { return };
    let (ada, bob) = (machine.ada(), machine.bob());
    ada.edit(
        "styxy.service",
        "[Service]\nRestrictAddressFamilies=\nRestrictAddressFamilies=AF_UNIX AF_INET AF_INET6\n",
    );
    ada.enable();
    let ids = ada.allocate_for_owners(2);
    let own = "curl --silent --write-out ' %{http_code}' http://127.0.0.1:9876/allocations";
    let answer = ada.shell(own).ok();
    assert!(answer.text().ends_with(" 200"), "{}", answer.whole());
    let stranger = bob.shell(own).ok();
    assert!(stranger.text().ends_with(" 403"), "{}", stranger.whole());
    assert!(stranger.text().contains("forbidden_peer"), "{}", stranger.whole());

    let listener = ada.listener(8765);
    eventually(PATIENCE, || {
        let check = ada.styxy(&["check", "8765", "--json"]);
        let answer: serde_json::Value =
            serde_json::from_str(&check.stdout).map_err(|_| check.whole())?;
        let pid = &answer["system_usage"]["process"]["pid"];
        (*pid == listener).then_some(()).ok_or_else(|| check.whole())
    });
    assert_eq!(ada.lock_ids(), ids);
}

#[test]
fn a_read_only_state_directory_is_said_and_service_goes_on_when_it_is_writable() {
    let Some(machine) = Machine::start() else { return };
    let ada = machine.ada();
    ada.shell("mkdir -p .local/state").ok();
    let state = ada.home(".local/state");
    let state = state.to_str().expect("UTF-8");
    let options = format!("size=1m,ro,mode=700,uid={0},gid={0}", ada.id());
    machine.run("mount", &["-t", "tmpfs", "-o", &options, "tmpfs", state]).ok();
    ada.enable();
    ada.styxy(&["allocate", "-s", "dev"]).exits(74).complains("ead-only");
    let pid = ada.service_pid();
    let problems = ada.ask(&["daemon", "status"])["problems"].to_string();
    assert!(problems.contains("ead-only"), "{problems}");

    machine.run("mount", &["-o", "remount,rw", state]).ok();
    eventually(PATIENCE, || {
        let output = ada.styxy(&["allocate", "-s", "dev"]);
        if output.code() == Some(0) { Ok(()) } else { Err(output.whole()) }
    });
    assert_eq!(ada.service_pid(), pid, "by itself, without a restart");
}
