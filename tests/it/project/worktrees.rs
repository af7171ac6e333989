//! Every worktree its own ports, and always the same.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{git, name_services, styxy_toml, variables};
use crate::support::{Home, reboot};

#[test]
fn two_worktrees_of_three_services_have_six_ports_after_restart_and_reboot() {
    let home = Home::new();
    let daemon = home.daemon();
    let (main, linked) = (home.path("shop"), home.path("cart"));
    std::fs::create_dir(&main).expect("a directory");
    git(&home, &main, &["init", "--quiet"]);
    let port = home.dev_range().0 + 5;
    name_services(&main, &styxy_toml(&home, port));
    git(&home, &main, &["add", "styxy.toml"]);
    git(&home, &main, &["commit", "--quiet", "-m", "Name the services"]);
    git(&home, &main, &["worktree", "add", "--quiet", "../cart"]);

    // The linked one comes first, and leaves the port of styxy.toml to the main one.
    let of_linked = variables(&home, &linked);
    let of_main = variables(&home, &main);
    assert_eq!(of_main["WEB_PORT"], port);
    home.styxy_in(&linked, &["allocate", "-n", "web"]).ok();
    let list = home.styxy(&["list"]).ok();
    assert!(list.stdout.contains("/cart (cart)"), "{}", list.whole());

    let both = [&of_main, &of_linked].map(|it| it.as_object().expect("variables"));
    let ports: BTreeSet<String> =
        both.iter().flat_map(|it| it.values().map(ToString::to_string)).collect();
    assert_eq!(ports.len(), 6, "{of_main} {of_linked}");

    daemon.stop();
    let daemon = home.daemon();
    assert_eq!(
        (variables(&home, &main), variables(&home, &linked)),
        (of_main.clone(), of_linked.clone())
    );
    daemon.stop();
    reboot(&home);
    let _daemon = home.daemon();
    assert_eq!((variables(&home, &main), variables(&home, &linked)), (of_main, of_linked));
}

#[test]
fn whoever_comes_first_leaves_the_ports_of_styxy_toml_to_whom_they_are() {
    let home = Home::with_ports(64);
    let _daemon = home.daemon();
    let (main, linked) = (home.path("shop"), home.path("cart"));
    std::fs::create_dir(&main).expect("a directory");
    git(&home, &main, &["init", "--quiet"]);
    // Many, so that nobody keeps clear of it by chance.
    let (first, last) = home.dev_range();
    let declared: BTreeSet<u16> = (first..=last).take(20).collect();
    let section = |port: &u16| format!("[services.s{port}]\nport = {port}\n");
    name_services(&main, &declared.iter().map(section).collect::<String>());
    git(&home, &main, &["add", "styxy.toml"]);
    git(&home, &main, &["commit", "--quiet", "-m", "Name the services"]);
    git(&home, &main, &["worktree", "add", "--quiet", "../cart"]);

    let port_of = |directory, args: &[&str]| -> u16 {
        home.styxy_in(directory, args).ok().stdout.trim().parse().expect("a port")
    };
    for directory in [&linked, &main] {
        let unnamed = ["allocate", "-s", "dev"];
        let other = ["allocate", "-n", "other"];
        let run = ["run", "--", "printenv", "PORT"];
        for line in
            [&unnamed[..], &other, &run, &["run", "--also", "b", "--", "printenv", "B_PORT"]]
        {
            let port = port_of(directory, line);
            assert!(!declared.contains(&port), "{line:?} in {directory:?} got {port}");
        }
        home.styxy_in(directory, &["cleanup", "--force"]).ok();
    }
    let name = format!("s{first}");
    let port = port_of(&linked, &["run", "-n", &name, "--", "printenv", "PORT"]);
    assert!(!declared.contains(&port), "{port} is the main worktree's");
    assert_eq!(port_of(&main, &["run", "-n", &name, "--", "printenv", "PORT"]), first);
    assert_eq!(port_of(&main, &["allocate", "-n", &name]), first);
    let ports = variables(&home, &main);
    let ports = ports.as_object().expect("variables").values();
    assert!(ports.map(Value::as_u64).eq(declared.iter().map(|port| Some(u64::from(*port)))));
}

#[test]
fn a_program_that_came_first_keeps_the_port_and_the_service_keeps_its_new_one() {
    let home = Home::new();
    let _daemon = home.daemon();
    let port = home.dev_range().0 + 5;
    name_services(&home.work(), &styxy_toml(&home, port));
    let socket = crate::support::tcp_socket(&format!("127.0.0.1:{port}"), false, true);
    let first = variables(&home, &home.work());
    assert_ne!(first["WEB_PORT"], port, "somebody is there");
    drop(socket);
    assert_eq!(variables(&home, &home.work()), first, "it is the same in every shell from then on");
    // Whoever asks for the number moves it.
    let number = port.to_string();
    home.styxy(&["run", "-n", "web", "-p", &number, "--", "true"]).ok();
    assert_eq!(variables(&home, &home.work())["WEB_PORT"], port);
}
