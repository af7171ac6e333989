//! What the commands print: the answer on stdout and nothing else.

use std::process::Stdio;

use serde_json::{Value, json};

use crate::support::{Home, Running, finish, owner, port_of, serve, tcp_socket};

#[test]
fn allocate_prints_the_port_alone() {
    let home = Home::new();
    let _daemon = home.daemon();
    let output = home.styxy(&["allocate", "-s", "dev"]).ok();
    let port = output.port();
    assert_eq!(output.stdout, format!("{port}\n"), "{}", output.whole());
    let allocations = home.allocations();
    assert_eq!(port_of(&allocations[0]), port);
    let work = json!(home.work());
    assert_eq!(allocations[0]["project_path"], work, "the project that it was run in");
    assert_eq!(allocations[0]["implicit_owner"], true);
}

#[test]
fn json_is_the_wires_answer() {
    let home = Home::new();
    let _daemon = home.daemon();
    let owner = owner();
    let pid = owner.pid().to_string();
    let allocate = ["allocate", "--json", "-s", "dev", "-n", "web", "--pid", &pid];
    let answer = home.styxy(&allocate).ok().json();
    assert_eq!(answer["success"], true, "{answer:#}");
    assert_eq!(answer["allocation"]["service_name"], "web", "{answer:#}");

    let list = home.styxy(&["list", "--json"]).ok().json();
    assert_eq!(list, home.get("/allocations").expect(200));
    let port = port_of(&answer);
    let check = home.styxy(&["check", &port.to_string(), "--json"]).exits(1).json();
    assert_eq!(check["allocated_to"]["lock_id"], answer["lock_id"], "{check:#}");
    let suggest = home.styxy(&["suggest", "dev", "--json", "--count", "2"]).ok().json();
    assert_eq!(suggest, home.get("/suggest/dev?count=2").expect(200));
    let status = home.styxy(&["daemon", "status", "--json"]).ok().json();
    assert_eq!(status["pid"], home.get("/status").expect(200)["pid"]);
    let lock_id = answer["lock_id"].as_str().expect("a lock id");
    let released = home.styxy(&["release", lock_id, "--json"]).ok().json();
    assert_eq!(released["lock_id"], answer["lock_id"], "{released:#}");
    let refused = home.styxy(&["release", lock_id, "--json"]).exits(1);
    assert!(refused.stdout.contains("unknown_lock") || refused.stderr.contains("unknown_lock"));
}

#[test]
fn shell_prints_what_eval_takes() {
    let home = Home::new();
    let _daemon = home.daemon();
    let script = "eval \"$(styxy allocate -s dev --shell)\"; sh -c 'echo $PORT $STYXY_LOCK_ID'";
    let output = finish(&mut home.shell(script)).ok();
    let allocation = &home.allocations()[0];
    let lock_id = allocation["lock_id"].as_str().expect("a lock id");
    let expected = format!("{} {lock_id}", allocation["port"]);
    assert_eq!(output.text(), expected, "{}", output.whole());
}

#[test]
fn several_names_and_a_count_are_one_batch_a_port_a_line() {
    let home = Home::new();
    let _daemon = home.daemon();
    let lines = |args: &[&str]| -> Vec<u16> {
        let output = home.styxy(args).ok();
        output.stdout.lines().map(|line| line.parse().expect("a port")).collect()
    };
    let named = lines(&["allocate", "-s", "dev", "-n", "web", "-n", "api", "-n", "db"]);
    assert_eq!(named.len(), 3);
    for (name, port) in ["web", "api", "db"].iter().zip(&named) {
        assert_eq!(home.styxy(&["get", name]).ok().port(), *port);
    }
    assert_eq!(lines(&["allocate", "-s", "dev", "--count", "5"]).len(), 5);
    assert_eq!(home.allocations().len(), 8);

    // Twelve are left of the range, and four beyond it.
    home.styxy(&["allocate", "-s", "dev", "--count", "17"]).exits(75);
    assert_eq!(home.allocations().len(), 8, "all or none");
}

#[test]
fn get_prints_one_port_or_its_url() {
    let home = Home::new();
    let _daemon = home.daemon();
    let port = home.styxy(&["allocate", "-s", "dev", "-n", "web"]).ok().port();
    assert_eq!(home.styxy(&["get", "web"]).ok().stdout, format!("{port}\n"));
    let url = home.styxy(&["get", "web", "--url"]).ok();
    assert_eq!(url.stdout, format!("http://localhost:{port}\n"), "{}", url.whole());
    home.styxy_in(&home.project("other"), &["get", "web"]).exits(1);
}

#[test]
fn list_shows_all_or_one_project() {
    let home = Home::new();
    let _daemon = home.daemon();
    let owner = owner();
    let pid = owner.pid().to_string();
    let (one, two) = (home.project("one"), home.project("two"));
    for (root, name) in [(&one, "first-app"), (&two, "second-app")] {
        home.styxy_in(root, &["allocate", "-s", "dev", "-n", name, "--pid", &pid]).ok();
    }
    let all = home.styxy_in(&one, &["list"]).ok();
    assert!(all.stdout.contains("first-app") && all.stdout.contains("second-app"));
    let two = two.to_str().expect("ASCII");
    for args in [&["list", "--here"][..], &["list", "--project", &one.display().to_string()]] {
        let listed = home.styxy_in(&one, args).ok();
        assert!(listed.stdout.contains("first-app"), "{}", listed.whole());
        assert!(!listed.stdout.contains("second-app"), "{}", listed.whole());
    }
    let listed = home.styxy_in(&one, &["list", "--project", two]).ok();
    assert!(!listed.stdout.contains("first-app"), "{}", listed.whole());
    assert!(!all.stdout.contains('\u{1b}'), "no colour into a pipe\n{}", all.whole());
    assert_eq!(all.stdout.lines().count(), 2, "no header into a pipe\n{}", all.whole());
}

#[test]
fn check_says_it_with_its_exit_code() {
    let home = Home::new();
    let _daemon = home.daemon();
    let (free, taken) = (home.spare_port(0).to_string(), home.spare_port(1).to_string());
    home.styxy(&["allocate", "-s", "dev", "-p", &taken]).ok();
    home.styxy(&["check", &free]).ok();
    home.styxy(&["check", &taken]).exits(1);
    home.styxy(&["check", &free, &taken]).exits(1);
}

#[test]
fn suggest_prints_ports_and_reserves_nothing() {
    let home = Home::new();
    let _daemon = home.daemon();
    let output = home.styxy(&["suggest", "dev", "--count", "3"]).ok();
    let ports: Vec<u16> =
        output.stdout.split_whitespace().map(|word| word.parse().expect("a port")).collect();
    assert_eq!(ports.len(), 3, "{}", output.whole());
    assert_eq!(home.allocations(), [Value::Null; 0]);
}

#[test]
fn suggestions_near_a_wish_say_why_they_are_there() {
    let home = Home::new();
    let _daemon = home.daemon();
    let wish = home.dev_range().0 + 3;
    let number = wish.to_string();
    let near = ["suggest", "-p", &number, "--count", "2", "--json"];
    let free = home.styxy(&near).ok().json();
    assert_eq!(free["reasons"][0], json!({ "port": wish, "reason": "the port wished for" }));
    assert_eq!(free["reasons"][1]["reason"], format!("close to {wish}"), "{free:#}");

    let _socket = tcp_socket(&format!("127.0.0.1:{wish}"), false, true);
    let taken = home.styxy(&near).ok().json();
    assert_eq!(taken["suggestions"], json!([wish + 1, wish + 2]), "{taken:#}");
    let output = home.styxy(&near[..5]).ok();
    assert!(output.stderr.contains(&format!("port {wish} is taken")), "{}", output.whole());
}

/// What a coding agent reads must not make it look for the fault in its code.
#[test]
fn who_has_the_port_that_was_asked_for_is_said_with_the_one_that_is_yours() {
    let home = Home::new();
    let _daemon = home.daemon();
    let wish = home.dev_range().0 + 3;
    let shop = home.project("shop");
    let server = serve(home.command("python3").current_dir(&shop), wish);
    let output = home.styxy(&["allocate", "-s", "dev", "-p", &wish.to_string()]).ok();
    let said = format!(
        "port {wish} is held by python3 (pid {}) in {}: another program, not an error in this code. \
         Yours: {}\n",
        server.pid(),
        shop.canonicalize().expect("it exists").display(),
        output.port()
    );
    assert!(output.stderr.contains(&said), "{}", output.whole());
    let body = json!({ "requests": [{ "service_type": "dev", "preferred_port": wish }] });
    let answer = home.post("/allocate/batch", body).expect(201);
    let note = answer["allocations"][0]["notes"][0].as_str().expect("a note");
    assert!(note.contains(&format!("held by python3 (pid {})", server.pid())), "{note}");
}

#[test]
fn an_exact_port_or_the_next_ones() {
    let home = Home::new();
    let _daemon = home.daemon();
    let wish = home.dev_range().0 + 3;
    let args = ["allocate", "-s", "dev", "-p", &wish.to_string()];
    assert_eq!(home.styxy(&args).ok().port(), wish);
    let second = home.styxy(&args).ok();
    assert!((wish + 1..=wish + 10).contains(&second.port()), "{}", second.whole());
    assert!(second.stderr.contains(&wish.to_string()), "why not\n{}", second.whole());
    home.styxy(&[&args[..], &["--exact"]].concat()).exits(1);
}

#[test]
fn allocate_waits_for_a_port_when_told_to() {
    let home = Home::new();
    let _daemon = home.daemon();
    let mut owner = owner();
    let port = home.spare_port(0).to_string();
    let pid = owner.pid().to_string();
    home.styxy(&["allocate", "-s", "dev", "-p", &port, "--pid", &pid]).ok();
    let wait = ["allocate", "-s", "dev", "-p", &port, "--exact", "--wait"];
    home.styxy(&[&wait[..], &["100ms"]].concat()).exits(1);

    let mut waiting = home.styxy_command(&wait);
    waiting.arg("15s").stdout(Stdio::piped());
    let mut waiting = Running::spawn(&mut waiting);
    owner.kill();
    assert_eq!(waiting.line(), port);
}

#[test]
fn instances_from_the_command_line() {
    let home = Home::new();
    let _daemon = home.daemon();
    let registered = home.styxy(&["instance", "register", "--json"]).ok().json();
    let id = registered["instance_id"].as_str().expect("an id");
    home.styxy(&["instance", "heartbeat", id]).ok();
    let list = home.styxy(&["instance", "list", "--json"]).ok().json();
    assert_eq!(list["instances"][0]["instance_id"], id, "{list:#}");
    home.styxy(&["instance", "remove", id]).ok();
    home.styxy(&["instance", "heartbeat", id]).exits(1);
}

#[test]
fn the_configuration_can_be_shown_and_checked_without_a_daemon() {
    let home = Home::new();
    let shown = home.styxy(&["config", "show", "--json"]).ok().json();
    assert!(shown["service"]["dev"].is_object(), "{shown:#}");
    home.styxy(&["config", "check"]).ok();
    let path = home.styxy(&["config", "path"]).ok();
    let file = home.config_file();
    assert!(path.stdout.contains(&file.display().to_string()), "{}", path.whole());
    for shell in ["bash", "zsh", "fish"] {
        assert!(home.styxy(&["completions", shell]).ok().stdout.contains("styxy"));
    }
    assert!(home.styxy(&["--version"]).ok().stdout.contains(env!("CARGO_PKG_VERSION")));
    assert_eq!(home.styxy_processes(), [0_u32; 0], "none of it starts a daemon");
}
