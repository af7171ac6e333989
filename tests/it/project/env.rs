//! `styxy env` and `styxy.toml`.

use std::fs;
use std::thread;

use serde_json::{Value, json};

use super::{name_services, styxy_toml, variables};
use crate::support::{Home, finish, has_program, owner, port_of, skip};

#[test]
fn two_shells_at_once_see_the_same_ports_and_nothing_is_held() {
    let home = Home::new();
    let port = home.dev_range().0 + 3;
    name_services(&home.work(), &styxy_toml(&home, port));
    let shell = || {
        let script = "eval \"$(styxy env --shell)\" && echo $WEB_PORT $API_PORT $DOCS";
        finish(&mut home.shell(script)).ok().stdout
    };
    let (one, two) = thread::scope(|scope| {
        let (one, two) = (scope.spawn(shell), scope.spawn(shell));
        (one.join().expect("a shell"), two.join().expect("a shell"))
    });
    assert_eq!(one, two);
    let ports: Vec<u16> = one.split_whitespace().map(|it| it.parse().expect("a port")).collect();
    assert_eq!((ports.len(), ports[0]), (3, port), "web has the port of styxy.toml");
    assert!((home.api_range().0..=home.api_range().1).contains(&ports[1]), "{ports:?}");
    assert_eq!(home.allocations(), [Value::Null; 0]);

    // What runs under the name is there, and no shell sees another port because of it.
    let mut web =
        home.run(&["-n", "web", "--", "sh", "-c", "echo $PORT $API_PORT; exec sleep 600"]);
    assert_eq!(web.line(), format!("{port} {}", ports[1]));
    let running = home.allocation_of(web.pid());
    assert_eq!((&running["service_type"], port_of(&running)), (&json!("dev"), port));
    assert_eq!(shell(), one);
    assert_eq!(home.styxy(&["get", "api"]).ok().port(), ports[1], "it never ran");
}

#[test]
fn a_service_is_asked_for_by_its_name_alone() {
    let home = Home::new();
    let _daemon = home.daemon();
    name_services(&home.work(), "[services.back]\ntype = \"api\"\n");
    let owner = owner();
    let pid = owner.pid().to_string();
    let first = home.styxy(&["allocate", "-s", "back", "--pid", &pid, "--json"]).ok().json();
    assert_eq!(first["allocation"]["service_type"], "api");
    assert_eq!(first["allocation"]["service_name"], "back");
    home.styxy(&["get", "back"]).ok();
    home.styxy(&["allocate", "-s", "bakc"]).exits(2);
}

#[test]
fn the_file_is_what_a_real_dotenv_parser_reads() {
    if !has_program("python-dotenv") {
        return skip("there is no python3 with dotenv (Debian package python3-dotenv)");
    }
    let home = Home::new();
    let text =
        "[services.\"odd näme's \\\"#$\"]\n[services.3d]\n[services.\"a=b\"]\nenv = \"AB\"\n";
    name_services(&home.work(), text);
    home.styxy(&["env", "--dotenv", "--write", ".env"]).ok();

    let read = "import dotenv, json; print(json.dumps(dotenv.dotenv_values('.env')))";
    let parsed = finish(debians_python(read).current_dir(home.work())).ok().json();
    let expected = variables(&home, &home.work());
    let parsed = parsed.as_object().expect("variables");
    assert_eq!(parsed.keys().collect::<Vec<_>>(), ["ODD_N_ME_S_____PORT", "_3D_PORT", "AB"]);
    for (name, port) in parsed {
        assert_eq!(*port, expected[name].to_string(), "{name}");
    }
}

/// The one that has the packages of Debian.
fn debians_python(script: &str) -> std::process::Command {
    let mut command = std::process::Command::new("/usr/bin/python3");
    command.args(["-c", script]);
    command
}

#[test]
fn a_file_is_written_when_something_changed_and_is_ours() {
    let home = Home::new();
    name_services(&home.work(), "[services.web]\n");
    let file = home.work().join(".env.ports");
    let write = || home.styxy(&["env", "--write", ".env.ports"]);
    write().ok();
    let text = fs::read_to_string(&file).expect("a file");
    let changed = || fs::metadata(&file).expect("a file").modified().expect("a time");
    let first = changed();
    write().ok();
    assert_eq!(changed(), first, "nothing changed");

    name_services(&home.work(), "[services.web]\n[services.api]\ntype = \"api\"\n");
    write().ok();
    let both = fs::read_to_string(&file).expect("a file");
    assert!(both.starts_with(&text) && both.contains("\nAPI_PORT="), "{both}");

    fs::write(&file, "SECRET=1\n").expect("a file");
    write().exits(77);
    assert_eq!(fs::read_to_string(&file).expect("a file"), "SECRET=1\n");
}

#[test]
fn mistakes_are_told_with_their_place_and_the_right_word() {
    let home = Home::new();
    let _daemon = home.daemon();
    let text = "[services.web]\ntpye = \"dev\"\n[services.api]\ntype = \"apii\"\nport = 0\n\
                [services.db]\nenv = \"WEB_PORT\"\n";
    name_services(&home.work(), text);
    let check = home.styxy(&["config", "check"]).exits(78);
    let file = home.work().canonicalize().expect("it exists").join("styxy.toml");
    let lines = [
        "2:1: error: unknown key 'tpye' in a [services.NAME] table; did you mean 'type'?",
        "4:8: error: type: 'apii' is no service type; did you mean 'api'?",
        "5:8: error: port: 0 is not a port: ports go from 1 to 65535",
        "7:7: error: the variable WEB_PORT is web's already: give one of them another with env = \"…\"",
    ];
    let expected = lines.map(|line| format!("{}:{line}", file.display()));
    assert_eq!(check.stdout.lines().collect::<Vec<_>>(), expected);

    let env = home.styxy(&["env"]).exits(78);
    assert!(env.stderr.contains("styxy.toml:2:1: unknown key 'tpye'"), "{}", env.whole());
    assert_eq!(env.stdout, "", "half an environment is worse than none");
    // A server starts all the same, and the mistake is said.
    let run = home.styxy(&["run", "-n", "web", "--", "true"]).ok();
    assert!(run.stderr.contains("(and 3 more: styxy config check)"), "{}", run.whole());
}

#[test]
fn without_services_there_is_nothing_to_print() {
    let home = Home::new();
    let _daemon = home.daemon();
    let output = home.styxy(&["env"]).exits(1);
    assert!(output.stderr.contains("no services are known"), "{}", output.whole());
    // What ran under a name is known.
    home.styxy(&["run", "-n", "web", "--", "true"]).ok();
    let port = home.styxy(&["get", "web"]).ok().port();
    assert_eq!(home.styxy(&["env"]).ok().stdout, format!("WEB_PORT={port}\n"));
    // Outside of any project there is nothing either.
    home.styxy_in(&home.path("home"), &["env"]).exits(2);
}

#[test]
fn without_a_daemon_and_a_journal_the_ports_are_free_ones() {
    let home = Home::new();
    name_services(&home.work(), &styxy_toml(&home, home.dev_range().0 + 3));
    fs::remove_dir_all(home.path("state")).expect("a directory");
    fs::write(home.path("state"), "not a directory").expect("a file");
    let mut command = home.styxy_command(&["env"]);
    command.env("STYXY_AUTOSTART", "0");
    let output = finish(&mut command).ok();
    assert!(output.stderr.contains("warning: not reserved ("), "{}", output.whole());
    assert!(output.stdout.starts_with(&format!("WEB_PORT={}\n", home.dev_range().0 + 3)));
    assert_eq!(output.stdout.lines().count(), 3, "{}", output.whole());
    finish(command.env("STYXY_REQUIRE", "false")).ok();
    finish(command.env("STYXY_REQUIRE", "1")).exits(69);
    finish(command.env("STYXY_REQUIRE", "").arg("--require")).exits(69);
}
