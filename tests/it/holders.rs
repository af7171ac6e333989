//! Who holds a port: real programs on every kind of address, and sockets that change hands. The
//! right pid, command and directory, or the honest "another user".

use std::io::Write as _;
use std::os::unix::fs::chown;
use std::path::Path;
use std::process::Stdio;
use std::{fs, io};

use serde_json::{Value, json};

use crate::support::{
    Home, Output, PATIENCE, Running, Serve, as_nobody, behind, eventually, finish, has_program,
    is_root, serve, skip,
};

/// `node -e` of a server on `argv[1]`, port `argv[2]`.
const NODE: &str = "require('net').createServer()\
    .listen(+process.argv[2], process.argv[1], () => console.log('ready'))";

/// `python3 -c` of what a Go program does since Go 1.24: both families by one socket, of Multipath
/// TCP where the kernel has it.
const DUAL_STACK: &str = "\
import signal, socket, sys
try:
    server = socket.socket(socket.AF_INET6, socket.SOCK_STREAM, 262)
except OSError:
    server = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
server.bind((sys.argv[1], int(sys.argv[2])))
server.listen()
print('ready', flush=True)
signal.pause()
";

/// What `check` and `scan` say of a port that is used: the same.
#[track_caller]
fn usage(home: &Home, port: u16) -> Value {
    let port = port.to_string();
    let checked = home.styxy(&["check", "--json", &port]).exits(1).json();
    assert_eq!(checked["available"], false, "{checked:#}");
    let scan = home.styxy(&["scan", "--json", &port]).ok().json();
    let [entry] = &scan["ports_in_use"].as_array().expect("a list")[..] else {
        panic!("one entry: {scan:#}")
    };
    assert_eq!(entry["system_usage"], checked["system_usage"]);
    checked["system_usage"].clone()
}

/// Whether it is that process, with a command line that begins so, and works in the home's project.
fn is_named(usage: &Value, home: &Home, pid: u32, command: &str) -> bool {
    let process = &usage["process"];
    process["pid"] == pid
        && process["command"].as_str().is_some_and(|line| line.starts_with(command))
        && process["cwd"] == json!(home.work())
}

#[test]
fn python_node_and_a_dual_stack_server_are_named_on_every_address() {
    let home = Home::new();
    let _daemon = home.daemon();
    if !has_program("node") {
        return skip("node is missing");
    }
    let folder = home.work().join("apps/web");
    fs::create_dir_all(&folder).expect("there is room");
    let every = ["127.0.0.1", "0.0.0.0", "::1", "::"];
    let programs = [
        ("python3", "-c", Serve::SCRIPT, &every[..]),
        ("node", "-e", NODE, &every[..]),
        ("python3", "-c", DUAL_STACK, &["::"][..]),
    ];
    let port = home.spare_port(0);
    for (program, option, script, addresses) in programs {
        for address in addresses {
            let mut command = home.command(program);
            command.args([option, script, address, &port.to_string()]).current_dir(&folder);
            command.stdin(Stdio::null()).stdout(Stdio::piped());
            let mut server = Running::spawn(&mut command);
            assert_eq!(server.line(), "ready", "{program} on {address}");

            let usage = usage(&home, port);

            let bound: std::net::IpAddr = address.parse().expect("an address");
            let local = std::net::SocketAddr::new(bound, port).to_string();
            assert_eq!(usage["local_address"], local, "{usage:#}");
            let process = &usage["process"];
            assert_eq!(process["pid"], server.pid(), "{program} on {address}: {usage:#}");
            assert_eq!(process["name"], program, "{usage:#}");
            let line = process["command"].as_str().expect("a command line");
            assert!(line.starts_with(program) && line.contains(address), "{line}");
            assert_eq!(process["cwd"], json!(folder), "{usage:#}");
            assert_eq!(process["project_path"], json!(home.work()), "{usage:#}");
            assert_eq!(usage["container"], Value::Null);
        }
    }
    home.styxy(&["check", &port.to_string()]).ok();
}

#[test]
fn a_server_whose_parent_died_is_named_itself() {
    let home = Home::new();
    let _daemon = home.daemon();
    let port = home.spare_port(0);
    let script = "\
import os, signal, socket, sys
server = socket.create_server(('127.0.0.1', int(sys.argv[1])))
child = os.fork()
if child: print(child, flush=True); os._exit(0)
signal.pause()
";
    let mut command = home.command("python3");
    command.args(["-c", script, &port.to_string()]).stdout(Stdio::piped());
    let mut parent = Running::spawn(&mut command);
    let child: u32 = parent.line().parse().expect("a pid");
    parent.wait();

    let usage = usage(&home, port);

    assert!(is_named(&usage, &home, child, "python3 -c import os, "), "{child}: {usage:#}");
    home.kill(child);
}

/// A server that gives its socket to its child when it is told to, by the way of `argv[2]`.
const PASSING: &str = "\
import os, signal, socket, sys, time
ours, theirs = socket.socketpair()
child = 0 if sys.argv[2] == 'inherited' else os.fork()
if not child and sys.argv[2] == 'sent':
    ours.close()
    _, (server, *_), _, _ = socket.recv_fds(theirs, 1, 1)
    print('passed', flush=True)
    signal.pause()
server = socket.create_server(('127.0.0.1', int(sys.argv[1])))
print('ready', flush=True)
sys.stdin.readline()
if sys.argv[2] == 'sent':
    print(child, flush=True)
    socket.send_fds(ours, [b'x'], [server.fileno()])
else:
    child = os.spawnvp(os.P_NOWAIT, 'sh', ['sh', '-c', 'echo passed; exec sleep 600'])
    print(child, flush=True)
server.close()
signal.pause()
";

#[test]
fn a_socket_that_changes_hands_is_whose_it_is_now() {
    let home = Home::new();
    let _daemon = home.daemon();
    let port = home.spare_port(0);
    let python = "python3 -c import os, ";
    for (way, heir) in [("inherited", "sleep 600"), ("sent", python)] {
        let mut command = home.command("python3");
        let script =
            PASSING.replace("print('ready'", "server.set_inheritable(True)\nprint('ready'");
        command.args(["-c", &script, &port.to_string(), way]).stdout(Stdio::piped());
        let (reader, mut order) = io::pipe().expect("a pipe");
        let mut first = Running::spawn(command.stdin(reader));
        assert_eq!(first.line(), "ready");
        let seen = usage(&home, port);
        assert!(is_named(&seen, &home, first.pid(), python), "{way}: {seen:#}");

        order.write_all(b"go\n").expect("it reads");
        let lines = [first.line(), first.line()];
        let second: u32 = lines.iter().find_map(|line| line.parse().ok()).expect("a pid");
        assert!(lines.contains(&"passed".to_owned()), "{lines:?}");

        // It closes its own copy in a moment.
        eventually(PATIENCE, || {
            let usage = usage(&home, port);
            let is_passed = is_named(&usage, &home, second, heir);
            is_passed.then_some(()).ok_or_else(|| format!("{way} to {second}: {usage:#}"))
        });
        first.kill();
        let seen = usage(&home, port);
        assert!(is_named(&seen, &home, second, heir), "it outlives the first: {seen:#}");
        home.kill(second);
        home.styxy(&["check", &port.to_string()]).ok();
    }
}

/// Gives the home to the user that [`as_nobody`] makes of root, with the program in it: that user
/// may not look into the folder where it was built.
fn give_to_nobody(home: &Home) {
    fn give(path: &Path) {
        chown(path, Some(65534), Some(65534)).expect("root may");
        if path.is_dir() {
            let entries = fs::read_dir(path).expect("it is there");
            entries.for_each(|entry| give(&entry.expect("an entry").path()));
        }
    }
    give(&home.path(""));
    let program = home.styxy_command(&[]).get_program().to_owned();
    let copy = home.path("styxy");
    if fs::hard_link(&program, &copy).is_err() {
        fs::copy(&program, &copy).expect("there is room");
    }
}

/// `styxy ARGS` as nobody, on the journal itself, behind the words of `wrapper`.
fn styxy_of_nobody(home: &Home, wrapper: &[&str], args: &[&str]) -> Output {
    let mut command = home.command(home.path("styxy"));
    command.args(args).env("STYXY_AUTOSTART", "0");
    let command = as_nobody(&command);
    finish(&mut behind(&command, wrapper))
}

/// A server of root's and one of nobody's, as nobody sees them.
#[track_caller]
fn nobody_sees_its_own_alone(home: &Home, wrapper: &[&str]) {
    let (theirs, own) = (home.spare_port(0), home.spare_port(1));
    let _roots = serve(&mut home.command("python3"), theirs);
    let mut command = home.command("python3");
    command.args(Serve::args(own)).stdin(Stdio::null());
    let mut server =
        Running::spawn(as_nobody(&command).stdin(Stdio::null()).stdout(Stdio::piped()));
    assert_eq!(server.line(), "ready");

    let checked = |port: u16| {
        let words = ["check", "--json", &port.to_string()];
        styxy_of_nobody(home, wrapper, &words).exits(1).json()["system_usage"].clone()
    };
    let usage = checked(own);
    assert_eq!(usage["process"]["pid"], server.pid(), "{usage:#}");
    assert_eq!(usage["process"]["cwd"], json!(home.work()), "{usage:#}");
    let usage = checked(theirs);
    assert_eq!((&usage["uid"], &usage["process"]), (&json!(0), &Value::Null), "{usage:#}");

    let said = styxy_of_nobody(home, wrapper, &["check", &theirs.to_string()]).exits(1);
    assert!(said.text().ends_with("a process of another user (root, uid 0)"), "{}", said.whole());
    let exact = ["allocate", "-p", &theirs.to_string(), "--exact"];
    styxy_of_nobody(home, wrapper, &exact).exits(1).complains("another user (root, uid 0)");
    let scan = styxy_of_nobody(home, wrapper, &["scan", &theirs.to_string()]).ok();
    assert!(scan.text().contains("another user (root, uid 0)"), "{}", scan.whole());

    styxy_of_nobody(home, wrapper, &["run", "--", "sh", "-c", "exit $((PORT > 0 ? 3 : 4))"])
        .exits(3);
    let pid = std::process::id().to_string();
    styxy_of_nobody(home, wrapper, &["allocate", "--pid", &pid]).exits(2);
}

#[test]
fn what_another_user_runs_is_said_to_be_theirs() {
    if !is_root() {
        return skip("being another user needs root");
    }
    let home = Home::new();
    give_to_nobody(&home);
    nobody_sees_its_own_alone(&home, &["env"]);

    // Root sees everybody's processes.
    let port = home.spare_port(2);
    let mut command = home.command("python3");
    command.args(Serve::args(port)).current_dir("/");
    let mut server =
        Running::spawn(as_nobody(&command).stdin(Stdio::null()).stdout(Stdio::piped()));
    assert_eq!(server.line(), "ready");
    let mut check = home.styxy_command(&["check", "--json", &port.to_string()]);
    let state = home.path("root-state");
    check.env("STYXY_AUTOSTART", "0").env("XDG_STATE_HOME", state);
    let usage = finish(&mut check).exits(1).json()["system_usage"].clone();
    assert_eq!((&usage["uid"], &usage["process"]["pid"]), (&json!(65534), &json!(server.pid())));
}

#[test]
fn processes_that_proc_hides_are_said_to_be_another_users() {
    if !is_root() {
        return skip("mounting /proc needs root");
    }
    let mount = "mount -t proc -o hidepid=2 proc /proc && exec \"$@\"";
    let hidden = ["unshare", "--mount", "--propagation", "private", "sh", "-c", mount, "sh"];
    let home = Home::new();
    give_to_nobody(&home);
    let mut command = home.command("test");
    command.args(["-e", &format!("/proc/{}", std::process::id())]);
    if !finish(&mut behind(&home.command("true"), &hidden)).status.success() {
        return skip("/proc cannot be mounted here");
    }
    finish(&mut behind(&as_nobody(&command), &hidden)).exits(1);

    nobody_sees_its_own_alone(&home, &hidden);
}
