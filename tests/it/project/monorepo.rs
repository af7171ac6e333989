//! Several packages in one project.

use std::fs;
use std::path::PathBuf;

use super::name_services;
use crate::support::{Home, finish};

/// A package below the root.
fn package(home: &Home, name: &str) -> PathBuf {
    let directory = home.work().join(name);
    fs::create_dir_all(directory.join("src")).expect("a directory");
    fs::write(directory.join("package.json"), "{}").expect("a file");
    directory
}

/// The port that a command in `directory` runs on.
#[track_caller]
fn run_in(home: &Home, directory: &PathBuf, options: &[&str]) -> (u16, String) {
    let command = ["--", "sh", "-c", "echo $PORT ${STYXY_NAME-none}"];
    let mut run = home.styxy_command(&[&["run"], options, &command[..]].concat());
    let output = finish(run.current_dir(directory)).ok();
    let (port, name) = output.stdout.trim_end().split_once(' ').expect("two words");
    (port.parse().expect("a port"), name.to_owned())
}

#[test]
fn every_package_has_its_own_port_again() {
    let home = Home::new();
    let _daemon = home.daemon();
    let (web, api) = (package(&home, "apps/web"), package(&home, "apps/api"));
    let first = run_in(&home, &web, &[]);
    assert_eq!(first.1, "apps/web");
    let other = run_in(&home, &api.join("src"), &[]);
    assert_eq!(other.1, "apps/api");
    assert_ne!(first.0, other.0);
    for _ in 0..2 {
        assert_eq!(run_in(&home, &api, &[]), other);
        assert_eq!(run_in(&home, &web, &[]), first);
    }
    assert_eq!(run_in(&home, &home.work(), &[]).1, "none", "the root is no package below it");
    assert_eq!(run_in(&home, &web, &["-s", "test"]).1, "none", "a test run needs no port again");
    assert_eq!(run_in(&home, &web, &["-s", "api"]).1, "apps/web:api");
}

#[test]
fn what_a_package_allocates_is_its_own_port_again_in_any_order() {
    let home = Home::new();
    let _daemon = home.daemon();
    let (web, api) = (package(&home, "apps/web"), package(&home, "apps/api"));
    let allocate = |directory: &PathBuf, options: &[&str]| {
        home.styxy_in(directory, &[&["allocate"], options].concat()).ok().port()
    };
    let ports = (run_in(&home, &web, &[]).0, run_in(&home, &api, &[]).0);
    // The other way round than they came first, and each from within.
    let other = allocate(&api.join("src"), &[]);
    assert_eq!((allocate(&web.join("src"), &[]), other), ports);
    home.styxy(&["cleanup", "--force"]).ok();
    assert_eq!((allocate(&web, &[]), allocate(&api, &[])), ports);

    let unnamed = |directory: &PathBuf, options: &[&str]| {
        let port = allocate(directory, options);
        let all = home.allocations();
        let made = all.iter().find(|it| it["port"] == port).expect("it is allocated");
        assert!(made["service_name"].is_null(), "{made:#}");
        port
    };
    let number = home.spare_port(0);
    assert_eq!(unnamed(&web, &["-p", &number.to_string()]), number, "asked for by number");
    unnamed(&web, &["-s", "test"]);
    unnamed(&home.work(), &[]);
}

#[test]
fn a_directory_of_styxy_toml_says_which_service_it_is() {
    let home = Home::new();
    let _daemon = home.daemon();
    let web = package(&home, "apps/web");
    let text =
        "[services.web]\ndir = \"apps/web\"\n[services.book]\ntype = \"api\"\ndir = \"apps/web\"\n";
    name_services(&home.work(), text);
    assert_eq!(run_in(&home, &web.join("src"), &[]).1, "web");
    assert_eq!(run_in(&home, &web, &["-s", "api"]).1, "book");
    assert_eq!(run_in(&home, &web, &["-n", "other"]).1, "other");
    // It starts beside what runs, as without a name.
    let mut running = home.run(&["-n", "web", "--", "sh", "-c", "echo $PORT; exec sleep 600"]);
    let port = running.line();
    let beside = run_in(&home, &web, &[]);
    assert_eq!(beside.1, "web");
    assert_ne!(beside.0.to_string(), port);
    // A script's `styxy allocate` means the same service.
    let mut allocate = home.styxy_command(&["allocate", "--json"]);
    let answer = finish(allocate.current_dir(&web)).ok().json();
    assert_eq!(answer["allocation"]["service_name"], "web");
}
