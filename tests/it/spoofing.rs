//! Owners that are not what they are said to be, and names that mean to deceive whoever reads them.

use std::fs;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::support::{
    Connection, Home, PATIENCE, Request, Running, eventually, finish, is_root, owner, reuse_pid,
    serve, skip,
};

/// `POST /allocate` for that owner.
fn allocate(home: &Home, pid: u32, start_time: Option<u64>) -> crate::support::Reply {
    let body = json!({
        "service_type": "dev", "process_id": pid, "process_start_time": start_time,
    });
    home.post("/allocate", body)
}

#[test]
fn pid_1_and_a_kernel_thread_are_roots_and_own_nothing_of_another_users() {
    if !is_root() {
        return skip("being another user needs root");
    }
    let home = Home::new();
    let daemon = home.daemon_of_nobody();
    let mut refused = vec![1, std::process::id()];
    refused.extend(kernel_thread());
    for pid in refused {
        let body = allocate(&home, pid, None).refused(422, "unknown_process");
        assert!(body["error"].as_str().is_some_and(|it| it.contains("another user")), "{body:#}");
        home.post("/instance/register", json!({ "process_id": pid }))
            .refused(422, "unknown_process");
    }
    assert_eq!(home.allocations(), [Value::Null; 0]);
    daemon.is_well(&home);
}

/// A thread of the kernel, where one can be seen: PF_KTHREAD of include/linux/sched.h.
fn kernel_thread() -> Option<u32> {
    let entries = fs::read_dir("/proc").expect("/proc").flatten();
    let mut pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.find(|pid| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let flags = stat.rsplit(") ").next().and_then(|rest| rest.split(' ').nth(6)?.parse().ok());
        flags.is_some_and(|flags: u32| flags & 0x0020_0000 != 0)
    })
}

#[test]
fn what_is_no_process_owns_nothing() {
    let home = Home::new();
    let daemon = home.daemon();
    // A thread that is not its process's first has an id, but is no process.
    let (sender, receiver) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        sender.send(rustix::thread::gettid().as_raw_nonzero().get()).expect("it is waited for");
        std::thread::park();
    });
    let thread_id = receiver.recv().expect("an id").unsigned_abs();
    for pid in [0, thread_id, i32::MAX.unsigned_abs(), 1 << 31, u32::MAX] {
        let reply = allocate(&home, pid, None);
        let code = reply.json()["code"].clone();
        assert!(code == "unknown_process" || code == "invalid_value", "{pid}: {reply:#?}");
        assert_eq!(reply.status, 422, "{pid}: {reply:#?}");
    }
    thread.thread().unpark();
    thread.join().expect("it only waited");
    assert_eq!(home.allocations(), [Value::Null; 0]);
    daemon.is_well(&home);
}

/// The daemon lives and watches: the pid is another's as soon as its owner is dead.
#[test]
fn a_recycled_pid_inherits_nothing_while_the_daemon_runs() {
    if !is_root() {
        return skip("choosing a pid needs root");
    }
    let home = Home::new();
    let daemon = home.daemon();
    let first = owner();
    let pid = first.pid();
    let made = home.allocate_for(pid);
    let lock_id = &made["lock_id"];
    let start_time = made["allocation"]["process_start_time"].as_u64().expect("a start time");

    // Start times count in whole seconds on the wire, and one second off is believed.
    let reused = reuse_pid(first, 300);
    assert_eq!(home.allocation(lock_id), None, "its owner is dead");
    allocate(&home, pid, Some(start_time)).refused(422, "unknown_process");
    // As itself it owns like anybody else.
    let own = home.allocate_for(pid);
    assert_ne!(own["lock_id"], *lock_id);
    drop(reused);
    home.ends_within(PATIENCE, &own["lock_id"]);
    daemon.is_well(&home);
}

/// In a container's pid namespace pid 2 is somebody else than here.
#[test]
fn a_pid_of_another_pid_namespace_is_never_believed() {
    if !is_root() {
        return skip("a pid namespace needs root");
    }
    let home = Home::new();
    let daemon = home.daemon();
    let owner = owner();
    let body = json!({ "service_type": "dev", "process_id": owner.pid() }).to_string();
    let mut curl = home.command("unshare");
    curl.args(["--pid", "--fork", "--mount-proc", "curl", "-sS", "--json", &body]);
    curl.arg("http://localhost/allocate").arg("--unix-socket").arg(home.socket());
    let answer = finish(&mut curl).ok().json();
    assert_eq!(answer["success"], true, "{answer:#}");
    assert_eq!(answer["allocation"]["process_id"], Value::Null, "{answer:#}");
    assert!(answer["allocation"]["expires_at"].is_string(), "only a lease holds it: {answer:#}");
    assert!(answer["notes"].to_string().contains("another pid namespace"), "{answer:#}");

    // Over TCP the kernel says no pid; a client that says itself where it lives is taken at its
    // word, and one that lies harms itself alone.
    let request = json!({
        "service_type": "dev", "process_id": owner.pid(), "pid_namespace": 4_026_531_000_u64,
    });
    let answer = home.post("/allocate", request).expect(201);
    assert_eq!(answer["allocation"]["process_id"], Value::Null, "{answer:#}");
    daemon.is_well(&home);
}

/// What clears a screen, rings, breaks a line, turns the direction of writing, or is a control
/// character in eight bits.
const EVIL: &str =
    "\u{1b}[2J\u{1b}]0;owned\u{7}\r\nerror: FAKE\u{202e}txt\u{2066}\u{9b}31m\u{2028}\u{7f}";

/// Nothing in `text` steers a terminal, breaks a line or deceives a reader.
#[track_caller]
fn is_clean(what: &str, text: &str) {
    let harmful = |c: char| {
        (c.is_control() && c != '\n')
            || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}')
            || matches!(c, '\u{2066}'..='\u{2069}')
    };
    assert!(!text.contains(harmful), "{what}: {text:?}");
    assert!(!text.lines().any(|line| line.starts_with("error: FAKE")), "{what}: {text:?}");
}

#[test]
fn names_that_would_deceive_are_refused_with_their_field() {
    let home = Home::new();
    let daemon = home.daemon();
    let mut owned = home.styxy_command(&["allocate", "-s", "dev", "-n", EVIL]);
    let output = finish(&mut owned).exits(2);
    is_clean("styxy allocate", &output.stderr);
    for (path, field, mut body) in [
        ("/allocate", "service_name", json!({ "service_type": "dev" })),
        ("/allocate", "instance_id", json!({ "service_type": "dev" })),
        ("/instance/register", "instance_id", json!({})),
    ] {
        for name in [EVIL, "\u{1b}[2J", "a\nb", "a\rb", "a\u{202e}b", "a\u{0}b", "a\u{85}b"] {
            body[field] = name.into();
            let refused = home.post(path, body.clone()).refused(422, "invalid_value");
            assert_eq!(refused["context"]["field"], field, "{refused:#}");
        }
    }
    let name = "n".repeat(1 << 20);
    let long = json!({ "service_type": "dev", "service_name": name });
    home.post("/allocate", long).refused(413, "body_too_large");
    let name = &name[..100_000];
    let output = home.styxy(&["allocate", "-s", "dev", "-n", name]);
    let output = output.complains("a body has at most 65536 bytes");
    assert!(output.stderr.len() < 2000, "a message, not the name again: {}", output.stderr.len());
    assert_eq!(home.allocations(), [Value::Null; 0]);
    is_clean("the log", &daemon.log());
    daemon.is_well(&home);
}

/// Directories, programs and files may have any name; what shows them shows it escaped.
#[test]
fn foreign_names_reach_no_terminal_and_no_log() {
    let home = Home::new();
    let daemon = home.daemon();
    // A name may have all but the NUL character and the slash (path_resolution(7)).
    let project = home.project(&format!("p{EVIL}"));
    fs::write(project.join("styxy.toml"), "[services.web]\ntype = \"dev\"\n").expect("a file");
    let mut owned = stranger(&home, &project);
    let register = json!({
        "instance_id": "agent", "working_directory": project, "metadata": { EVIL: EVIL },
    });
    home.post("/instance/register", register).expect(201);
    let body = json!({
        "service_type": "dev", "service_name": "web", "project_path": project,
        "process_id": owned.pid(), "instance_id": "agent",
    });
    let made = home.post("/allocate", body).expect(201);
    let (port, taken) = (made["port"].to_string(), home.spare_port(0));
    let server = serve_as(&home, &project, taken);
    let taken = taken.to_string();

    let mut watch = home.styxy_command(&["watch", "--json"]);
    let mut watch = Running::spawn(watch.stdin(Stdio::null()).stdout(Stdio::piped()));
    let lock_id = made["lock_id"].as_str().expect("a lock id");
    for args in [
        &["list"][..],
        &["check", &port, &taken],
        &["scan", &format!("{taken}-{port}")],
        &["instance", "list"],
        &["daemon", "status"],
        &["allocate", "-s", "dev", "-n", "web"],
        &["allocate", "-s", "dev", "-p", &taken, "--exact"],
        &["allocate", "-s", EVIL],
        &["run", "-n", "web", "--", "true"],
        &["get", "web"],
        &["get", EVIL],
        &["env"],
        &["wait", "web", "--timeout", "10ms"],
        &["release", EVIL],
        &["config", "check"],
        &["config", "show"],
        &["doctor"],
        &["cleanup", "--dry-run"],
    ] {
        for json in [&[][..], &["--json"]] {
            let args = [args, json].concat();
            let output = home.styxy_in(&project, &args);
            is_clean(&format!("stdout of {args:?}"), &output.stdout);
            is_clean(&format!("stderr of {args:?}"), &output.stderr);
        }
    }
    home.delete(&format!("/allocate/{lock_id}")).expect(200);
    let event = eventually(PATIENCE, || {
        let line = watch.line();
        if line.contains("released") { Ok(line) } else { Err(line) }
    });
    is_clean("styxy watch --json", &event);
    drop(server);
    owned.kill();
    is_clean("the log", &daemon.log());
    daemon.is_well(&home);
}

/// A process whose name, arguments and directory deceive.
fn stranger(home: &Home, directory: &std::path::Path) -> Running {
    let mut command = home.command("bash");
    command.args(["-c", "exec -a \"$0\" sleep 3600", EVIL]).current_dir(directory);
    Running::spawn(command.stdin(Stdio::null()).stdout(Stdio::null()))
}

/// The same, and it listens.
fn serve_as(home: &Home, directory: &std::path::Path, port: u16) -> Running {
    let program = home.path(&format!("s{EVIL}"));
    std::os::unix::fs::symlink("/usr/bin/python3", &program).expect("a link");
    let mut command = home.command(program);
    serve(command.current_dir(directory), port)
}

/// What a program sends besides JSON.
#[test]
fn heads_with_any_bytes_leave_log_and_answers_clean() {
    let home = Home::new();
    let daemon = home.daemon();
    let port = home.daemon_port();
    for (line, header) in [
        ("GET /\x1b[2J HTTP/1.1", ""),
        ("GET /%1b%5b2J%0a%e2%80%ae HTTP/1.1", ""),
        ("GET /check/%1b%5b2J HTTP/1.1", ""),
        ("GET /suggest/%1b%5b2J?count=%0a HTTP/1.1", ""),
        ("\x1b[2J / HTTP/1.1", ""),
        ("GET /status HTTP/1.1", "X: \x1b[2J"),
        ("GET /status HTTP/1.1", "Host: \u{9b}31m"),
        ("GET /status HTTP/1.1", "Origin: http://\u{202e}"),
        ("DELETE /allocate/%1b%5b2J%7f HTTP/1.1", ""),
        ("DELETE /instance/%c2%9b HTTP/1.1", ""),
    ] {
        let host = format!("Host: 127.0.0.1:{port}\r\n");
        let host = if header.starts_with("Host") { "" } else { &*host };
        let head =
            format!("{line}\r\n{host}{header}{}\r\n", if header.is_empty() { "" } else { "\r\n" });
        let reply = home.connect().send_bytes(head.as_bytes()).expect("an answer");
        assert!((400..500).contains(&reply.status), "{head:?}: {reply:#?}");
        is_clean(&head.escape_debug().to_string(), &reply.body);
    }
    is_clean("the log", &daemon.log());
    daemon.is_well(&home);
    let mut connection = Connection::open(&home.unix()).expect("a daemon");
    connection.send(&Request::new("GET", "/status")).expect("an answer").expect(200);
}
