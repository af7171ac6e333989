//! `GET /scan` and `styxy scan`: every port in use, and by whom.

use serde_json::{Value, json};

use crate::support::{Home, owner, port_of, serve, udp_socket};

/// The entries of one port.
fn entries(scan: &Value, port: u16) -> Vec<&Value> {
    let all = scan["ports_in_use"].as_array().expect("a list");
    all.iter().filter(|entry| entry["port"] == port).collect()
}

#[test]
fn a_scan_has_what_is_used_and_what_is_allocated_with_who_it_is() {
    let home = Home::new();
    let _daemon = home.daemon();
    let owner = owner();
    let (reserved, served) = (home.allocate_for(owner.pid()), home.allocate_for(owner.pid()));
    let lock_id = served["lock_id"].as_str().expect("a lock id");
    let own = serve(home.command("python3").env("STYXY_LOCK_ID", lock_id), port_of(&served));
    let foreign = serve(home.command("python3").current_dir("/"), home.spare_port(0));
    let _datagrams = udp_socket(&format!("127.0.0.1:{}", home.spare_port(0)), false);

    let scan = home.get("/scan").expect(200);

    assert_eq!(scan["scan_range"], "1-65535");
    let [waiting] = entries(&scan, port_of(&reserved))[..] else { panic!("{scan:#}") };
    assert_eq!(waiting["allocated_to"]["lock_id"], reserved["lock_id"]);
    assert_eq!(waiting["system_usage"], Value::Null);

    let [listening] = entries(&scan, port_of(&served))[..] else { panic!("{scan:#}") };
    assert_eq!(listening["allocated_to"]["lock_id"], served["lock_id"]);
    assert_eq!(listening["allocated_to"]["state"], "listening", "{listening:#}");
    assert_eq!(listening["allocated_to"]["listener"]["pid"], own.pid(), "{listening:#}");
    assert_eq!(listening["system_usage"]["process"]["pid"], own.pid());

    let [tcp, udp] = entries(&scan, home.spare_port(0))[..] else { panic!("{scan:#}") };
    assert_eq!((&tcp["allocated_to"], &udp["allocated_to"]), (&Value::Null, &Value::Null));
    assert_eq!(tcp["system_usage"]["protocol"], "tcp");
    assert_eq!(tcp["system_usage"]["container"], Value::Null);
    let process = &tcp["system_usage"]["process"];
    assert_eq!((&process["pid"], &process["cwd"]), (&json!(foreign.pid()), &json!("/")));
    assert_eq!(udp["system_usage"]["protocol"], "udp");
    assert_eq!(udp["system_usage"]["process"]["pid"], std::process::id());
}

#[test]
fn a_scan_keeps_to_its_range_and_is_in_order() {
    let home = Home::new();
    let _daemon = home.daemon();
    let body = json!({ "service_type": "dev", "protocol": "both" });
    let port = port_of(&home.post("/allocate", body).expect(201));
    let _server = serve(&mut home.command("python3"), home.spare_port(1));

    let scan = home.get(&format!("/scan?start={port}&end={port}")).expect(200);
    assert_eq!(scan["scan_range"], format!("{port}-{port}"));
    assert_eq!(scan["ports_in_use"].as_array().map(Vec::len), Some(1), "{scan:#}");

    let scan = home.get(&format!("/scan?start={}", home.daemon_port())).expect(200);
    let ports: Vec<u64> = scan["ports_in_use"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|entry| entry["port"].as_u64())
        .collect();
    assert!(ports.is_sorted(), "{ports:?}");
    assert_eq!(ports[0], u64::from(home.daemon_port()), "the daemon's own port is in use");
    assert!(ports.contains(&u64::from(home.spare_port(1))), "{ports:?}");
}

#[test]
fn a_connected_udp_socket_is_a_clients() {
    let home = Home::new();
    let _daemon = home.daemon();
    let socket = udp_socket(&format!("127.0.0.1:{}", home.spare_port(0)), false);
    let at = format!("/scan?start={0}&end={0}", home.spare_port(0));
    assert_eq!(entries(&home.get(&at).expect(200), home.spare_port(0)).len(), 1);

    let peer: std::net::SocketAddr = ([127, 0, 0, 1], 9).into();
    socket.connect(&peer.into()).expect("UDP connects to anything");

    assert!(entries(&home.get(&at).expect(200), home.spare_port(0)).is_empty());
    let check = home.get(&format!("/check/{}?protocol=udp", home.spare_port(0))).expect(200);
    assert_eq!(check["available"], false, "it keeps the port all the same: {check:#}");
}

#[test]
fn a_bad_range_is_refused_with_the_field() {
    let home = Home::new();
    let _daemon = home.daemon();
    for (query, field) in [
        ("start=0", "start"),
        ("start=x", "start"),
        ("end=65536", "end"),
        ("end=-1", "end"),
        ("start=9&end=8", "end"),
    ] {
        let refused = home.get(&format!("/scan?{query}")).refused(422, "invalid_value");
        assert_eq!(refused["context"]["field"], field, "{query}: {refused:#}");
    }
}

#[test]
fn the_table_names_port_protocol_program_place_and_allocation() {
    let home = Home::new();
    let _daemon = home.daemon();
    let port = home.styxy(&["allocate", "-n", "web"]).ok().port();
    let server = serve(&mut home.command("python3"), port);

    let table = home.styxy(&["scan", &port.to_string()]).ok();

    let words: Vec<&str> = table.text().split_whitespace().collect();
    let pid = format!("{})", server.pid());
    let work = home.work().display().to_string();
    let expected = [&port.to_string(), "tcp", "python3", "(pid", &pid, &work];
    assert_eq!(&words[..6], expected, "{}", table.whole());
    assert_eq!(&words[6..], ["dev/web", "(listening)"], "{}", table.whole());

    home.styxy(&["scan", "9-8"]).exits(2).complains("8 is below 9");
    home.styxy(&["scan", "0"]).exits(2);
}

#[test]
fn a_scan_works_on_the_journal_too() {
    let home = Home::new();
    let mut command = home.styxy_command(&["allocate"]);
    let port = crate::support::finish(command.env("STYXY_AUTOSTART", "0")).ok().port();
    let mut command = home.styxy_command(&["scan", "--json", &port.to_string()]);
    let scan = crate::support::finish(command.env("STYXY_AUTOSTART", "0")).ok().json();
    assert_eq!(entries(&scan, port).len(), 1, "{scan:#}");
}
