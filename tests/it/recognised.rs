//! What `run` and `allocate` make of a program or project that they know. The programs here are
//! stand-ins that print what they were started with; `frameworks` has the real ones.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use crate::support::{Home, Output, Running, finish, has_program, port_of, skip, tcp_socket};

/// Makes programs that print variables and arguments: `PORT= FLASK_RUN_PORT= | ARGS`.
fn stand_ins(home: &Home, names: &[&str]) {
    let text = "#!/bin/sh\necho \"PORT=$PORT FLASK_RUN_PORT=$FLASK_RUN_PORT | $*\"\n";
    fs::create_dir_all(home.path("bin")).expect("a directory");
    for name in names {
        let file = home.path("bin").join(name);
        fs::write(&file, text).expect("a file");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).expect("a program");
    }
}

/// `styxy run ARGS`, with the stand-ins in PATH.
fn run(home: &Home, args: &[&str]) -> Output {
    let mut command: Command = home.styxy_command(&[&["run"], args].concat());
    command.env("PATH", format!("{}:/usr/bin:/bin", home.path("bin").display()));
    finish(&mut command)
}

#[test]
fn a_program_that_ignores_port_gets_it_by_arguments_and_that_is_said() {
    let home = Home::new();
    stand_ins(&home, &["vite", "flask"]);

    let vite = run(&home, &["vite", "--host"]).ok().complains("added for Vite");
    let port = vite.text().split(['=', ' ']).nth(1).expect("the value of PORT").to_owned();
    assert_eq!(
        vite.text(),
        format!("PORT={port} FLASK_RUN_PORT= | --host --port {port} --strictPort")
    );

    let flask = run(&home, &["flask", "run"]).ok().complains("FLASK_RUN_PORT");
    assert_eq!(flask.text(), format!("PORT={port} FLASK_RUN_PORT={port} | run"));

    let plain = run(&home, &["--no-inject", "vite", "--host"]).ok();
    assert_eq!(plain.text(), format!("PORT={port} FLASK_RUN_PORT= | --host"));
    assert!(!plain.stderr.contains("Vite"), "{}", plain.whole());
}

#[test]
fn a_port_that_the_command_names_is_the_one_that_is_asked_for() {
    let home = Home::new();
    stand_ins(&home, &["vite"]);
    let own = home.spare_port(0).to_string();
    let output = run(&home, &["vite", "--port", &own]).ok();
    assert_eq!(output.text(), format!("PORT={own} FLASK_RUN_PORT= | --port {own}"));
    assert!(!output.stderr.contains("Vite"), "{}", output.whole());

    let _stranger = tcp_socket(&format!("127.0.0.1:{own}"), false, true);
    let output = run(&home, &["vite", "--port", &own]).ok();
    output.complains(&format!("the command gives Vite another port: --port {own}"));
}

#[test]
fn what_starts_several_services_gets_no_port_that_they_would_share() {
    let home = Home::new();
    stand_ins(&home, &["turbo"]);
    let scripts = r#"{"scripts": {"dev": "turbo dev"}}"#;
    fs::write(home.work().join("package.json"), scripts).expect("a file");
    let output = run(&home, &["turbo", "dev"]).ok().complains("turbo starts several programs");
    assert_eq!(output.text(), "PORT= FLASK_RUN_PORT= | dev");
    let output = run(&home, &["--env", "WEB_PORT", "turbo", "dev"]).ok();
    assert_eq!(output.text(), "PORT= FLASK_RUN_PORT= | dev");
    let output = run(&home, &["--no-inject", "turbo", "dev"]).ok();
    assert!(!output.text().starts_with("PORT= "), "{}", output.whole());
}

#[test]
fn each_service_of_several_has_its_own_variable_and_its_own_run() {
    let home = Home::new();
    let _daemon = home.daemon();
    let text = "[services.web]\ndir = \"web\"\n[services.api]\ntype = \"api\"\ndir = \"api\"\n";
    fs::write(home.work().join("styxy.toml"), text).expect("a file");
    for name in ["web", "api"] {
        fs::create_dir(home.work().join(name)).expect("a directory");
    }
    let output = turbo(&home, "", "web api");
    let lines: Vec<&str> = output.stdout.lines().collect();
    let [all, web, api] = lines[..] else { panic!("{}", output.whole()) };
    let of = |line: &str| line.rsplit_once(' ').map(|(_, port)| port.to_owned()).expect("a port");
    assert_eq!(all, format!("none {} {}", of(web), of(api)));
    assert_eq!((web, api), (&*format!("web {}", of(web)), &*format!("api {}", of(api))));
    assert!(output.stderr.contains("they have WEB_PORT, API_PORT"), "{}", output.whole());
}

#[test]
fn one_service_alone_is_found_by_its_own_run_too() {
    let home = Home::new();
    let _daemon = home.daemon();
    fs::create_dir(home.work().join("web")).expect("a directory");
    let web = |output: Output| {
        let lines: Vec<&str> = output.stdout.lines().collect();
        let [all, web] = lines[..] else { panic!("{}", output.whole()) };
        let port = all.strip_prefix("none ").expect("no PORT for all");
        assert_eq!(web, format!("web {port}"), "{}", output.whole());
        port.to_owned()
    };
    // One that only --also names has no directory, so its run says the name.
    let beside = web(turbo(&home, "--also web", "web"));
    fs::write(home.work().join("styxy.toml"), "[services.web]\ndir = \"web\"\n").expect("a file");
    assert_eq!(web(turbo(&home, "", "web")), beside);
}

/// The programs of a Procfile as they are told their ports: that of foreman, then each service's.
fn foreman(home: &Home) -> (Running, Vec<u16>) {
    let mut run = home.run(&["-q", "foreman", "start"]);
    let ports = |line: &str| -> Vec<u16> {
        let (_, words) = line.split_once("| ports ").unwrap_or_default();
        words.split_whitespace().map(|word| word.parse().expect("a port")).collect()
    };
    loop {
        let line = run.line();
        if line.contains("| ports ") {
            return (run, ports(&line));
        }
    }
}

#[test]
fn two_foremen_at_once_have_ports_of_their_own_for_each_service() {
    if !has_program("foreman") {
        return skip("there is no foreman");
    }
    let home = Home::new();
    let _daemon = home.daemon();
    let services = "[services.web]\n[services.api]\n";
    fs::write(home.work().join("styxy.toml"), services).expect("a file");
    let procfile = "web: echo ports $PORT $WEB_PORT $API_PORT; exec sleep 3600\n\
                    api: exec sleep 3600\n";
    fs::write(home.work().join("Procfile"), procfile).expect("a file");
    // It goes before PORT for foreman, and is for all that run here.
    fs::write(home.work().join(".env"), "PORT=5000\n").expect("a file");

    let (first, second) = (foreman(&home), foreman(&home));

    let told: BTreeSet<u16> = [first.1, second.1].concat().into_iter().collect();
    assert_eq!(told.len(), 6, "{told:?}");
    let kept: BTreeSet<u16> = home.allocations().iter().map(port_of).collect();
    assert_eq!(told, kept);
}

/// What an orchestrator does: a program in each package's directory. Prints the ports of web and
/// api that all are told, and then name and port of each.
fn turbo(home: &Home, options: &str, apps: &str) -> Output {
    let text = "#!/bin/sh\necho ${PORT-none} $WEB_PORT $API_PORT\n\
                for app in $APPS; do\n\
                (cd $app && styxy run -q $NAME -- sh -c 'echo $STYXY_NAME $PORT')\n\
                done\n";
    stand_ins(home, &["turbo"]);
    fs::write(home.path("bin/turbo"), text).expect("a program");
    let mut command = home.shell(&format!("PATH=$BIN:$PATH styxy run {options} -- turbo dev"));
    let name = if options.is_empty() { "" } else { "-n web" };
    finish(command.env("BIN", home.path("bin")).env("APPS", apps).env("NAME", name)).ok()
}

#[test]
fn the_service_type_is_what_was_recognised_and_says_why() {
    let home = Home::new();
    stand_ins(&home, &["uvicorn", "vite"]);
    let manifest = "[project]\ndependencies = [\"fastapi\"]\n";
    fs::write(home.work().join("pyproject.toml"), manifest).expect("a file");
    let (first, last) = home.api_range();
    let is_api = |port: u16| (first..=last).contains(&port);

    let run_it = |args: &[&str]| run(&home, args).ok();
    let output = run_it(&["uvicorn", "app:app"]).complains("api: the command runs uvicorn");
    assert!(output.stderr.contains("(api)"), "{}", output.whole());

    let output = home.styxy(&["allocate"]).ok();
    let output = output.complains("api: pyproject.toml depends on fastapi");
    assert!(is_api(output.port()), "{}", output.whole());

    let root = home.work();
    let elsewhere = home.path("home");
    let project = root.to_str().expect("UTF-8");
    let output = home.styxy_in(&elsewhere, &["allocate", "--project", project]).ok();
    assert!(is_api(output.port()), "{}", output.whole());

    // Words come first.
    for args in [&["-s", "dev"][..], &["-n", "web"]] {
        let output = home.styxy(&[&["allocate"], args].concat()).ok();
        assert!(!is_api(output.port()), "{}", output.whole());
    }
    assert!(!run_it(&["-s", "dev", "uvicorn", "app:app"]).stderr.contains("api"));
    assert!(!run_it(&["vite"]).stderr.contains("api"), "the project is no evidence for a program");
}
