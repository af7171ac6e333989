//! `styxy wait`: until an allocation's own program listens.

use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::support::{
    Home, PATIENCE, Running, Serve, eventually, finish, owner, port_of, serve, tcp_socket,
};

/// Starts `styxy wait ARGS`, and returns when it waits.
fn waiting(home: &Home, args: &str) -> Running {
    let mut command = home.shell(&format!("exec styxy wait {args} 2>&1"));
    let mut wait = Running::spawn(command.stdin(Stdio::null()).stdout(Stdio::piped()));
    assert!(wait.line().starts_with("styxy: waiting for"), "it says what it waits for");
    wait
}

/// Allocates `web` for that process.
fn web_of(home: &Home, owner: &Running) -> u16 {
    home.styxy(&["allocate", "-n", "web", "--pid", &owner.pid().to_string()]).ok().port()
}

/// A web server on `$PORT`.
const SERVER: &str = "python3 -m http.server --bind 127.0.0.1 $PORT >/dev/null 2>&1";

#[test]
fn a_wait_ends_when_the_own_program_listens_and_prints_the_url() {
    let home = Home::new();
    let _daemon = home.daemon();
    let owner = owner();
    let port = web_of(&home, &owner);
    let mut wait = waiting(&home, "web");
    assert_eq!(wait.try_wait(), None);

    let server = serve(&mut home.command("python3"), port);
    let start = Instant::now();
    assert_eq!(wait.line(), format!("http://localhost:{port}"));
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    assert!(wait.wait().success());

    // What listens already is no wait, by whatever name.
    let allocation = home.allocations().remove(0);
    let lock_id = allocation["lock_id"].as_str().expect("a lock id");
    let all = home.styxy(&["wait", "web", &port.to_string(), lock_id]).ok();
    assert_eq!(all.stdout, format!("http://localhost:{port}\n").repeat(3));
    let json = home.styxy(&["wait", "--json", "web"]).ok().json();
    assert_eq!(json["allocations"][0]["listener"]["pid"], server.pid(), "{json:#}");
}

#[test]
fn what_is_not_allocated_yet_is_waited_for() {
    let home = Home::new();
    let _daemon = home.daemon();
    let mut wait = waiting(&home, "web api");
    let web = home.run(&["-n", "web", "--", "sh", "-c", SERVER]);
    let api = home.run(&["-n", "api", "-s", "api", "--", "sh", "-c", SERVER]);
    let (web, api) = (home.allocation_of(web.pid()), home.allocation_of(api.pid()));
    assert_eq!(wait.line(), format!("http://localhost:{}", port_of(&web)));
    assert_eq!(wait.line(), format!("http://localhost:{}", port_of(&api)));
    assert!(wait.wait().success());
}

#[test]
fn another_projects_service_of_that_name_is_not_meant() {
    let home = Home::new();
    let _daemon = home.daemon();
    let other = home.project("other");
    let port = home.styxy_in(&other, &["allocate", "-n", "web"]).ok().port();
    let _server = serve(home.command("python3").current_dir(&other), port);
    home.styxy_in(&other, &["wait", "web"]).ok();

    let late = home.styxy(&["wait", "web", "--timeout", "100ms"]).exits(1);
    late.complains("web does not listen after 100ms").complains("it is not allocated in ");
    home.styxy(&["wait", &port.to_string()]).ok();
}

#[test]
fn the_owners_death_ends_the_wait_at_once() {
    let home = Home::new();
    let _daemon = home.daemon();
    let mut owner = owner();
    web_of(&home, &owner);
    let mut wait = waiting(&home, "web");

    let start = Instant::now();
    owner.kill();

    assert_eq!(wait.line(), "error: web ended before it listened: owner died");
    assert_eq!(wait.wait().code(), Some(1));
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
}

/// Without a daemon a wait looks now and then; however short it is, it looks once more at its end.
#[test]
fn a_short_wait_on_the_journal_sees_what_listened_in_that_time() {
    let home = Home::new();
    let journal = |args: &[&str]| finish(home.styxy_command(args).env("STYXY_AUTOSTART", "0"));
    let pid = std::process::id().to_string();
    let port = journal(&["allocate", "-n", "web", "--pid", &pid]).ok().port();
    eventually(PATIENCE, || {
        let mut command = home.shell("exec styxy wait web --timeout 200ms 2>&1");
        command.env("STYXY_AUTOSTART", "0").stdin(Stdio::null()).stdout(Stdio::piped());
        let mut wait = Running::spawn(&mut command);
        assert_eq!(wait.line(), "styxy: waiting for web");
        let _socket = tcp_socket(&format!("127.0.0.1:{port}"), true, true);
        // On a busy machine the time may be over before the socket is there.
        let said = wait.line();
        if said == format!("http://localhost:{port}") { Ok(()) } else { Err(said) }
    });
}

#[test]
fn a_release_ends_the_wait_at_once() {
    let home = Home::new();
    let _daemon = home.daemon();
    home.styxy(&["allocate", "-n", "web"]).ok();
    let mut wait = waiting(&home, "web");
    home.styxy(&["release", "web"]).ok();
    assert_eq!(wait.line(), "error: web ended before it listened: released");
    assert_eq!(wait.wait().code(), Some(1));
}

#[test]
fn a_stranger_is_not_what_is_waited_for_and_is_named() {
    let home = Home::new();
    let _daemon = home.daemon();
    let owner = owner();
    let port = web_of(&home, &owner);
    // In a session of its own: else it could be the owner's.
    let stranger = serve(home.command("setsid").arg("python3").current_dir("/"), port);

    let late = home.styxy(&["wait", "web", "--timeout", "1s"]).exits(1);

    let who = format!("python3 (pid {}) listens on port {port} instead", stranger.pid());
    late.complains("web does not listen after 1s").complains(&who);
}

#[test]
fn a_program_that_listens_elsewhere_is_named_with_its_port() {
    let home = Home::new();
    let _daemon = home.daemon();
    let spare = home.spare_port(0).to_string();
    let program = ["-n", "web", "--", "python3", "-c", Serve::SCRIPT, "127.0.0.1", &spare];
    let server = home.run(&program);
    let port = port_of(&home.allocation_of(server.pid()));
    let said = format!("listens on port {spare} instead of {port}");
    // It is said as soon as it is known, and again at the end.
    let late = home.styxy(&["wait", "web", "--timeout", "4s"]).exits(1);
    assert_eq!(late.stderr.matches(&said).count(), 2, "{}", late.whole());
    let list = home.styxy(&["list"]).ok();
    assert!(list.stdout.contains(&said), "{}", list.whole());
}

#[test]
fn a_timeout_says_what_is_there() {
    let home = Home::new();
    let _daemon = home.daemon();
    let owner = owner();
    let port = port_of(&home.allocate_for(owner.pid())).to_string();
    let start = Instant::now();
    let late = home.styxy(&["wait", &port, "--timeout", "300ms"]).exits(1);
    assert!(start.elapsed() >= Duration::from_millis(300), "{:?}", start.elapsed());
    late.complains(&format!("port {port} is kept by pid {}", owner.pid()));

    let _server = serve(&mut home.command("python3"), home.spare_port(0));
    let spare = home.spare_port(0).to_string();
    let late = home.styxy(&["wait", &spare, "--timeout", "0s"]).exits(1);
    late.complains("python3").complains("the port is not allocated");
}

#[test]
fn a_wait_outlives_a_restart_of_the_daemon() {
    let home = Home::new();
    let daemon = home.daemon();
    let owner = owner();
    let port = web_of(&home, &owner);
    let mut wait = waiting(&home, "web");

    daemon.stop();
    let _server = serve(&mut home.command("python3"), port);

    assert_eq!(wait.line(), format!("http://localhost:{port}"));
    assert!(wait.wait().success());
}

#[test]
fn a_wait_works_on_the_journal_too() {
    let home = Home::new();
    let alone = |args: &str| {
        let mut command = home.shell(&format!("exec styxy {args} 2>&1"));
        command.env("STYXY_AUTOSTART", "0").stdin(Stdio::null()).stdout(Stdio::piped());
        command
    };
    let port = finish(&mut alone("allocate -n web --quiet")).ok().port();
    let mut wait = Running::spawn(&mut alone("wait web"));
    assert_eq!(wait.line(), "styxy: waiting for web");
    // It has the journal's lock only while it looks: another command gets its turn.
    finish(&mut alone("list")).ok();
    let _server = serve(&mut home.command("python3"), port);
    assert_eq!(wait.line(), format!("http://localhost:{port}"));
    assert!(wait.wait().success());

    let watch = finish(home.styxy_command(&["watch"]).env("STYXY_AUTOSTART", "0"));
    watch.exits(69).complains("daemon start");
}

/// Programs that go to the background are found through the gap in which nothing listens and
/// their first process is gone.
fn is_found_after(script: &str) {
    let home = Home::new();
    let _daemon = home.daemon();
    let mut wait = waiting(&home, "web");
    let mut shell = home.run(&["-n", "web", "--", "sh", "-c", script]);
    assert!(shell.wait().success(), "the shell ends and leaves its server behind");
    let url = wait.line();
    assert!(wait.wait().success(), "{url}");
    let [allocation] = &home.allocations()[..] else { panic!("one, that its heir keeps") };
    assert_eq!(url, format!("http://localhost:{}", port_of(allocation)));
    assert_eq!(allocation["state"], "listening", "{allocation:#}");
    assert_ne!(allocation["listener"]["pid"], shell.pid(), "{allocation:#}");
}

#[test]
fn a_server_that_nohup_and_setsid_detach_is_found() {
    is_found_after(&format!("(sleep 2; exec setsid nohup {SERVER}) >/dev/null 2>&1 &"));
}

#[test]
fn a_server_that_a_shell_puts_in_the_background_is_found() {
    is_found_after(&format!("{SERVER} & exit 0"));
}

#[test]
fn a_server_that_forks_twice_is_found() {
    is_found_after(
        r#"exec python3 -c '
import os, signal, socket, time
if os.fork(): os._exit(0)
os.setsid()
if os.fork(): os._exit(0)
null = os.open(os.devnull, os.O_RDWR)
for fd in range(3): os.dup2(null, fd)
os.chdir("/")
time.sleep(0.5)
server = socket.create_server(("127.0.0.1", int(os.environ["PORT"])))
signal.pause()
'"#,
    );
}
