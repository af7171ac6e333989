//! `styxy doctor` and `styxy daemon status`: what is wrong is said, with what to do, and nothing is
//! started for the question.

use std::fs;
use std::io::ErrorKind;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::support::{Home, Output, Tmpfs, finish, is_root, serve, skip};

/// What the checks found, after a look at each: something to do exactly where it isn't ok.
#[track_caller]
fn findings(output: &Output) -> Vec<Value> {
    let findings = output.json().as_array().expect("a list").clone();
    for one in &findings {
        let is_ok = one["status"] == "ok";
        assert!(is_ok || one["status"] == "warn" || one["status"] == "fail", "{one:#}");
        assert!(one["check"].is_string() && one["message"].is_string(), "{one:#}");
        assert_eq!(one["suggestion"].is_null(), is_ok, "{one:#}");
    }
    let fails = findings.iter().any(|one| one["status"] == "fail");
    assert_eq!(output.code(), Some(i32::from(fails)), "{}", output.whole());
    findings
}

#[track_caller]
fn doctor(home: &Home) -> Vec<Value> {
    findings(&home.styxy(&["doctor", "--json"]))
}

/// The messages of a check that ended so.
fn said<'a>(findings: &'a [Value], check: &str, status: &str) -> Vec<&'a str> {
    let of_check = findings.iter().filter(|one| one["check"] == check && one["status"] == status);
    of_check.filter_map(|one| one["message"].as_str()).collect()
}

#[test]
fn a_fresh_home_is_well_and_stays_as_it_was() {
    let home = Home::new();
    let found = doctor(&home);
    let checks: Vec<_> = found.iter().filter_map(|one| one["check"].as_str()).collect();
    for check in [
        "version",
        "daemon",
        "unix-socket",
        "tcp-socket",
        "units",
        "configuration",
        "runtime-dir",
        "state-dir",
        "journal",
        "clock",
        "port-ranges",
        "pidfd",
        "netlink",
        "ipv6",
        "containers",
    ] {
        assert!(checks.contains(&check), "{check} of {checks:?}");
    }
    assert!(!found.iter().any(|one| one["status"] == "fail"), "{found:#?}");
    assert_eq!(home.styxy_processes(), [0_u32; 0], "no daemon was started");
    assert!(!home.path("state/styxy").exists() && !home.socket().exists(), "nothing was made");

    let text = home.styxy(&["doctor"]).ok();
    assert_eq!(text.stdout.lines().filter(|line| line.starts_with("ok ")).count(), {
        found.iter().filter(|one| one["status"] == "ok").count()
    });
}

#[test]
fn a_daemon_that_runs_is_asked_on_both_sockets() {
    let home = Home::new();
    let daemon = home.daemon();
    let found = doctor(&home);
    assert_eq!(said(&found, "unix-socket", "ok").len(), 1, "{found:#?}");
    let tcp = said(&found, "tcp-socket", "ok");
    assert!(tcp.iter().any(|one| one.contains(&home.daemon_port().to_string())), "{found:#?}");
    let running = said(&found, "daemon", "ok");
    assert!(running.iter().any(|one| one.contains(&daemon.pid().to_string())), "{found:#?}");
    assert_eq!(said(&found, "journal", "ok").len(), 1, "{found:#?}");

    // Stopped as by Ctrl-Z: it has the state, and answers nobody.
    daemon.signal(rustix::process::Signal::STOP);
    let found = doctor(&home);
    assert!(found.iter().any(|one| one["status"] == "fail"), "{found:#?}");
    daemon.signal(rustix::process::Signal::CONT);
}

#[test]
fn whoever_is_on_the_daemons_port_is_named() {
    let home = Home::new();
    let mut other = home.command("python3");
    let other = serve(&mut other, home.daemon_port());
    for _ in 0..2 {
        let found = doctor(&home);
        let tcp = said(&found, "tcp-socket", "warn").concat();
        assert!(tcp.contains("python3") && tcp.contains(&other.pid().to_string()), "{found:#?}");
        // The second time beside a daemon on the unix socket alone.
        home.styxy(&["daemon", "start"]).ok();
    }
    assert_eq!(said(&doctor(&home), "unix-socket", "ok").len(), 1);
}

#[test]
fn a_wrong_configuration_fails_with_its_line() {
    let home = Home::new();
    home.configure("idle_exti = \"1h\"");
    let found = doctor(&home);
    let wrong = said(&found, "configuration", "fail").concat();
    assert!(wrong.contains("config.toml:") && wrong.contains("idle_exti"), "{found:#?}");
    home.styxy(&["doctor"]).exits(1);
}

#[test]
fn directories_that_others_can_enter_or_own_are_told() {
    let home = Home::new();
    drop(home.daemon());
    let state = home.state_dir().expect("a state directory");
    fs::set_permissions(&state, fs::Permissions::from_mode(0o755)).expect("ours");
    let found = doctor(&home);
    assert!(said(&found, "state-dir", "warn").concat().contains("755"), "{found:#?}");
    if !is_root() {
        return skip("a directory of another user needs root");
    }
    std::os::unix::fs::chown(&state, Some(65534), None).expect("root may");
    let found = doctor(&home);
    assert!(said(&found, "state-dir", "fail").concat().contains("65534"), "{found:#?}");
}

#[test]
fn a_damaged_journal_fails_and_the_copy_that_is_kept_warns() {
    let home = Home::new();
    home.daemon().stop();
    let journal = home.journal();
    let mut bytes = fs::read(&journal).expect("a journal");
    bytes.extend(b"nonsense\nnonsense\n");
    fs::write(&journal, &bytes).expect("a file");
    let found = doctor(&home);
    assert!(said(&found, "journal", "fail").concat().contains("checksum"), "{found:#?}");
    assert_eq!(fs::read(&journal).expect("a journal"), bytes, "doctor mends nothing");

    home.daemon().stop();
    let found = doctor(&home);
    assert_eq!(said(&found, "journal", "ok").len(), 1, "{found:#?}");
    assert_eq!(said(&found, "journal", "warn").len(), 1, "{found:#?}");
}

#[test]
fn a_full_disk_fails() {
    let home = Home::new();
    let Some(disk) = Tmpfs::mount(256) else { return };
    let on_disk = |args: &[&str]| {
        let mut command = home.styxy_command(args);
        finish(command.env("XDG_STATE_HOME", disk.path().join("state")))
    };
    on_disk(&["allocate", "--lease", "10m"]).ok();
    on_disk(&["daemon", "stop"]).ok();
    disk.fill(0);
    let found = findings(&on_disk(&["doctor", "--json"]));
    assert_eq!(said(&found, "state-dir", "fail").len(), 1, "{found:#?}");
}

#[test]
fn an_address_of_the_environment_that_cannot_be_fails() {
    let home = Home::new();
    let mut command = home.styxy_command(&["doctor", "--json"]);
    let found = findings(&finish(command.env("STYXY_URL", "http://192.0.2.1")));
    assert!(said(&found, "environment", "fail").concat().contains("STYXY_URL"), "{found:#?}");
}

/// A manager that listens on both addresses, as far as `systemctl show` says. Whoever connected
/// would start a service.
#[test]
fn a_daemon_that_waits_behind_systemds_sockets_is_not_started() {
    let home = Home::new();
    fs::create_dir_all(home.path("run/systemd")).expect("a directory");
    fs::write(home.path("run/systemd/private"), "").expect("a file");
    fs::create_dir(home.path("run/styxy")).expect("a directory");
    let private = fs::Permissions::from_mode(0o700);
    fs::set_permissions(home.path("run/styxy"), private).expect("ours");
    let unix = UnixListener::bind(home.socket()).expect("a socket");
    let tcp = TcpListener::bind(("127.0.0.1", home.daemon_port())).expect("a free port");
    let script = format!(
        "#!/bin/sh\n[ \"$3\" = show ] || exit 1\ncat <<'END'\n\
         Id=styxy.socket\nLoadState=loaded\nActiveState=active\nUnitFileState=enabled\n\
         Listen=127.0.0.1:{} (Stream)\n\n\
         Id=styxy-unix.socket\nLoadState=loaded\nActiveState=active\nUnitFileState=enabled\n\
         Listen={} (Stream)\n\n\
         Id=styxy.service\nLoadState=loaded\nActiveState=inactive\nMainPID=0\nEND\n",
        home.daemon_port(),
        home.socket().display(),
    );
    fs::create_dir(home.path("bin")).expect("a directory");
    fs::write(home.path("bin/systemctl"), script).expect("a script");
    let mode = fs::Permissions::from_mode(0o755);
    fs::set_permissions(home.path("bin/systemctl"), mode).expect("a program");
    let path = format!("{}:/usr/bin:/bin", home.path("bin").display());
    let styxy = |args: &[&str]| finish(home.styxy_command(args).env("PATH", &path));

    let found = findings(&styxy(&["doctor", "--json"]).ok());
    assert_eq!(said(&found, "units", "ok").len(), 3, "{found:#?}");
    for check in ["unix-socket", "tcp-socket"] {
        assert!(said(&found, check, "ok").concat().contains("systemd listens"), "{found:#?}");
    }
    styxy(&["daemon", "status"]).exits(1).complains("systemd listens");
    unix.set_nonblocking(true).expect("a socket");
    tcp.set_nonblocking(true).expect("a socket");
    assert_eq!(unix.accept().map(drop).map_err(|error| error.kind()), Err(ErrorKind::WouldBlock));
    assert_eq!(tcp.accept().map(drop).map_err(|error| error.kind()), Err(ErrorKind::WouldBlock));
}

#[test]
fn a_status_says_as_what_the_daemon_runs() {
    let home = Home::new();
    let daemon = home.daemon();
    let status = home.styxy(&["daemon", "status"]).ok();
    for said in [&format!("pid {}", daemon.pid()), "in the foreground", "memory", " MiB\n"] {
        assert!(status.stdout.contains(said), "{said}\n{}", status.whole());
    }
    daemon.stop();
    home.styxy(&["daemon", "start"]).ok();
    let status = home.styxy(&["daemon", "status"]).ok();
    assert!(status.stdout.contains("in the background"), "{}", status.whole());
}

/// In a sandbox without netlink and IPv6, what is missing is said, and nothing fails for it.
#[test]
fn what_the_machine_does_not_have_is_said() {
    let home = Home::new();
    let mut command = home.styxy_command(&["doctor", "--json"]);
    if !is_root() || !Path::new("/usr/bin/unshare").exists() {
        return skip("a network namespace needs root");
    }
    // Loopback is down there, and so has no ::1.
    let mut alone = Command::new("unshare");
    alone.args(["--net"]).arg(command.get_program()).args(command.get_args()).env_clear();
    alone.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let found = findings(&finish(&mut alone));
    assert!(said(&found, "ipv6", "ok").concat().contains("IPv4 alone"), "{found:#?}");
    command.env("XDG_RUNTIME_DIR", home.path("r".repeat(120).as_str()));
    let found = findings(&finish(&mut command));
    assert_eq!(said(&found, "runtime-dir", "fail").len(), 1, "{found:#?}");
}
