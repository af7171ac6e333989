//! The interface, field by field: every documented field is there, null and never missing.

mod allocations;
mod projects;

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use serde_json::{Value, json};

use crate::support::{Connection, Home, Reply, Request, port_of, tcp_socket};

const ALLOCATION: &[&str] = &[
    "port",
    "protocol",
    "service_type",
    "service_name",
    "process_id",
    "process_start_time",
    "instance_id",
    "project_path",
    "allocated_at",
    "lock_id",
    "expires_at",
    "implicit_owner",
    "state",
    "listener",
];
const ALLOCATED: &[&str] =
    &["success", "port", "lock_id", "message", "reused", "allocation", "also_running", "notes"];
/// Checks that no documented field is missing. Others may be there.
#[track_caller]
fn has(value: &Value, fields: &[&str]) {
    let object = value.as_object().unwrap_or_else(|| panic!("no object: {value:#}"));
    let missing: BTreeSet<_> =
        fields.iter().filter(|field| !object.contains_key(**field)).collect();
    assert!(missing.is_empty(), "{missing:?} missing in {value:#}");
}

/// Checks RFC 3339 UTC with milliseconds.
#[track_caller]
fn is_time(value: &Value) {
    let text = value.as_str().unwrap_or_else(|| panic!("no time: {value}"));
    let shape: String = text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    assert_eq!(shape, "0000-00-00T00:00:00.000Z", "{text}");
}

#[track_caller]
fn is_allocation(value: &Value) {
    has(value, ALLOCATION);
    is_time(&value["allocated_at"]);
    if !value["expires_at"].is_null() {
        is_time(&value["expires_at"]);
    }
}

#[track_caller]
fn is_styxys_json(reply: &Reply) {
    let server = reply.header("Server").unwrap_or_default();
    assert_eq!(server, format!("styxy/{}", env!("CARGO_PKG_VERSION")), "{reply:#?}");
    let content_type = reply.header("Content-Type").unwrap_or_default();
    assert!(content_type.starts_with("application/json"), "{reply:#?}");
    assert!(reply.header("Access-Control-Allow-Origin").is_none(), "{reply:#?}");
}

#[test]
fn every_answer_carries_the_server_and_is_json() {
    let home = Home::new();
    let _daemon = home.daemon();
    for address in [home.tcp(), home.unix()] {
        let mut connection = Connection::open(&address).expect("a daemon");
        for request in [
            Request::new("GET", "/status"),
            Request::json("POST", "/allocate", &json!({ "service_type": "dev" })),
            Request::json("POST", "/allocate", &json!({ "service_type": "nothing" })),
            Request::new("POST", "/allocate").body("text/plain", "x"),
            Request::new("GET", "/nothing"),
            Request::new("PUT", "/status"),
            Request::new("GET", "/openapi.json"),
            Request::new("GET", "/status").header("Origin", "http://evil.example"),
        ] {
            is_styxys_json(&connection.send(&request).expect("an answer"));
        }
    }
    let garbage = home.connect().send_bytes(b"\x16\x03\x01 not HTTP\r\n\r\n");
    assert!(garbage.map_or(true, |reply| reply.status == 400));
}

/// RFC 9110, 9.3.2.
#[test]
fn a_head_is_a_get_without_its_content() {
    let home = Home::new();
    let _daemon = home.daemon();
    let host = format!("Host: localhost:{}\r\n", home.daemon_port());
    for path in ["/status", "/events", "/allocations"] {
        let mut stream = TcpStream::connect(("127.0.0.1", home.daemon_port())).expect("a daemon");
        let requests = format!(
            "HEAD {path} HTTP/1.1\r\n{host}\r\n\
             GET /status HTTP/1.1\r\n{host}Connection: close\r\n\r\n"
        );
        stream.write_all(requests.as_bytes()).expect("sent");
        let mut answers = String::new();
        stream.read_to_string(&mut answers).expect("both, and the end");
        let (head, rest) = answers.split_once("\r\n\r\n").expect("a head");
        assert!(head.starts_with("HTTP/1.1 200 ") && head.contains("content-type: "), "{head}");
        assert!(rest.starts_with("HTTP/1.1 200 ") && rest.ends_with('}'), "{path}: {rest}");
    }
}

#[test]
fn check() {
    let home = Home::new();
    let _daemon = home.daemon();
    let fields = ["port", "available", "allocated_to", "system_usage"];
    let (first, _) = home.dev_range();

    let free = home.get(&format!("/check/{first}")).expect(200);
    has(&free, &fields);
    let nothing = json!({
        "port": first, "available": true, "allocated_to": null, "system_usage": null,
    });
    assert_eq!(free, nothing);

    let _socket = tcp_socket(&format!("127.0.0.1:{first}"), false, true);
    let used = home.get(&format!("/check/{first}?protocol=tcp")).expect(200);
    has(&used, &fields);
    let usage = &used["system_usage"];
    has(usage, &["protocol", "local_address", "uid", "process", "container"]);
    has(&usage["process"], &["pid", "name", "command", "cwd"]);
    assert_eq!(usage["uid"], rustix::process::geteuid().as_raw(), "{used:#}");
    let cwd = std::env::current_dir().expect("a directory");
    assert_eq!(usage["process"]["cwd"], json!(cwd), "{used:#}");

    let made = home.allocate_for(std::process::id());
    let allocated = home.get(&format!("/check/{}", port_of(&made))).expect(200);
    has(&allocated, &fields);
    assert_eq!(allocated["available"], false, "{allocated:#}");
    is_allocation(&allocated["allocated_to"]);
    assert_eq!(allocated["allocated_to"]["lock_id"], made["lock_id"]);
}

#[test]
fn suggest() {
    let home = Home::new();
    let _daemon = home.daemon();
    for (query, count) in [("", 5), ("?count=1", 1), ("?count=12", 12)] {
        let body = home.get(&format!("/suggest/dev{query}")).expect(200);
        has(&body, &["service_type", "suggestions", "count", "message"]);
        assert_eq!(body["service_type"], "dev");
        assert_eq!(body["count"], count, "{body:#}");
        let ports: BTreeSet<_> =
            body["suggestions"].as_array().expect("a list").iter().map(Value::as_u64).collect();
        assert_eq!(ports.len(), count, "{body:#}");
    }
    assert_eq!(home.allocations(), [Value::Null; 0], "nothing is reserved");
}

#[test]
fn status() {
    let home = Home::new();
    let daemon = home.daemon();
    home.post("/allocate", json!({ "service_type": "dev" })).expect(201);
    home.post("/instance/register", json!({})).expect(201);
    let status = home.get("/status").expect(200);
    has(
        &status,
        &[
            "status",
            "version",
            "pid",
            "uptime",
            "allocations",
            "instances",
            "started_at",
            "listening",
            "state_dir",
        ],
    );
    assert_eq!(status["status"], "running");
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(status["pid"], daemon.pid());
    assert_eq!((&status["allocations"], &status["instances"]), (&json!(1), &json!(1)));
    assert!(status["uptime"].as_f64().is_some_and(|seconds| (0.0..60.0).contains(&seconds)));
    is_time(&status["started_at"]);
    let tcp = format!("127.0.0.1:{}", home.daemon_port());
    let unix = format!("unix:{}", home.socket().display());
    let listening: BTreeSet<_> =
        status["listening"].as_array().expect("a list").iter().filter_map(Value::as_str).collect();
    assert_eq!(listening, BTreeSet::from([tcp.as_str(), unix.as_str()]));
    assert_eq!(status["state_dir"], json!(home.state_dir().expect("a state directory")));
}

#[test]
fn cleanup() {
    let home = Home::new();
    let _daemon = home.daemon();
    home.post("/allocate", json!({ "service_type": "dev" })).expect(201);
    for (body, cleaned) in
        [(json!({}), 0), (json!({ "force": null }), 0), (json!({ "force": true }), 1)]
    {
        let answer = home.post("/cleanup", body).expect(200);
        has(&answer, &["success", "cleaned", "released", "message"]);
        assert_eq!(answer["cleaned"], cleaned, "{answer:#}");
        answer["released"].as_array().expect("a list").iter().for_each(is_allocation);
    }
}

#[test]
fn config_and_openapi() {
    let home = Home::new();
    let _daemon = home.daemon();
    let config = home.get("/config").expect(200);
    let (first, last) = home.dev_range();
    assert_eq!(config["service"]["dev"]["port_range"], json!([first, last]), "{config:#}");
    let built_in = ["storybook", "test", "docs", "database", "infrastructure"];
    has(&config["service"], &built_in);

    let document = home.get("/openapi.json").expect(200);
    assert!(document["openapi"].as_str().is_some_and(|version| version.starts_with("3.1")));
    has(
        &document["paths"],
        &[
            "/allocate",
            "/allocate/batch",
            "/allocate/{lockId}/renew",
            "/allocate/{lockId}",
            "/check/{port}",
            "/suggest/{serviceType}",
            "/instance/register",
            "/instance/heartbeat",
            "/instance/{id}/heartbeat",
            "/instance/list",
            "/instance/{id}",
            "/status",
            "/cleanup",
            "/assignments",
            "/assign",
            "/allocations",
            "/config",
            "/openapi.json",
        ],
    );
}
