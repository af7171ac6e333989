//! The service may do little, and still sees who holds a port.

use std::time::Duration;

use super::machine::Machine;
use crate::support::{PATIENCE, eventually};

#[test]
fn with_the_hardening_in_force_check_names_the_process_behind_a_port() {
    let Some(machine) = Machine::start() else { return };
    let ada = machine.ada();
    // No safety net finds what a pidfd should tell.
    ada.configure("[daemon]\nreap_interval = \"1h\"\n");
    ada.enable();
    ada.wake();
    let pid = ada.service_pid();
    let status = std::fs::read_to_string(machine.root(&format!("proc/{pid}/status")));
    let status = status.expect("it runs");
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_else(|| panic!("{name} in {status}")).trim().to_owned()
    };
    assert_eq!(field("NoNewPrivs:"), "1");
    assert_eq!(field("Seccomp:"), "2", "a filter of system calls is there");
    assert_eq!(field("CapEff:"), "0000000000000000");
    assert_eq!(field("Umask:"), "0077");
    let own = std::fs::read_link(machine.root("proc/1/ns/user")).expect("a namespace");
    let its = std::fs::read_link(machine.root(&format!("proc/{pid}/ns/user")));
    assert_eq!(its.expect("a namespace"), own, "no user namespace");

    let listener = ada.listener(8765);
    eventually(PATIENCE, || {
        let check = ada.styxy(&["check", "8765", "--json"]);
        let answer: serde_json::Value =
            serde_json::from_str(&check.stdout).map_err(|error| format!("{error}: {check:?}"))?;
        let process = &answer["system_usage"]["process"];
        let is_named = process["pid"] == listener && process["cwd"].is_string();
        is_named.then_some(()).ok_or_else(|| format!("{answer:#}"))
    });

    // What it watches by: the death of an owner is seen at once, through a pidfd.
    let owner = ada.owner();
    ada.ask(&["allocate", "-s", "dev", "--pid", &owner.to_string()]);
    ada.shell(&format!("kill {owner}")).ok();
    eventually(Duration::from_secs(2), || match ada.lock_ids() {
        none if none.is_empty() => Ok(()),
        some => Err(format!("{some:?}")),
    });
    let journal = machine.journal();
    for fallback in ["safety net", "pidfd_open(2) is refused", "sock_diag does not answer"] {
        assert!(!journal.contains(fallback), "{fallback}\n{journal}");
    }
}
