//! What the daemon logs: to the journal with fields, to stderr as plain text.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::net::UnixDatagram;
use std::process::Stdio;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{Home, PATIENCE, Running, eventually, is_root, owner, port_of, serve, skip};

/// A project whose name would clear the screen of whoever reads the log, and whose letters and
/// quotes would not.
const PROJECT: &str = "it's ünïcode\x1b[2J";
const SHOWN: &str = "it's ünïcode\\u{1b}[2J";

/// An allocation, a conflict, an end, and heartbeats in between. Returns what was allocated.
fn a_day(home: &Home) -> (Value, u32) {
    let mut owner = owner();
    let registered = home.post("/instance/register", json!({ "instance_id": "agent" }));
    registered.expect(201);
    let project = home.project(PROJECT);
    let made = home.post(
        "/allocate",
        json!({
            "service_type": "dev", "service_name": "web", "process_id": owner.pid(),
            "project_path": project,
        }),
    );
    let made = made.expect(201);
    for _ in 0..5 {
        home.post("/instance/heartbeat", json!({ "instance_id": "agent" })).expect(200);
    }
    // Not the owner's child, not in its session, not in the project, no lock id.
    let mut stranger = home.command("setsid");
    stranger.arg("python3").current_dir("/");
    let mut stranger = serve(&mut stranger, port_of(&made));
    home.becomes(&made["lock_id"], "conflict");
    stranger.kill();
    home.becomes(&made["lock_id"], "reserved");
    let pid = owner.pid();
    owner.kill();
    home.ends_within(PATIENCE, &made["lock_id"]);
    (made, pid)
}

/// What is said of such a day, a priority (syslog(3)) and a message each.
fn expected(home: &Home, made: &Value, pid: u32) -> Vec<(&'static str, String)> {
    let port = port_of(made);
    let what = format!("dev/web in {} (pid {pid})", home.path(SHOWN).display());
    let (tcp, unix) = (home.daemon_port(), home.socket());
    vec![
        ("6", format!("ready on 127.0.0.1:{tcp} and unix:{}", unix.display())),
        ("6", format!("port {port} allocated to {what}")),
        ("4", format!("port {port} of {what} is used by another program")),
        ("6", format!("port {port} released by {what}: owner died")),
        ("6", "told to end".to_owned()),
        ("6", "stopped".to_owned()),
    ]
}

type Entry = BTreeMap<String, String>;

/// An entry of the journal's native protocol: `NAME=VALUE`, or the name, the length and the value
/// (<https://systemd.io/JOURNAL_NATIVE_PROTOCOL/>).
fn entry(mut datagram: &[u8]) -> Entry {
    let mut fields = Entry::new();
    while let Some(end) = datagram.iter().position(|byte| *byte == b'\n') {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("UTF-8");
        let line = text(&datagram[..end]);
        datagram = &datagram[end + 1..];
        if let Some((name, value)) = line.split_once('=') {
            fields.insert(name.to_owned(), value.to_owned());
            continue;
        }
        let (length, rest) = datagram.split_at(8);
        let length = u64::from_le_bytes(length.try_into().expect("eight bytes"));
        let (value, rest) = rest.split_at(usize::try_from(length).expect("a short value"));
        fields.insert(line, text(value));
        datagram = &rest[1..];
    }
    fields
}

/// The real program on a socket of the journal's that is this test's: the path is fixed, so the
/// daemon gets a mount namespace of its own, where this test's directory is in its place.
#[test]
fn the_journal_gets_a_line_with_fields_for_whatever_happens_to_a_port() {
    if !is_root() {
        return skip("a mount namespace needs root");
    }
    let home = Home::new();
    fs::create_dir(home.path("journal")).expect("a directory");
    let journal = UnixDatagram::bind(home.path("journal/socket")).expect("a socket");
    journal.set_read_timeout(Some(PATIENCE)).expect("a timeout");

    let script = "mount -t tmpfs none /run && mkdir -p /run/systemd/journal && \
                  mount --bind \"$0\" /run/systemd/journal && \
                  JOURNAL_STREAM=$(stat --dereference --format %d:%i /proc/self/fd/2) exec \"$@\"";
    let mut command = home.command("unshare");
    command.args(["--mount", "sh", "-c", script]).arg(home.path("journal"));
    command.arg(home.styxy_command(&[]).get_program()).args(["daemon", "run"]);
    let stderr = File::create(home.path("stderr")).expect("a file");
    let mut daemon = Running::spawn(command.stdin(Stdio::null()).stderr(stderr));
    eventually(PATIENCE, || home.try_get("/status").map(drop).map_err(|error| error.to_string()));

    let (made, pid) = a_day(&home);
    daemon.signal(Signal::TERM);
    daemon.wait();

    let mut entries = Vec::new();
    let mut buffer = vec![0; 1 << 16];
    while entries.last().is_none_or(|last: &Entry| last["MESSAGE"] != "stopped") {
        let length = journal.recv(&mut buffer).expect("the journal is told of the end");
        // The first one is empty: it asks whether a journal is there.
        if length > 0 {
            entries.push(entry(&buffer[..length]));
        }
    }
    let said: Vec<_> =
        entries.iter().map(|one| (one["PRIORITY"].as_str(), one["MESSAGE"].clone())).collect();
    assert_eq!(said, expected(&home, &made, pid));
    for one in &entries[1..4] {
        assert_eq!(one["SYSLOG_IDENTIFIER"], "styxy");
        assert_eq!(one["STYXY_PORT"], port_of(&made).to_string());
        assert_eq!(Some(one["STYXY_LOCK_ID"].as_str()), made["lock_id"].as_str());
        assert_eq!(one["STYXY_PID"], pid.to_string());
        assert_eq!(one["STYXY_SERVICE_TYPE"], "dev");
        // The value itself, so that it can be searched for.
        assert_eq!(one["STYXY_PROJECT"], home.path(PROJECT).display().to_string());
    }
    assert_eq!(entries[3]["STYXY_REASON"], "owner died");
    let rest = fs::read_to_string(home.path("stderr")).expect("a file");
    assert_eq!(rest, "", "nothing is said twice");
}

#[test]
fn without_a_journal_stderr_gets_the_same_as_plain_text() {
    let home = Home::new();
    let daemon = home.daemon();
    let (made, pid) = a_day(&home);
    daemon.stop();

    let log = fs::read_to_string(home.path("daemon.log")).expect("a log");
    assert!(!log.contains('\x1b'), "a terminal can be steered: {log:?}");
    let expected = expected(&home, &made, pid);
    assert_eq!(log.lines().count(), expected.len(), "{log}");
    for (line, (priority, message)) in log.lines().zip(expected) {
        let level = if priority == "4" { " WARN " } else { " INFO " };
        assert!(line.contains(level) && line.contains(&message), "{level}{message}\n{line}");
    }
}
