//! The main job: `styxy run` gives every server a port of its own, and takes it back.

use std::os::unix::process::CommandExt as _;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::Value;

use crate::support::{
    Address, Connection, Home, PATIENCE, Request, Running, eventually, finish, has_program, skip,
};

/// Waits until something answers HTTP on the port.
#[track_caller]
fn serves_http(port: &Value) {
    let port = u16::try_from(port.as_u64().expect("a port")).expect("a port");
    let reply = eventually(PATIENCE, || {
        let connection = Connection::open(&Address::Tcp(port));
        let reply = connection.and_then(|mut open| open.send(&Request::new("GET", "/")));
        reply.map_err(|error| error.to_string())
    });
    assert_eq!(reply.status, 200, "{reply:#?}");
}

fn http_server(home: &Home, options: &[&str]) -> Running {
    home.run(&[options, &["--", "python3", "-m", "http.server", "{port}"]].concat())
}

#[test]
fn the_readmes_command_twice_gives_two_servers_on_two_ports() {
    if !has_program("python3") {
        return skip("there is no python3");
    }
    let home = Home::new();
    home.forget_configuration();

    let (one, two) = (http_server(&home, &[]), http_server(&home, &[]));

    let ports = [&one, &two].map(|server| home.allocation_of(server.pid())["port"].clone());
    assert_ne!(ports[0], ports[1]);
    ports.iter().for_each(serves_http);
}

#[test]
fn ctrl_c_ends_the_server_and_its_port_is_free_within_50_ms() {
    let home = Home::alone(32);
    let _daemon = home.daemon();
    let mut server = http_server(&home, &[]);
    let allocation = home.allocation_of(server.pid());
    serves_http(&allocation["port"]);

    server.signal(Signal::INT);
    server.wait();

    home.ends_within(Duration::from_millis(50), &allocation["lock_id"]);
    let list = home.styxy(&["list"]).ok();
    assert!(!list.stdout.contains(&allocation["port"].to_string()), "{}", list.whole());
}

#[test]
fn the_command_learns_its_port_lock_id_and_name() {
    let home = Home::new();
    let _daemon = home.daemon();

    let mut child = home.run(&[
        "-n",
        "web",
        "-s",
        "api",
        "--",
        "sh",
        "-c",
        "echo $PORT $STYXY_PORT $STYXY_LOCK_ID $STYXY_NAME {port}; exec sleep 3600",
    ]);
    let line = child.line();

    let allocation = home.allocation_of(child.pid());
    let port = &allocation["port"];
    let lock_id = allocation["lock_id"].as_str().expect("a lock id");
    assert_eq!(line, format!("{port} {port} {lock_id} web {port}"));
    assert_eq!(allocation["service_type"], "api");
    assert_eq!(allocation["service_name"], "web");
    assert_eq!(allocation["implicit_owner"], false);
    assert_eq!(allocation["expires_at"], Value::Null, "styxy run needs no lease");
}

#[test]
fn the_port_goes_to_another_variable_when_asked() {
    let home = Home::new();
    let run = ["run", "--env", "WEB_PORT", "--", "sh", "-c", "echo $WEB_PORT ${PORT-unset}"];
    let output = home.styxy(&run).ok();
    let (first, last) = home.dev_range();
    let (port, rest) = output.text().split_once(' ').expect("two words");
    let port: u16 = port.parse().expect("a port");
    assert!((first..=last).contains(&port), "{}", output.whole());
    assert_eq!(rest, "unset", "{}", output.whole());
}

#[test]
fn the_exit_code_is_the_commands() {
    let home = Home::new();
    let _daemon = home.daemon();
    home.styxy(&["run", "--", "sh", "-c", "exit 7"]).exits(7);
    home.styxy(&["run", "--", "no-such-command-anywhere"]).exits(127);
    let plain = home.work().join("plain-file");
    std::fs::write(&plain, "not a program").expect("a file");
    home.styxy(&["run", "--", plain.to_str().expect("a path in ASCII")]).exits(126);
    assert!(home.allocations().is_empty(), "a command that never ran holds nothing");
}

#[test]
fn arguments_reach_the_command_untouched_but_for_the_port() {
    let home = Home::new();
    let _daemon = home.daemon();
    let output = home.styxy(&[
        "run",
        "-p",
        &home.spare_port(0).to_string(),
        "printf",
        "%s\n",
        "a b",
        "",
        "$HOME",
        "http://localhost:{port}/{x}",
        "-n",
    ]);
    let port = home.spare_port(0);
    let expected = format!("a b\n\n$HOME\nhttp://localhost:{port}/{{x}}\n-n\n");
    assert_eq!(output.clone().ok().stdout, expected, "{}", output.whole());
}

#[test]
fn a_name_that_runs_already_is_said_and_not_started_again() {
    let home = Home::new();
    let _daemon = home.daemon();
    let server = http_server(&home, &["-n", "web"]);
    let first = home.allocation_of(server.pid());
    serves_http(&first["port"]);
    let url = format!("http://localhost:{}", first["port"]);
    let again = |option: &[&str]| {
        let words = [&["run", "-n", "web"], option, &["--", "sh", "-c", "echo ran on $PORT"]];
        home.styxy(&words.concat())
    };

    let refused = again(&[]).exits(1).complains(&url);
    let refused = refused.complains(&server.pid().to_string());
    assert_eq!(refused.stdout, "", "{}", refused.whole());

    let same = again(&["--reuse"]).ok();
    assert_eq!(same.text(), url, "{}", same.whole());

    let another = again(&["--another"]).ok();
    let port = another.text().strip_prefix("ran on ").expect("the command ran");
    assert_ne!(port, first["port"].to_string(), "{}", another.whole());
    assert!(home.allocation(&first["lock_id"]).is_some(), "the first one still runs");
}

#[test]
fn of_two_runs_within_a_run_one_has_its_port_and_the_other_one_of_its_own() {
    let home = Home::new();
    let _daemon = home.daemon();
    let server = "import os, signal, socket; \
                  s = socket.create_server(('127.0.0.1', int(os.environ['PORT']))); \
                  print(os.environ['PORT'], flush=True); signal.pause()";
    // A starter of several that nobody knows, as make -j is: both begin when the barrier goes.
    let starter = "echo $PORT\nfor one in 1 2; do\n\
                   (read _ < barrier; styxy run -q -- python3 -c \"$SERVER\" || echo none) &\n\
                   done\nexec 3<> barrier\necho go >&3; echo go >&3\nwait\n";
    std::fs::write(home.work().join("starter"), starter).expect("a file");
    finish(home.command("mkfifo").arg("barrier")).ok();
    for _ in 0..5 {
        let mut run = home.shell("exec styxy run -q -- sh starter");
        run.env("SERVER", server).process_group(0).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut run = Running::spawn(&mut run);
        let outer = run.line();
        let ports = [run.line(), run.line()];
        let all_serve = ports.iter().all(|port| port.parse::<u16>().is_ok());
        assert!(all_serve && ports[0] != ports[1], "{ports:?}");
        assert!(ports.contains(&outer), "{ports:?} without {outer}");
        let group = Pid::from_raw(run.pid().cast_signed()).expect("a process");
        kill_process_group(group, Signal::KILL).expect("it runs");
        run.wait();
        eventually(PATIENCE, || {
            let left = home.allocations();
            if left.is_empty() { Ok(()) } else { Err(format!("{left:#?}")) }
        });
    }
}

#[test]
fn runs_within_each_other_and_one_after_the_other_have_the_same_port() {
    let home = Home::new();
    let _daemon = home.daemon();
    let inner = "echo $PORT\nstyxy run -q -- sh -c 'echo $PORT; exec styxy run -q -- sh -c \"echo \\$PORT\"'\n\
                 styxy run -q -- sh -c 'echo $PORT'\n";
    std::fs::write(home.work().join("inner"), inner).expect("a file");
    let output = finish(&mut home.shell("styxy run -q -- sh inner")).ok();
    let ports: Vec<&str> = output.stdout.lines().collect();
    assert_eq!(ports, [ports[0]; 4], "{}", output.whole());
}

#[test]
fn a_run_inside_a_run_of_the_same_service_has_the_same_port() {
    let home = Home::new();
    let _daemon = home.daemon();
    let script = "echo $PORT; styxy run -n web -- sh -c 'echo $PORT'; \
                  styxy run -n other -- sh -c 'echo $PORT'";
    let output = finish(
        &mut home.shell(&format!("styxy run -n web -- sh -c \"{}\"", script.replace('$', "\\$"))),
    )
    .ok();
    let ports: Vec<_> = output.stdout.lines().collect();
    assert_eq!(ports.len(), 3, "{}", output.whole());
    assert_eq!(ports[0], ports[1], "{}", output.whole());
    assert_ne!(ports[0], ports[2], "{}", output.whole());
}
