//! Who may speak to the daemon: this user's programs, and no web page and nobody else.

mod browser;
mod matrix;
mod strangers;

use serde_json::json;

use crate::support::{
    Connection, Home, PATIENCE, Reply, Request, finish, has_program, owner, skip,
};

/// Every route that changes something or says something.
fn every_kind_of_request(lock_id: &str) -> Vec<Request> {
    let allocate = json!({ "service_type": "dev" });
    let register = json!({ "instance_id": "intruder" });
    vec![
        Request::json("POST", "/allocate", &allocate),
        Request::json("POST", "/allocate/batch", &json!({ "requests": [allocate] })),
        Request::json("POST", &format!("/allocate/{lock_id}/renew"), &json!({})),
        Request::new("DELETE", &format!("/allocate/{lock_id}")),
        Request::json("POST", "/cleanup", &json!({ "force": true })),
        Request::json("POST", "/instance/register", &register),
        Request::json("POST", "/instance/heartbeat", &register),
        Request::json("POST", "/assign", &json!({ "project_path": "/", "services": [] })),
        Request::new("GET", "/status"),
        Request::new("GET", "/allocations"),
        Request::new("GET", "/instance/list"),
        Request::new("GET", "/check/3000"),
        Request::new("GET", "/suggest/dev"),
        Request::new("GET", "/config"),
        Request::new("GET", "/openapi.json"),
        Request::new("GET", "/no/such/route"),
        Request::new("OPTIONS", "/allocate"),
    ]
}

/// Sends everything with those headers: all of it is refused, and nothing has changed.
#[track_caller]
fn all_is_refused(headers: &[(&str, &str)], code: &str) {
    let home = Home::new();
    let daemon = home.daemon();
    let owner = owner();
    let answer = home.allocate_for(owner.pid());
    let before = home.allocations();
    let lock_id = answer["lock_id"].as_str().expect("a lock id");

    for address in [home.tcp(), home.unix()] {
        for request in every_kind_of_request(lock_id) {
            let request =
                headers.iter().fold(request, |request, (name, value)| request.header(name, value));
            let mut connection = Connection::open(&address).expect("a daemon");
            let reply = connection.send(&request).expect("an answer");
            reply.refused(403, code);
            no_cors(&reply);
        }
    }

    assert_eq!(home.allocations(), before);
    let instances = home.get("/instance/list").expect(200);
    assert_eq!(instances["instances"], json!([]), "{instances:#}");
    daemon.is_well(&home);
}

#[track_caller]
fn no_cors(reply: &Reply) {
    let cors = |name: &str| name.to_ascii_lowercase().starts_with("access-control-");
    assert!(!reply.headers.iter().any(|(name, _)| cors(name)), "{reply:#?}");
}

#[test]
fn a_foreign_host_is_refused() {
    all_is_refused(&[("Host", "evil.example")], "forbidden_host");
}

#[test]
fn only_loopback_names_with_the_daemons_port_are_hosts_on_tcp() {
    let home = Home::new();
    let _daemon = home.daemon();
    let port = home.daemon_port();
    let ask = |host: &str| home.send(&Request::new("GET", "/status").header("Host", host));
    for good in ["127.0.0.1", "localhost", "LocalHost", "[::1]"] {
        ask(&format!("{good}:{port}")).expect(200);
    }
    let other = port + 1;
    for bad in [
        format!("evil.example:{port}"),
        format!("127.0.0.1:{other}"),
        format!("localhost.evil.example:{port}"),
        format!("127.0.0.1.evil.example:{port}"),
        format!("evil.example@127.0.0.1:{port}"),
        format!("127.0.0.2:{port}"),
        "127.0.0.1".to_owned(),
        "localhost".to_owned(),
        String::new(),
    ] {
        ask(&bad).refused(403, "forbidden_host");
    }
}

#[test]
fn a_request_without_host_or_with_two_is_not_served() {
    let home = Home::new();
    let daemon = home.daemon();
    let port = home.daemon_port();
    for head in [
        "POST /cleanup HTTP/1.1\r\n\r\n".to_owned(),
        "POST /cleanup HTTP/1.0\r\n\r\n".to_owned(),
        format!("POST /cleanup HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nHost: evil.example\r\n\r\n"),
        format!("POST /cleanup HTTP/1.1\r\nHost: evil.example\r\nHost: 127.0.0.1:{port}\r\n\r\n"),
    ] {
        let reply = home.connect().send_bytes(head.as_bytes()).expect("an answer");
        assert!(matches!(reply.status, 400 | 403), "{head:?} {reply:#?}");
    }
    daemon.is_well(&home);
}

#[test]
fn over_the_unix_socket_a_host_needs_no_port() {
    let home = Home::new();
    let _daemon = home.daemon();
    for host in ["localhost", "127.0.0.1", "[::1]", "localhost:80"] {
        let mut connection = Connection::open(&home.unix()).expect("a daemon");
        let request = Request::new("GET", "/status").header("Host", host);
        connection.send(&request).expect("an answer").expect(200);
    }
}

#[test]
fn a_foreign_origin_is_refused() {
    all_is_refused(&[("Origin", "https://evil.example")], "forbidden_origin");
    all_is_refused(&[("Origin", "null")], "forbidden_origin");
    all_is_refused(&[("Origin", "http://127.0.0.1:5173")], "forbidden_origin");
}

#[test]
fn a_cross_site_fetch_is_refused() {
    for site in ["cross-site", "same-site", "nonsense"] {
        all_is_refused(&[("Sec-Fetch-Site", site)], "forbidden_origin");
    }
}

#[test]
fn the_daemons_own_origin_and_a_fetch_of_no_site_are_served() {
    let home = Home::new();
    let _daemon = home.daemon();
    let own = format!("http://127.0.0.1:{}", home.daemon_port());
    for (name, value) in [
        ("Origin", own.as_str()),
        ("Sec-Fetch-Site", "same-origin"),
        ("Sec-Fetch-Site", "none"),
        // Node's fetch sends this one always.
        ("Sec-Fetch-Mode", "cors"),
    ] {
        let reply = home.send(&Request::new("GET", "/status").header(name, value));
        reply.expect(200);
        no_cors(&reply);
    }
}

#[test]
fn another_user_cannot_reach_the_unix_socket_or_the_state() {
    use std::os::unix::fs::PermissionsExt as _;

    let home = Home::new();
    let _daemon = home.daemon();
    home.allocate_for(std::process::id());
    let mode = |path: &std::path::Path| {
        std::fs::metadata(path).expect("it exists").permissions().mode() & 0o777
    };
    let state = home.state_dir().expect("a state directory");
    assert_eq!(mode(&state), 0o700);
    assert_eq!(mode(&home.journal()), 0o600);
    assert_eq!(mode(&home.socket()), 0o600);
    let folder = home.socket().parent().expect("a folder").to_owned();
    assert_eq!(mode(&folder), 0o700);
}

#[test]
fn a_peer_that_hung_up_at_once_changes_nothing() {
    use std::io::Write as _;

    let home = Home::new();
    let daemon = home.daemon();
    for _ in 0..100 {
        let stream = std::net::TcpStream::connect(("127.0.0.1", home.daemon_port()));
        let mut stream = stream.expect("a daemon");
        stream.write_all(b"GET /status HTTP/1.1\r\n").expect("an open connection");
    }
    daemon.is_well(&home);
}

#[test]
fn curl_works_over_both_sockets() {
    let home = Home::new();
    let _daemon = home.daemon();
    let url = format!("http://127.0.0.1:{}/allocate", home.daemon_port());
    let body = r#"{"service_type":"dev"}"#;
    let mut curl = home.command("curl");
    curl.args(["-sS", "--fail-with-body", "--json", body, &url]);
    let tcp = finish(&mut curl).ok().json();
    let mut curl = home.command("curl");
    curl.args(["-sS", "--fail-with-body", "--json", body, "http://localhost/allocate"]);
    let unix = finish(curl.arg("--unix-socket").arg(home.socket())).ok().json();
    assert_ne!(tcp["port"], unix["port"]);
}

#[test]
fn nodes_fetch_works() {
    if !has_program("node") {
        return skip("there is no node");
    }
    let home = Home::new();
    let _daemon = home.daemon();
    let script = format!(
        "const url = 'http://127.0.0.1:{}';
         const made = await fetch(url + '/allocate', {{
           method: 'POST', headers: {{ 'content-type': 'application/json' }},
           body: JSON.stringify({{ service_type: 'dev' }}),
         }});
         const answer = await made.json();
         const released = await fetch(url + '/allocate/' + answer.lock_id, {{ method: 'DELETE' }});
         console.log(JSON.stringify([made.status, answer.port, released.status]));",
        home.daemon_port()
    );
    let mut node = home.command("node");
    let output = finish(node.args(["--input-type=module", "-e", &script])).ok();
    let answer = output.json();
    assert_eq!((&answer[0], &answer[2]), (&json!(201), &json!(200)), "{}", output.whole());
    assert!(answer[1].is_u64(), "{}", output.whole());
}

#[test]
fn a_slow_head_is_cut_off_and_others_are_served_meanwhile() {
    use std::io::{Read as _, Write as _};

    let home = Home::new();
    let daemon = home.daemon();
    let stream = std::net::TcpStream::connect(("127.0.0.1", home.daemon_port()));
    let mut slow = stream.expect("a daemon");
    slow.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    slow.write_all(b"GET /status HTTP/1.1\r\nX-Slow: ").expect("an open connection");
    let start = std::time::Instant::now();
    daemon.is_well(&home);

    // Headers have 10 s to come. Whatever is answered then, the connection ends.
    let mut rest = Vec::new();
    slow.read_to_end(&mut rest).expect("the daemon closes it");
    let waited = start.elapsed().as_secs();
    assert!((8..15).contains(&waited), "after {waited} s");
}
