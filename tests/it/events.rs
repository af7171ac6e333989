//! `GET /events`, `styxy watch` and `styxy list --watch`: what happens, as it happens.

use std::fs;
use std::io::{BufRead, BufReader, Write as _};
use std::net::{Shutdown, TcpStream};
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, Mode, mkfifoat};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{
    Connection, Home, PATIENCE, Request, Running, Serve, eventually, owner, port_of, serve,
};

/// An event stream over TCP, as any program would read it.
struct Stream(BufReader<TcpStream>);

impl Stream {
    /// Opens it, and returns when it says that it is there.
    fn open(home: &Home) -> Self {
        let mut stream = TcpStream::connect(("127.0.0.1", home.daemon_port())).expect("a daemon");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let host = home.daemon_port();
        write!(stream, "GET /events HTTP/1.1\r\nHost: localhost:{host}\r\n\r\n").expect("sent");
        let mut stream = Self(BufReader::new(stream));
        assert_eq!(stream.line(), "HTTP/1.1 200 OK");
        let head: Vec<String> = std::iter::from_fn(|| Some(stream.line()))
            .take_while(|line| !line.is_empty())
            .collect();
        assert!(head.iter().any(|line| line == "content-type: text/event-stream"), "{head:?}");
        while !stream.line().starts_with(':') {}
        stream
    }

    /// The next line; empty at the end.
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).expect("the stream goes on");
        line.trim_end().to_owned()
    }

    /// The name and the data of the next event.
    #[track_caller]
    fn any(&mut self) -> (String, Value) {
        let start = Instant::now();
        // Sizes of chunks (RFC 9112, section 7.1), comments and empty lines lie between.
        let name = loop {
            // Comments come for ever, so that no single read waits for long.
            assert!(start.elapsed() < PATIENCE, "no event came");
            if let Some(name) = self.line().strip_prefix("event: ") {
                break name.to_owned();
            }
        };
        let data = self.line();
        let data = data.strip_prefix("data: ").expect("data follows");
        (name, serde_json::from_str(data).expect("data is JSON"))
    }

    /// The data of the next event, which must be of that name.
    #[track_caller]
    fn next(&mut self, name: &str) -> Value {
        let (found, data) = self.any();
        assert_eq!(found, name, "{data:#}");
        data
    }

    /// Whether the daemon has ended it.
    fn ends(mut self) -> bool {
        let mut rest = Vec::new();
        std::io::Read::read_to_end(&mut self.0, &mut rest).is_ok() && rest.ends_with(b"0\r\n\r\n")
    }
}

#[test]
fn a_life_is_told_from_allocation_to_release() {
    let home = Home::new();
    let _daemon = home.daemon();
    let mut owner = owner();
    let mut stream = Stream::open(&home);

    let answer = home.allocate_for(owner.pid());
    assert_eq!(stream.next("allocated"), answer["allocation"]);

    let mut command = home.command("python3");
    let mut server = serve(
        command.env("STYXY_LOCK_ID", answer["lock_id"].as_str().expect("an id")),
        port_of(&answer),
    );
    let listening = stream.next("listening");
    assert_eq!(listening["lock_id"], answer["lock_id"]);
    assert_eq!(listening["state"], "listening");
    assert_eq!(listening["listener"]["pid"], server.pid());

    server.kill();
    let silent = stream.next("reserved");
    assert_eq!((&silent["state"], &silent["listener"]), (&json!("reserved"), &Value::Null));

    owner.kill();
    let released = stream.next("released");
    assert_eq!(released["lock_id"], answer["lock_id"]);
    assert_eq!(released["reason"], "owner_died");
}

#[test]
fn a_strangers_listener_is_a_conflict_within_two_seconds_and_takes_nothing_away() {
    let home = Home::new();
    let _daemon = home.daemon();
    let owner = owner();
    let answer = home.allocate_for(owner.pid());
    let mut stream = Stream::open(&home);

    // In a session of its own: else it could be the owner's.
    let mut command = home.command("setsid");
    let mut stranger = serve(command.arg("python3").current_dir("/"), port_of(&answer));
    let start = Instant::now();
    let conflict = stream.next("conflict");

    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    assert_eq!(conflict["lock_id"], answer["lock_id"]);
    assert_eq!(conflict["listener"]["pid"], stranger.pid());
    let listed = home.allocation(&answer["lock_id"]).expect("it is not lost");
    assert_eq!(listed["state"], "conflict", "{listed:#}");

    stranger.kill();
    assert_eq!(stream.next("reserved")["lock_id"], answer["lock_id"]);
    assert!(home.allocation(&answer["lock_id"]).is_some(), "it is not lost");
}

#[test]
fn a_program_that_listens_elsewhere_is_told_of_once() {
    let home = Home::new();
    let _daemon = home.daemon();
    let mut stream = Stream::open(&home);
    let (own, spare) = (home.spare_port(0), home.spare_port(1).to_string());
    let gate = home.work().join("gate");
    mkfifoat(CWD, &gate, Mode::RUSR | Mode::WUSR).expect("a fifo");
    fs::write(home.work().join("serve.py"), Serve::SCRIPT).expect("a file");
    // The owner's child, and then the owner itself where it should be.
    let script = format!(
        "python3 serve.py 127.0.0.1 {spare} & read _ <gate; exec python3 serve.py 127.0.0.1 $PORT"
    );
    let _server = home.run(&["-p", &own.to_string(), "--", "sh", "-c", &script]);
    stream.next("allocated");
    let elsewhere = stream.next("elsewhere");
    assert_eq!((port_of(&elsewhere), &elsewhere["state"]), (own, &json!("reserved")));
    assert_eq!(elsewhere["elsewhere"]["local_address"], format!("127.0.0.1:{spare}"));
    assert_eq!(elsewhere["elsewhere"]["name"], "python3");
    fs::write(&gate, "go\n").expect("somebody reads");
    let listening = stream.next("listening");
    assert_eq!((port_of(&listening), &listening["elsewhere"]), (own, &Value::Null));
}

#[test]
fn an_heir_is_told() {
    let home = Home::new();
    let _daemon = home.daemon();
    let mut stream = Stream::open(&home);
    let script = "sleep 3600 >/dev/null & echo $!; exec sleep 3600";
    let mut owner = home.run(&["--", "sh", "-c", script]);
    let heir: u32 = owner.line().parse().expect("a pid");
    assert_eq!(stream.next("allocated")["process_id"], owner.pid());

    owner.kill();

    let inherited = stream.next("inherited");
    assert_eq!((&inherited["process_id"], &inherited["state"]), (&json!(heir), &json!("reserved")));
    home.kill(heir);
    assert_eq!(stream.next("released")["reason"], "owner_died");
}

#[test]
fn instances_reasons_and_moves_are_told() {
    let home = Home::new();
    let _daemon = home.daemon();
    let mut agent = owner();
    let body = json!({ "instance_id": "agent", "process_id": agent.pid() });
    home.post("/instance/register", body).expect(201);
    let project = home.work().display().to_string();
    let assign = |port: u16| {
        let service =
            json!({ "service_type": "dev", "service_name": "web", "preferred_port": port });
        let body = json!({ "project_path": project, "services": [service] });
        home.post("/assign", body).expect(200)
    };
    assign(home.dev_range().0);
    let mut stream = Stream::open(&home);

    assign(home.dev_range().1);
    let moved = stream.next("moved");
    assert_eq!(
        (&moved["from"], &moved["to"]),
        (&json!(home.dev_range().0), &json!(home.dev_range().1))
    );

    let body = json!({ "service_type": "dev", "instance_id": "agent" });
    home.post("/allocate", body).expect(201);
    stream.next("allocated");
    agent.kill();
    let (first, second) = (stream.any(), stream.any());
    let names = [first.0.as_str(), second.0.as_str()];
    assert!(names.contains(&"instance_lost") && names.contains(&"released"), "{names:?}");

    let answer = home.post("/allocate", json!({ "service_type": "dev" })).expect(201);
    stream.next("allocated");
    home.delete(&format!("/allocate/{}", answer["lock_id"].as_str().expect("an id"))).expect(200);
    assert_eq!(stream.next("released")["reason"], "released");
}

#[test]
fn a_daemon_that_ends_ends_its_streams_and_does_not_wait_for_them() {
    let home = Home::new();
    let daemon = home.daemon();
    let streams = [Stream::open(&home), Stream::open(&home)];
    let start = Instant::now();
    daemon.stop();
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
    assert!(streams.into_iter().all(Stream::ends));
}

#[test]
fn a_reader_that_goes_is_let_go_at_once() {
    let home = Home::new();
    let daemon = home.daemon();
    let streams = [(); 8].map(|()| Stream::open(&home));
    let open = daemon.descriptors();
    drop(streams);
    // Long before it would be found out by what is written to them. One more may have come that the
    // daemon keeps for itself.
    eventually(Duration::from_secs(5), || match daemon.descriptors() {
        left if left > open - 7 => Err(format!("{left} descriptors, {open} before")),
        _ => Ok(()),
    });
}

/// Lets more happen than the kernel's buffers and the daemon's backlog for one reader take.
fn flood(connection: &mut Connection) {
    let project = format!("/{}", "x".repeat(4000));
    let request = json!({ "service_type": "dev", "project_path": project });
    let batch = Request::json("POST", "/allocate/batch", &json!({ "requests": vec![request; 12] }));
    let end = Request::json("POST", "/cleanup", &json!({ "force": true }));
    for _ in 0..200 {
        connection.send(&batch).expect("an answer").expect(201);
        connection.send(&end).expect("an answer").expect(200);
    }
}

#[test]
fn a_reader_that_reads_nothing_holds_nobody_up() {
    let home = Home::new();
    let daemon = home.daemon();
    let mut idle = Stream::open(&home);
    flood(&mut home.connect());
    daemon.is_well(&home);
    let lagged = std::iter::from_fn(|| Some(idle.any())).find(|(name, _)| name == "lagged");
    let (_, data) = lagged.expect("a stream without end");
    assert!(data["missed"].as_u64().is_some_and(|missed| missed > 0), "{data}");
}

#[test]
fn a_reader_that_goes_with_all_of_it_unread_is_let_go_at_once() {
    let home = Home::new();
    let daemon = home.daemon();
    let idle = Stream::open(&home);
    // It stays open, so that the reader's descriptor alone can go.
    let mut connection = home.connect();
    flood(&mut connection);
    let open = daemon.descriptors();
    // Not a close: with what is unread it would be a reset, and fail the daemon's write.
    idle.0.get_ref().shutdown(Shutdown::Write).expect("a connection");
    // Long before the daemon gives up on a reader that takes nothing.
    eventually(Duration::from_secs(5), || match daemon.descriptors() {
        left if left >= open => Err(format!("{left} descriptors, {open} before")),
        _ => Ok(()),
    });
}

/// Starts `styxy ARGS` with its stdout to be read.
fn watching(home: &Home, args: &[&str]) -> Running {
    let mut command = home.styxy_command(args);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    Running::spawn(&mut command)
}

#[test]
fn watch_prints_a_line_for_each_event() {
    let home = Home::new();
    let daemon = home.daemon();
    let [mut watch, mut raw] = ["watch", "watch --json"].map(|command| {
        let mut command = home.shell(&format!("exec styxy {command} 2>&1"));
        let mut watch = Running::spawn(command.stdin(Stdio::null()).stdout(Stdio::piped()));
        assert!(watch.line().starts_with("styxy: watching"), "it says when it listens");
        watch
    });
    home.styxy(&["allocate", "-n", "heard"]).ok();
    let line = watch.line();
    assert!(line.contains(" allocated ") && line.contains(" dev/heard in "), "{line}");
    let line = raw.line();
    let event: Value = serde_json::from_str(&line).expect("a line of JSON");
    assert_eq!(event["event"], "allocated", "{line}");
    assert_eq!(event["data"]["service_name"], "heard", "{line}");

    home.styxy(&["release", "heard"]).ok();
    let line = watch.line();
    assert!(line.contains(" released ") && line.ends_with(": released"), "{line}");
    daemon.is_well(&home);
    watch.signal(Signal::INT);
    assert!(!watch.wait().success());
}

#[test]
fn a_watched_list_is_shown_again_when_it_changes() {
    let home = Home::new();
    let _daemon = home.daemon();
    let mut list = watching(&home, &["list", "--watch", "--json"]);
    let mut next = || -> Value { serde_json::from_str(&list.line()).expect("a line of JSON") };
    assert_eq!(next()["allocations"], json!([]));

    let port = home.styxy(&["allocate", "-n", "web"]).ok().port();
    assert_eq!(next()["allocations"][0]["port"], port);

    let _server = serve(&mut home.command("python3"), port);
    assert_eq!(next()["allocations"][0]["state"], "listening");
    home.styxy(&["release", "web"]).ok();
    assert_eq!(next()["allocations"], json!([]));
}

#[test]
fn who_looks_on_follows_to_the_next_daemon_and_starts_none() {
    let home = Home::new();
    let daemon = home.daemon();
    let mut list = watching(&home, &["list", "--watch", "--json"]);
    let mut next = || -> Value { serde_json::from_str(&list.line()).expect("a line of JSON") };
    assert_eq!(next()["allocations"], json!([]));

    daemon.stop();
    let daemon = home.daemon();
    home.styxy(&["allocate", "-n", "web"]).ok();
    assert_eq!(next()["allocations"][0]["service_name"], "web");

    daemon.stop();
    assert_eq!(list.wait().code(), Some(69));
    assert!(home.try_get("/status").is_err(), "it was stopped, and stays so");
}
