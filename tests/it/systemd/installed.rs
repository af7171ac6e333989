//! Units of one user, written by `styxy daemon install`, as systemd reads them.

use super::machine::Machine;
use super::user::UNITS;
use crate::support::{PATIENCE, eventually};

#[test]
fn installed_units_start_that_very_program_wherever_it_is() {
    let Some(machine) = Machine::start() else { return };
    let ada = machine.ada();
    // What a unit must escape, and what it cannot say at all without a shell.
    for name in ["two words; 50%h $HOME é", "it's \"quoted\" \\ $$ %%"] {
        let dir = ada.home(name);
        let program = dir.join("styxy");
        let quoted = |text: &str| format!("'{}'", text.replace('\'', "'\\''"));
        let shown = program.display().to_string();
        let (dir, program) = (quoted(&dir.display().to_string()), quoted(&shown));
        ada.shell(&format!("mkdir {dir} && cp /usr/bin/styxy {program}")).ok();

        ada.shell(&format!("{program} daemon install")).ok();
        for unit in UNITS {
            let fragment = ada.show(unit, "FragmentPath");
            assert_eq!(fragment, ada.home(".config/systemd/user").join(unit).display().to_string());
            assert_eq!(ada.show(unit, "ActiveState"), "inactive", "{unit}");
        }
        ada.enable();
        ada.ask(&["list"]);
        let exe = machine.root(&format!("proc/{}/exe", ada.service_pid()));
        let exe = std::fs::read_link(exe).expect("it runs").display().to_string();
        assert!(exe.ends_with(&format!("{name}/styxy")), "{exe}");

        ada.shell(&format!("{program} daemon uninstall")).ok();
        for unit in UNITS {
            // Those of the package are there again, and nothing of them is started.
            assert!(ada.show(unit, "FragmentPath").starts_with("/usr/lib/"), "{unit}");
            assert_eq!(ada.show(unit, "ActiveState"), "inactive", "{unit}");
            assert_ne!(ada.show(unit, "UnitFileState"), "enabled", "{unit}");
        }
        let left = ada.shell("find .config/systemd -name '*styxy*'").ok();
        assert_eq!(left.text(), "", "nothing is left");
        assert!(ada.styxy_processes().is_empty());
    }
}

#[test]
fn a_restart_brings_back_a_socket_that_has_failed() {
    let Some(machine) = Machine::start() else { return };
    let ada = machine.ada();
    let other = ada.leave_running("python3 -m http.server --bind 127.0.0.1 9876");
    eventually(PATIENCE, || {
        let taken = machine.in_network(|| std::net::TcpStream::connect("127.0.0.1:9876"));
        taken.map_err(|error| error.to_string())
    });
    ada.systemctl(&["enable", "--now", "styxy.socket"]);
    ada.ask(&["list"]);

    let doctor = ada.styxy(&["doctor"]);
    assert!(doctor.stdout.contains(&format!("pid {other})")), "{doctor:?}");
    assert!(doctor.status.success(), "the unix socket works: {doctor:?}");
    ada.shell(&format!("kill {other}")).ok();
    eventually(PATIENCE, || {
        let taken = machine.in_network(|| std::net::TcpStream::connect("127.0.0.1:9876"));
        taken.map_or(Ok(()), |_| Err("it still listens".to_owned()))
    });
    assert_eq!(ada.show("styxy.socket", "ActiveState"), "failed");
    ada.styxy(&["daemon", "restart"]).ok();
    assert_eq!(ada.show("styxy.socket", "ActiveState"), "active");
    assert!(machine.in_network(|| std::net::TcpStream::connect("127.0.0.1:9876")).is_ok());
}

#[test]
fn neither_doctor_nor_status_starts_a_daemon() {
    let Some(machine) = Machine::start() else { return };
    let ada = machine.ada();
    ada.enable();
    let doctor = ada.styxy(&["doctor"]);
    assert!(doctor.status.success(), "{}", doctor.whole());
    assert!(!doctor.stdout.contains("\nfail") && !doctor.stdout.contains("warn  units"));
    let status = ada.styxy(&["daemon", "status"]);
    assert_eq!(status.code(), Some(1), "{}", status.whole());
    assert_eq!(ada.service_pid(), 0);
    ada.ask(&["list"]);
    let status = ada.styxy(&["daemon", "status"]);
    let said = status.ok().stdout;
    for words in ["as styxy.service of systemd", "styxy.socket enabled, active"] {
        assert!(said.contains(words), "{words}\n{said}");
    }
}
