//! No daemon can be had: Styxy works on the journal itself, or says that nothing is reserved.

use std::fs;
use std::process::{Command, Stdio};

use serde_json::json;

use crate::support::{
    Connection, Home, PATIENCE, Request, Running, Serve, eventually, finish, in_new_network,
    is_root, owner, port_of, serve, skip, tcp_socket,
};

/// `styxy run ARGS`, which prints its port and stays.
fn run_without_daemon(home: &Home, args: &[&str]) -> Running {
    let mut command = home.styxy_command(&["run"]);
    command
        .args(args)
        .args(["--", "sh", "-c", "echo $PORT; exec sleep 3600"])
        .env("STYXY_AUTOSTART", "0")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    Running::spawn(&mut command)
}

#[test]
fn two_runs_at_once_get_two_ports_through_the_journal_and_a_later_daemon_knows_both() {
    let home = Home::new();
    let mut runs = [run_without_daemon(&home, &[]), run_without_daemon(&home, &[])];
    let ports = runs.each_mut().map(|run| run.line().parse::<u16>().expect("a port"));
    assert_ne!(ports[0], ports[1]);
    let styxys = home.styxy_processes();
    assert_eq!(styxys, [0_u32; 0], "no daemon was started, and the runs are their commands now");

    let _daemon = home.daemon();
    let mut known: Vec<_> =
        home.allocations().iter().map(|one| (one["process_id"].clone(), port_of(one))).collect();
    known.sort_by_key(|(pid, _)| pid.as_u64());
    let mut expected: Vec<_> =
        runs.iter().zip(ports).map(|(run, port)| (json!(run.pid()), port)).collect();
    expected.sort_by_key(|(pid, _)| pid.as_u64());
    assert_eq!(known, expected);

    let [mut one, _two] = runs;
    one.kill();
    eventually(PATIENCE, || match home.allocations().len() {
        1 => Ok(()),
        count => Err(format!("{count} allocations")),
    });
}

#[test]
fn every_command_works_on_the_journal() {
    let home = Home::new();
    let styxy = |args: &[&str]| finish(home.styxy_command(args).env("STYXY_AUTOSTART", "0"));
    let owner = owner();
    let pid = owner.pid().to_string();
    let answer = styxy(&["allocate", "--json", "-s", "dev", "-n", "web", "--pid", &pid]);
    let answer = answer.ok().json();
    let port = port_of(&answer).to_string();

    let list = styxy(&["list", "--json"]).ok().json();
    assert_eq!(list["allocations"][0]["lock_id"], answer["lock_id"], "{list:#}");
    assert_eq!(styxy(&["get", "web"]).ok().text(), port);
    styxy(&["check", &port]).exits(1);
    let suggested = styxy(&["suggest", "dev", "--count", "3"]).ok();
    assert!(!suggested.stdout.contains(&port), "{}", suggested.whole());
    styxy(&["cleanup"]).ok();
    assert_eq!(styxy(&["get", "web"]).ok().text(), port, "a cleanup takes nothing that is held");
    styxy(&["release", "web"]).ok();
    styxy(&["check", &port]).ok();
    assert_eq!(styxy(&["get", "web"]).ok().text(), port, "its assignment");
    styxy(&["get", "nothing"]).exits(1);
    assert_eq!(home.styxy_processes(), [0_u32; 0]);
}

#[test]
fn many_allocations_at_once_through_the_journal_get_different_ports() {
    let home = Home::with_ports(64);
    let owner = owner();
    let mut command = home.styxy_command(&["allocate", "--pid", &owner.pid().to_string()]);
    command.args(["-s", "dev"]).env("STYXY_AUTOSTART", "0");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let children: Vec<_> = (0..20).map(|_| command.spawn().expect("styxy starts")).collect();
    let mut ports: Vec<u16> = children
        .into_iter()
        .map(|child| {
            let output = child.wait_with_output().expect("styxy ends");
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            text.trim_end().parse().unwrap_or_else(|_| panic!("{output:?}"))
        })
        .collect();
    ports.sort_unstable();
    ports.dedup();
    assert_eq!(ports.len(), 20);
}

/// Makes every place that Styxy could write to one that nobody can, not even root: below a file.
fn nothing_writable(command: &mut Command, home: &Home) {
    let file = home.path("a-plain-file");
    fs::write(&file, "").expect("a file");
    for name in ["HOME", "XDG_STATE_HOME", "XDG_RUNTIME_DIR"] {
        command.env(name, file.join("below"));
    }
}

#[test]
fn with_nothing_writable_run_starts_its_command_and_warns() {
    let home = Home::new();
    let run = ["run", "-s", "dev", "--", "sh", "-c", "echo $PORT"];
    let (first, last) = home.dev_range();
    let _taken = tcp_socket(&format!("127.0.0.1:{first}"), false, true);

    let mut command = home.styxy_command(&run);
    nothing_writable(&mut command, &home);
    let output = finish(&mut command).ok().complains("warning: not reserved (");
    let port = output.port();
    assert!((first + 1..=last).contains(&port), "{}", output.whole());

    let mut command = home.styxy_command(&run);
    nothing_writable(&mut command, &home);
    let output = finish(command.env("STYXY_REQUIRE", "1")).exits(69);
    assert_eq!(output.stdout, "", "the command was not started\n{}", output.whole());

    let mut command = home.styxy_command(&["run", "--require", "--", "echo", "started"]);
    nothing_writable(&mut command, &home);
    let output = finish(&mut command).exits(69);
    assert_eq!(output.stdout, "", "the command was not started\n{}", output.whole());
}

#[test]
fn with_nothing_writable_allocate_says_so_and_gives_no_port() {
    let home = Home::new();
    let mut command = home.styxy_command(&["allocate", "-s", "dev"]);
    nothing_writable(&mut command, &home);
    let output = finish(&mut command);
    assert!(matches!(output.code(), Some(69 | 74)), "{}", output.whole());
    assert_eq!(output.stdout, "", "{}", output.whole());
}

#[test]
fn from_another_network_namespace_run_works_on_that_namespaces_ports() {
    if !is_root() {
        return skip("network namespaces need root");
    }
    let home = Home::new();
    let daemon = home.daemon();
    let (first, last) = home.dev_range();
    // Taken here, and free over there.
    let _here: Vec<_> =
        (first..=last).map(|port| tcp_socket(&format!("127.0.0.1:{port}"), false, true)).collect();

    // Over there the first one is taken.
    let script = format!(
        "python3 -c \"$SERVE\" 127.0.0.1 {first} & \
         while ! grep -q ' 0A ' /proc/net/tcp; do :; done; \
         styxy run -s dev -- sh -c 'echo $PORT'; kill $!"
    );
    let mut command = home.shell(&script);
    command.env("SERVE", Serve::SCRIPT);
    let output = finish(&mut in_new_network(&command)).ok();

    let output = output.complains("warning: not reserved (");
    let lines: Vec<_> = output.stdout.lines().filter(|line| *line != "ready").collect();
    assert_eq!(lines.len(), 1, "{}", output.whole());
    let port: u16 = lines[0].parse().expect("a port");
    assert!((first + 1..=last).contains(&port), "{}", output.whole());
    assert!(home.allocations().is_empty(), "the daemon has nothing to do with it");
    daemon.is_well(&home);

    let required = home.shell("exec styxy run --require -- echo started");
    let output = finish(&mut in_new_network(&required)).exits(69);
    assert_eq!(output.stdout, "", "{}", output.whole());
}

#[test]
fn the_daemon_refuses_a_client_of_another_network_namespace() {
    if !is_root() {
        return skip("network namespaces need root");
    }
    let home = Home::new();
    let _daemon = home.daemon();
    let mut command = home.command("curl");
    command.args(["-sS", "-w", "\n%{http_code}", "--unix-socket"]).arg(home.socket());
    command.args(["--json", r#"{"service_type":"dev"}"#, "http://localhost/allocate"]);
    let output = finish(&mut in_new_network(&command)).ok();
    let (body, status) = output.stdout.rsplit_once('\n').expect("a status");
    assert_eq!(status, "409", "{}", output.whole());
    assert!(body.contains("\"foreign_namespace\""), "{}", output.whole());

    let mut here = Connection::open(&home.unix()).expect("a daemon");
    let request = Request::json("POST", "/allocate", &json!({ "service_type": "dev" }));
    here.send(&request).expect("an answer").expect(201);
}

#[test]
fn a_taken_assigned_port_is_not_given_without_a_daemon_either() {
    let home = Home::new();
    let styxy = |args: &[&str]| finish(home.styxy_command(args).env("STYXY_AUTOSTART", "0"));
    let allocate = ["allocate", "-s", "dev", "-n", "web"];
    let assigned = styxy(&allocate).ok().port();
    styxy(&["release", "web"]).ok();
    let mut python = Command::new("python3");
    let _server = serve(&mut python, assigned);
    let other = styxy(&allocate).ok().port();
    assert_ne!(other, assigned);
}
