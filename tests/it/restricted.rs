//! Machines on which something is missing: no netlink, no IPv6. What is left does, and what is
//! missing is said.

use std::process::{Command, Stdio};

use crate::support::{
    Home, PATIENCE, Running, behind, eventually, finish, in_new_network, is_root, owner, port_of,
    serve, skip,
};

/// `python3 -c` that refuses the socket family `argv[1]`, or pidfd_open(2), as sandboxes do, by a
/// filter of system calls (seccomp(2)), and then runs `argv[2:]`.
const REFUSING: &str = "\
import ctypes, os, platform, struct, sys
call = {'x86_64': 41, 'aarch64': 198}[platform.machine()]
if sys.argv[1] == 'pidfd_open':
    steps = [(0x20, 0, 0), (0x15, 1, 434), (0x06, 0, 0x00050000 | 1), (0x06, 0, 0x7fff0000)]
else:
    steps = [(0x20, 0, 0), (0x15, 3, call), (0x20, 0, 16), (0x15, 1, int(sys.argv[1])),
             (0x06, 0, 0x00050000 | 97), (0x06, 0, 0x7fff0000)]
code = b''.join(struct.pack('HBBI', code, 0, jump, k) for code, jump, k in steps)
text = ctypes.create_string_buffer(code, len(code))
class Program(ctypes.Structure):
    _fields_ = [('length', ctypes.c_ushort), ('filter', ctypes.c_void_p)]
program = Program(len(steps), ctypes.addressof(text))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, ctypes.byref(program), 0, 0) == 0, os.strerror(ctypes.get_errno())
os.execvp(sys.argv[2], sys.argv[2:])
";

const INET6: &str = "10";
const NETLINK: &str = "16";
const PIDFD: &str = "pidfd_open";

/// The command without that socket family or system call.
fn without(what: &str, command: &Command) -> Command {
    behind(command, &["python3", "-c", REFUSING, what])
}

/// How often a daemon's log says something.
fn times_said(home: &Home, what: &str) -> usize {
    let log = std::fs::read_to_string(home.path("daemon.log")).expect("a log");
    log.matches(what).count()
}

/// A daemon without that, to be killed.
fn daemon_without(home: &Home, what: &str) -> Running {
    let mut command = without(what, &home.styxy_command(&["daemon", "run"]));
    let log = std::fs::File::create(home.path("daemon.log")).expect("a log file");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    let daemon = Running::spawn(&mut command);
    eventually(PATIENCE, || home.try_get("/status").map_err(|error| error.to_string()));
    daemon
}

/// All that a daemon is asked for, of one that goes without something.
#[track_caller]
fn a_daemon_does_its_work(home: &Home) {
    let server = serve(&mut home.command("python3"), home.spare_port(0));
    let number = home.spare_port(0).to_string();
    let checked = home.styxy(&["check", "--json", &number]).exits(1).json();
    assert_eq!(checked["system_usage"]["process"]["pid"], server.pid(), "{checked:#}");
    let scan = home.styxy(&["scan", "--json", &number]).ok().json();
    let usage = &scan["ports_in_use"][0]["system_usage"];
    assert_eq!(usage["process"]["pid"], server.pid(), "{scan:#}");
    home.styxy(&["allocate", "-p", &number, "--exact"]).exits(1).complains("python3");

    let mut owner = owner();
    let held = home.allocate_for(owner.pid());
    let own = serve(
        home.command("python3").env("STYXY_LOCK_ID", held["lock_id"].as_str().expect("an id")),
        port_of(&held),
    );
    home.listens(&held["lock_id"], own.pid());
    drop(own);
    home.becomes(&held["lock_id"], "reserved");
    owner.kill();
    home.ends_within(PATIENCE, &held["lock_id"]);
}

/// Nobody's life can be watched there, so nothing is promised.
#[test]
fn where_there_is_no_proc_a_daemon_says_so_and_starts_when_there_is_one() {
    if !is_root() {
        return skip("only root can hide /proc");
    }
    let home = Home::new();
    let hide = "mount -t tmpfs tmpfs /proc && exec \"$@\"";
    let daemon = home.styxy_command(&["daemon", "run"]);
    let mut hidden = behind(&daemon, &["unshare", "--mount", "sh", "-c", hide, "sh"]);
    let refused = finish(&mut hidden);
    refused.exits(69).complains("/proc").complains("mount -t proc proc /proc");
    let daemon = home.daemon();
    daemon.is_well(&home);
}

#[test]
fn where_netlink_is_refused_proc_net_does_and_the_doctor_says_so() {
    let home = Home::new();
    let mut socket = without(NETLINK, &home.command("python3"));
    let asks = "import socket; socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 4)";
    finish(socket.args(["-c", asks])).exits(1).complains("Address family not supported");
    let _daemon = daemon_without(&home, NETLINK);
    a_daemon_does_its_work(&home);
    assert_eq!(times_said(&home, " WARN "), 1);
    assert_eq!(times_said(&home, "sock_diag does not answer (Address family"), 1, "once, not each");

    let doctor = finish(&mut without(NETLINK, &home.styxy_command(&["doctor"])));
    assert!(doctor.stdout.contains("sock_diag does not answer"), "{}", doctor.whole());
}

#[test]
fn where_pidfds_are_refused_the_safety_net_does_and_the_log_says_so() {
    let home = Home::new();
    home.configure("reap_interval = \"1s\"");
    let mut pidfd = without(PIDFD, &home.command("python3"));
    finish(pidfd.args(["-c", "import os; os.pidfd_open(1)"])).exits(1).complains("not permitted");
    let _daemon = daemon_without(&home, PIDFD);
    a_daemon_does_its_work(&home);
    assert_eq!(times_said(&home, " WARN "), 1);
    assert_eq!(times_said(&home, "pidfd_open(2) is refused"), 1, "once, not each time");

    let doctor = finish(&mut without(PIDFD, &home.styxy_command(&["doctor"])));
    assert!(doctor.stdout.contains("pidfd_open(2) is refused"), "{}", doctor.whole());
}

#[test]
fn where_no_socket_is_of_ipv6_ports_are_tried_on_ipv4() {
    let home = Home::new();
    let mut socket = without(INET6, &home.command("python3"));
    let asks = "import socket; socket.socket(socket.AF_INET6)";
    finish(socket.args(["-c", asks])).exits(1).complains("Address family not supported");
    let _daemon = daemon_without(&home, INET6);
    a_daemon_does_its_work(&home);
    assert_eq!(times_said(&home, "sock_diag does not answer"), 0);
    assert_eq!(times_said(&home, "pidfd_open(2)"), 0);

    let doctor = finish(&mut without(INET6, &home.styxy_command(&["doctor"])));
    assert!(doctor.stdout.contains("ports are tried on IPv4 alone"), "{}", doctor.whole());
}

#[test]
fn where_ipv6_is_switched_off_everything_works() {
    if !is_root() {
        return skip("a network of its own needs root");
    }
    let home = Home::new();
    let off = "for all in /proc/sys/net/ipv6/conf/*/disable_ipv6; do echo 1 > $all || exit; done; \
               echo off; exec sleep 600";
    let mut command = in_new_network(home.command("sh").args(["-c", off]));
    let mut network = Running::spawn(command.stdin(Stdio::null()).stdout(Stdio::piped()));
    assert_eq!(network.line(), "off");
    let net = format!("--net=/proc/{}/ns/net", network.pid());
    let inside = |command: &Command| behind(command, &["nsenter", &net, "--"]);
    let styxy =
        |args: &[&str]| finish(inside(&home.styxy_command(args)).env("STYXY_AUTOSTART", "0"));
    let (port, _) = home.dev_range();
    let number = port.to_string();
    styxy(&["check", &number]).ok();
    let server = serve(&mut inside(&home.command("python3")), port);

    let checked = styxy(&["check", "--json", &number]).exits(1).json();
    assert_eq!(checked["system_usage"]["process"]["pid"], server.pid(), "{checked:#}");
    assert_ne!(styxy(&["allocate", "-p", &number]).ok().port(), port);
    styxy(&["run", "--require", "--", "sh", "-c", "exit 3"]).exits(3);
    let doctor = styxy(&["doctor"]);
    assert!(doctor.stdout.contains("ports are tried on IPv4 alone"), "{}", doctor.whole());
}
