//! The examples of styxy-api(7) do what they say.

use std::process::Stdio;

use super::INTERFACE;
use crate::support::{Home, Running, finish, has_program, skip};

/// The commands of the page that call curl, each on one line.
fn commands() -> Vec<String> {
    let examples = INTERFACE.split_once(".Sh EXAMPLES").expect("a section").1;
    let blocks = examples.split(".Bd -literal -offset indent\n").skip(1);
    let blocks = blocks.filter_map(|block| block.split(".Ed").next());
    let text = blocks
        .filter(|block| block.starts_with("$ curl "))
        .collect::<String>()
        .replace("\\e\n", " ");
    text.split("$ ").filter(|command| command.starts_with("curl ")).map(str::to_owned).collect()
}

#[test]
fn every_call_of_curl_is_answered() {
    if !has_program("curl") {
        return skip("curl is missing");
    }
    let home = Home::new();
    let _daemon = home.daemon();
    let place = format!("127.0.0.1:{}", home.daemon_port());
    let mut lock_id = String::new();
    let commands = commands();
    assert!(commands.len() >= 8, "{commands:#?}");
    for command in commands {
        let command = command.replace("127.0.0.1:9876", &place).replace("LOCK_ID", &lock_id);
        // Events go on until somebody ends them.
        if command.contains("/events") {
            let mut stream = home.shell(&format!("exec {command}"));
            let mut stream = Running::spawn(stream.stdout(Stdio::piped()));
            assert!(stream.line().starts_with(':'), "{command}");
            continue;
        }
        let output = finish(&mut home.shell(&command)).ok();
        let answer = output.json();
        let refused = answer.get("success").is_some_and(|success| success == false);
        assert!(!refused, "{}", output.whole());
        if let Some(id) = answer["lock_id"].as_str() {
            id.clone_into(&mut lock_id);
        }
    }
}
