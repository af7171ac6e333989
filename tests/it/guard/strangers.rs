//! Another user of the machine, at every route, over both sockets; and a peer that nobody can name.

use std::os::unix::fs::PermissionsExt as _;
use std::{fs, io};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{
    Address, Connection, Home, PATIENCE, Reply, Request, STRANGER, as_user, eventually, is_root,
    owner, skip,
};

/// Every operation of the document, with a body and parameters that would do something.
fn every_operation(lock_id: &str) -> Vec<Request> {
    let document: Value = serde_json::from_str(include_str!("../../../src/http/openapi.json"))
        .expect("openapi.json is JSON");
    let mut requests = Vec::new();
    for (path, item) in document["paths"].as_object().expect("paths") {
        let path = path
            .replace("{lockId}", lock_id)
            .replace("{port}", "3000")
            .replace("{serviceType}", "dev")
            .replace("{id}", "agent");
        assert!(!path.contains('{'), "a parameter that this test does not know: {path}");
        for (method, operation) in item.as_object().expect("operations") {
            let method = method.to_ascii_uppercase();
            let body = json!({
                "service_type": "dev", "instance_id": "agent", "force": true, "lease_seconds": 1,
                "requests": [{ "service_type": "dev" }], "project_path": "/",
                "services": [{ "service_type": "dev", "service_name": "web" }],
            });
            requests.push(if operation["requestBody"].is_null() {
                Request::new(&method, &path)
            } else {
                Request::json(&method, &path, &body)
            });
        }
    }
    requests
}

/// Everything that the daemon keeps.
fn everything(home: &Home) -> [Value; 3] {
    ["/allocations", "/instance/list", "/assignments"].map(|path| home.get(path).expect(200))
}

/// A daemon with something of everything to take.
fn prepared(home: &Home, pid: u32) -> String {
    home.post("/instance/register", json!({ "instance_id": "agent", "process_id": pid }))
        .expect(201);
    let body = json!({ "service_type": "dev", "service_name": "web", "process_id": pid,
        "project_path": home.work(), "instance_id": "agent" });
    let answer = home.post("/allocate", body).expect(201);
    answer["lock_id"].as_str().expect("a lock id").to_owned()
}

fn send_as_stranger(address: &Address, requests: &[Request]) -> Vec<io::Result<Reply>> {
    as_user(STRANGER, || {
        let send = |request| Connection::open(address)?.send(request);
        requests.iter().map(send).collect()
    })
}

#[test]
fn another_user_is_refused_on_every_route_over_tcp_and_nothing_changes() {
    if !is_root() {
        return skip("being another user needs root");
    }
    let home = Home::new();
    let daemon = home.daemon();
    let owner = owner();
    let requests = every_operation(&prepared(&home, owner.pid()));
    let before = everything(&home);

    for (reply, request) in send_as_stranger(&home.tcp(), &requests).iter().zip(&requests) {
        let reply = reply.as_ref().unwrap_or_else(|error| panic!("{error}: {request:?}"));
        reply.refused(403, "forbidden_peer");
        assert!(!reply.body.contains(&home.path("").display().to_string()), "{reply:#?}");
    }
    assert_eq!(everything(&home), before);
    daemon.is_well(&home);
}

#[test]
fn another_user_cannot_even_connect_to_the_unix_socket() {
    if !is_root() {
        return skip("being another user needs root");
    }
    let home = Home::new();
    let daemon = home.daemon();
    let owner = owner();
    let requests = every_operation(&prepared(&home, owner.pid()));
    let before = everything(&home);
    // The way to it is open but for what the daemon made.
    for name in ["", "run"] {
        fs::set_permissions(home.path(name), fs::Permissions::from_mode(0o755)).expect("ours");
    }

    for reply in send_as_stranger(&home.unix(), &requests) {
        let error = reply.expect_err("the socket's folder is this user's alone");
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
    }

    // And where somebody has opened the folder and the socket, the daemon refuses itself.
    let folder = home.socket().parent().expect("a folder").to_owned();
    for (path, mode) in [(folder, 0o755), (home.socket(), 0o666)] {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("ours");
    }
    for reply in send_as_stranger(&home.unix(), &requests) {
        reply.expect("an answer").refused(403, "forbidden_peer");
    }
    assert_eq!(everything(&home), before);
    daemon.is_well(&home);
}

/// A client that is gone when the daemon looks has a socket without an owner, which the kernel
/// shows as root's.
#[test]
fn a_peer_that_nobody_can_name_changes_nothing() {
    use std::io::Write as _;

    let home = Home::new();
    let daemon = home.daemon();
    daemon.signal(Signal::STOP);
    let body = json!({ "service_type": "dev" }).to_string();
    let request = format!(
        "POST /allocate HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        home.daemon_port(),
        body.len()
    );
    for _ in 0..20 {
        let stream = std::net::TcpStream::connect(("127.0.0.1", home.daemon_port()));
        stream.expect("its backlog").write_all(request.as_bytes()).expect("an open connection");
    }
    daemon.signal(Signal::CONT);

    // They stood in the queue before this one.
    assert_eq!(home.allocations(), [Value::Null; 0]);
    eventually(PATIENCE, || {
        let journal = fs::read_to_string(home.journal()).map_err(|error| error.to_string())?;
        if journal.contains("\"allocation\"") { Err(journal) } else { Ok(()) }
    });
    daemon.is_well(&home);
}
