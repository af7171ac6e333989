//! `styxy run` among the services of a project.

use super::{name_services, styxy_toml};
use crate::support::{Home, PATIENCE, eventually, finish};

/// The words that a command printed.
fn words(line: &str) -> Vec<&str> {
    line.split(' ').collect()
}

#[test]
fn a_command_finds_its_siblings_and_the_ports_beside_its_own() {
    let home = Home::new();
    let _daemon = home.daemon();
    name_services(&home.work(), &styxy_toml(&home, home.dev_range().0));
    let script = "echo $PORT $WEB_PORT {port} {port:web} $HMR_PORT {port:hmr} $API_PORT {port:api}; \
                  exec sleep 600";
    let mut web = home.run(&["-n", "web", "--also", "hmr", "--", "sh", "-c", script]);
    let line = web.line();
    let [own, own_2, own_3, own_4, hmr, hmr_2, api, api_2] = words(&line)[..] else {
        panic!("{line}")
    };
    assert_eq!([own_2, own_3, own_4, hmr_2, api_2], [own, own, own, hmr, api]);
    assert!(own != hmr && own != api && hmr != api, "{line}");

    let held = |port: &str| {
        let port: u16 = port.parse().expect("a port");
        let all = home.allocations();
        all.into_iter().find(|it| it["port"] == port).map(|it| it["process_id"].clone())
    };
    assert_eq!(held(own), Some(web.pid().into()));
    assert_eq!(held(hmr), Some(web.pid().into()), "one owner, one end");
    assert_eq!(held(api), None, "a sibling's port is only known");
    web.kill();
    eventually(PATIENCE, || {
        let left = home.allocations();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:#?}")) }
    });
}

#[test]
fn a_mark_of_an_unknown_service_is_refused_before_anything_starts() {
    let home = Home::new();
    let _daemon = home.daemon();
    name_services(&home.work(), "[services.api]\n");
    let output = home.styxy(&["run", "--", "echo", "{port:apii}"]).exits(2);
    assert!(output.stderr.contains("no service 'apii' is known here"), "{}", output.whole());
    assert!(output.stderr.contains("{port:api}"), "{}", output.whole());
    assert_eq!(output.stdout, "");
}

#[test]
fn a_run_within_a_run_finds_each_port_that_was_made_for_it() {
    let home = Home::new();
    let _daemon = home.daemon();
    name_services(&home.work(), &styxy_toml(&home, home.dev_range().0));
    let inner = "styxy run -n web -- sh -c 'echo $PORT' && styxy run -n hmr -- sh -c 'echo $PORT' && \
                 styxy run -n other -- sh -c 'echo $PORT'";
    std::fs::write(home.work().join("outer"), format!("echo $PORT $HMR_PORT && {inner}"))
        .expect("a file");
    let output = finish(&mut home.shell("styxy run -n web --also hmr -- sh outer")).ok();
    let lines: Vec<&str> = output.stdout.lines().collect();
    let [both, web, hmr, other] = lines[..] else { panic!("{}", output.whole()) };
    assert_eq!(both, format!("{web} {hmr}"));
    assert!(other != web && other != hmr, "{}", output.whole());
}

#[test]
fn the_ports_beside_are_had_without_a_reservation_too() {
    let home = Home::new();
    std::fs::remove_dir_all(home.path("state")).expect("a directory");
    std::fs::write(home.path("state"), "not a directory").expect("a file");
    name_services(&home.work(), &styxy_toml(&home, home.dev_range().0));
    let script = "echo $PORT $HMR_PORT $API_PORT ${STYXY_LOCK_ID-none}";
    let run = ["run", "-n", "web", "--also", "hmr", "--", "sh", "-c", script];
    let output = finish(home.styxy_command(&run).env("STYXY_AUTOSTART", "0")).ok();
    let line = output.stdout.trim_end();
    let [own, hmr, api, "none"] = words(line)[..] else { panic!("{}", output.whole()) };
    assert!(own != hmr && own != api && hmr != api, "{line}");
}
