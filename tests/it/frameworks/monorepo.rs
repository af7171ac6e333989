//! `pnpm -r dev`: one command that starts the server of each package, each on a port of its own.
//! `--parallel`, because it starts no more at once than the machine has processors otherwise.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process_group};
use tempfile::TempDir;

use super::install::NODE_BASIC;
use super::side_by_side::{PATIENCE, get};
use crate::support::{Home, PATH, Running, eventually, finish};

const APPS: [&str; 3] = ["web", "api", "docs"];

/// A workspace of three packages beside pnpm; `scripts` are what each one's `dev` says.
fn workspace(set: &Path, scripts: [&str; 3]) -> TempDir {
    let project = tempfile::Builder::new().prefix("workspace-").tempdir_in(set);
    let project = project.expect("a directory");
    let write = |file: &str, text: &str| {
        let file = project.path().join(file);
        fs::create_dir_all(file.parent().expect("a parent")).expect("a directory");
        fs::write(file, text).expect("a file");
    };
    write(".git/HEAD", "ref: refs/heads/main\n");
    write(
        "package.json",
        r#"{"name": "shop", "private": true, "scripts": {"dev": "pnpm -r --parallel dev"}}"#,
    );
    write("pnpm-workspace.yaml", "packages:\n  - apps/*\n");
    for (app, script) in APPS.into_iter().zip(scripts) {
        let manifest = format!(r#"{{"name": "{app}", "scripts": {{"dev": "{script}"}}}}"#);
        write(&format!("apps/{app}/package.json"), &manifest);
        write(&format!("apps/{app}/index.html"), &format!("<h1>this is {app}</h1>"));
    }
    project
}

/// `styxy ARGS` in the workspace, with pnpm and Vite in PATH and Styxy too, as scripts want it.
fn styxy(home: &Home, set: &Path, project: &TempDir, args: &str) -> std::process::Command {
    let mut command = home.shell(&format!("PATH=$FIRST:$PATH exec styxy {args}"));
    command.env("FIRST", format!("{}/node_modules/.bin:{PATH}", set.display()));
    command.current_dir(project.path());
    command
}

/// Starts `styxy run -- COMMAND` and checks that each of the three serves its own page on the port
/// that `styxy get NAME` says. Answers the ports.
#[track_caller]
fn check(home: &Home, set: &Path, project: &TempDir, command: &str, names: [&str; 3]) -> Vec<u16> {
    let mut run = styxy(home, set, project, &format!("run -- {command}"));
    let log = home.path("pnpm.log");
    let file = fs::File::create(&log).expect("a file");
    run.stdin(Stdio::null()).stdout(file.try_clone().expect("a file")).stderr(file);
    let mut run = Running::spawn(run.process_group(0));
    let mut ports = Vec::new();
    for (app, name) in APPS.into_iter().zip(names) {
        let port = eventually(PATIENCE, || {
            let output =
                finish(&mut styxy(home, set, project, &format!("wait {name} --timeout 5s")));
            let log = || fs::read_to_string(&log).unwrap_or_default();
            let url = output.stdout.trim_end().rsplit_once(':').map(|(_, port)| port.parse());
            let Some(Ok(port)) = url else { return Err(format!("{}\n{}", output.whole(), log())) };
            let page = get(port, "/").map_err(|error| format!("{error}\n{}", log()))?;
            let is_its = page.contains(&format!("this is {app}"));
            if is_its { Ok(port) } else { Err(format!("{page}\n{}", log())) }
        });
        ports.push(port);
    }
    assert_eq!(ports.iter().collect::<BTreeSet<_>>().len(), 3, "{ports:?}");
    // As Ctrl-C: to all of them.
    let group = Pid::from_raw(run.pid().cast_signed()).expect("a process");
    kill_process_group(group, Signal::INT).expect("it runs");
    run.wait();
    eventually(PATIENCE, || {
        let left = home.allocations();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:#?}")) }
    });
    ports
}

#[test]
fn three_apps_of_a_styxy_toml_have_the_ports_that_every_shell_sees() {
    let Some(set) = NODE_BASIC.directory() else { return };
    let home = Home::new();
    let _daemon = home.daemon();
    // One takes its variable, two have a run of their own, and one of these runs what ignores PORT.
    let project = workspace(
        &set,
        [
            "styxy run -- vite",
            "python3 -m http.server $API_PORT",
            "styxy run -- python3 -m http.server {port}",
        ],
    );
    let services = APPS.map(|app| format!("[services.{app}]\ndir = \"apps/{app}\"\n"));
    fs::write(project.path().join("styxy.toml"), services.concat()).expect("a file");
    let env = finish(&mut styxy(&home, &set, &project, "env")).ok().stdout;

    let ports = check(&home, &set, &project, "pnpm -r --parallel dev", APPS);
    let seen: String = ["WEB_PORT", "API_PORT", "DOCS_PORT"]
        .into_iter()
        .zip(&ports)
        .fold(String::new(), |seen, (variable, port)| seen + &format!("{variable}={port}\n"));
    assert_eq!(seen, env);
    // Behind a script of the root it is the same.
    assert_eq!(check(&home, &set, &project, "pnpm dev", APPS), ports);
}

#[test]
fn three_apps_without_a_styxy_toml_have_the_same_ports_each_time() {
    let Some(set) = NODE_BASIC.directory() else { return };
    let home = Home::new();
    let _daemon = home.daemon();
    let server = "styxy run -- python3 -m http.server";
    let project = workspace(&set, [server; 3]);
    let names = ["apps/web", "apps/api", "apps/docs"];
    let first = check(&home, &set, &project, "pnpm -r --parallel dev", names);
    assert_eq!(check(&home, &set, &project, "pnpm -r --parallel dev", names), first);
}
