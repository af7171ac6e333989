//! Wrong usage, refusals and a wrong configuration on the command line: exit codes and words.

use serde_json::json;

use crate::support::{Home, finish, owner, port_of};

#[test]
fn the_command_line_has_the_exit_codes_of_the_interface() {
    let home = Home::new();
    let _daemon = home.daemon();
    for usage in [
        &["nothing"][..],
        &[],
        &["allocate", "--nothing"],
        &["allocate", "-p", "0"],
        &["allocate", "-p", "65536"],
        &["allocate", "-p", "web"],
        &["allocate", "--protocol", "sctp"],
        &["allocate", "--lease", "soon"],
        &["allocate", "--count", "0"],
        &["allocate", "--pid", "x"],
        &["check"],
        &["check", "99999"],
        &["get"],
        &["release"],
        &["run"],
        &["suggest", "dev", "--count", "x"],
        &["daemon"],
        &["daemon", "nothing"],
        &["completions", "no-shell"],
    ] {
        let output = home.styxy(usage);
        assert_eq!(output.code(), Some(2), "{}", output.whole());
        assert_eq!(output.stdout, "", "{}", output.whole());
    }
    for no in [
        &["release", "nothing"][..],
        &["release", "0e0b8c9e-3f0a-4a52-9d2c-6a3a4a1f8e11"],
        &["get", "nothing"],
    ] {
        let output = home.styxy(no).exits(1);
        assert_eq!(output.stdout, "", "{}", output.whole());
        assert!(output.stderr.starts_with("error: "), "{}", output.whole());
    }
    assert!(home.allocations().is_empty());
}

#[test]
fn an_error_is_the_fact_the_holder_and_the_next_command() {
    let home = Home::new();
    let _daemon = home.daemon();
    let owner = owner();
    let pid = owner.pid().to_string();
    let taken = home.styxy(&["allocate", "--json", "-s", "dev", "-n", "web", "--pid", &pid]);
    let port = port_of(&taken.ok().json()).to_string();

    let output = home.styxy(&["allocate", "-s", "dev", "-p", &port, "--exact"]).exits(1);

    let lines: Vec<_> = output.stderr.lines().collect();
    assert_eq!(lines.len(), 3, "{}", output.whole());
    assert!(lines[0].starts_with("error: ") && lines[0].contains(&port), "{}", output.whole());
    assert!(lines[1].contains(&pid) && lines[1].contains("web"), "{}", output.whole());
    assert!(lines[2].trim_start().starts_with("try: "), "{}", output.whole());
}

#[test]
fn a_wrong_configuration_is_reported_with_its_place_and_the_rest_counts() {
    let home = Home::new();
    let text = std::fs::read_to_string(home.config_file()).expect("a configuration");
    let broken = format!("{text}colour = \"red\"\n\n[service.web]\nport_range = [9000, 8000]\n");
    let line = broken.lines().position(|line| line.starts_with("colour")).expect("it") + 1;
    std::fs::write(home.config_file(), &broken).expect("a configuration");

    let output = home.styxy(&["config", "check"]).exits(78);
    let said = format!("{}{}", output.stdout, output.stderr);
    assert!(said.contains(&format!("config.toml:{line}:1")), "{}", output.whole());
    assert!(said.contains("colour"), "{}", output.whole());

    let daemon = home.daemon();
    assert!(daemon.log().contains("colour"), "{}", daemon.log());
    let answer = home.post("/allocate", json!({ "service_type": "dev" })).expect(201);
    let (first, last) = home.dev_range();
    assert!((first..=last).contains(&port_of(&answer)), "the rest counts: {answer:#}");
}

#[test]
fn a_closed_pipe_is_no_panic() {
    let home = Home::new();
    let _daemon = home.daemon();
    for _ in 0..10 {
        home.allocate_for(std::process::id());
    }
    let script =
        "styxy list --json 2>err | true; styxy suggest dev --count 20 2>>err | head -0; cat err";
    let output = finish(&mut home.shell(script)).ok();
    assert!(!output.stdout.contains("panicked"), "{}", output.whole());
}
