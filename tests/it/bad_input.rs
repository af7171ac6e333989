//! Bad input gets the code that the interface promises, over HTTP and on the command line, and
//! nothing panics.

use serde_json::{Value, json};

use crate::support::{Connection, Home, Reply, Request, owner, tcp_socket};

#[test]
fn unknown_routes() {
    let home = Home::new();
    let daemon = home.daemon();
    for path in ["/", "/nothing", "/allocate/a/b/c", "/check", "/statuss", "/allocate/../status"] {
        home.get(path).refused(404, "unknown_route");
        home.send(&Request::json("POST", path, &json!({}))).refused(404, "unknown_route");
    }
    home.get("/status/").refused(404, "unknown_route");
    daemon.is_well(&home);
}

#[test]
fn wrong_methods() {
    let home = Home::new();
    let daemon = home.daemon();
    for (method, path, allowed) in [
        ("GET", "/allocate", "POST"),
        ("PUT", "/allocate", "POST"),
        ("POST", "/status", "GET"),
        ("DELETE", "/allocations", "GET"),
        ("PATCH", "/cleanup", "POST"),
        ("GET", "/allocate/0e0b8c9e-3f0a-4a52-9d2c-6a3a4a1f8e11", "DELETE"),
        ("POST", "/instance/list", "GET"),
        ("DELETE", "/check/3000", "GET"),
        ("BREW", "/status", "GET"),
    ] {
        let reply = home.send(&Request::new(method, path));
        reply.refused(405, "method_not_allowed");
        // RFC 9110, section 15.5.6.
        let allow = reply.header("Allow").unwrap_or_default();
        assert!(allow.contains(allowed), "{method} {path}: {reply:#?}");
    }
    daemon.is_well(&home);
}

#[test]
fn broken_json() {
    let home = Home::new();
    let daemon = home.daemon();
    for path in ["/allocate", "/allocate/batch", "/instance/register", "/assign", "/cleanup"] {
        for body in ["{", "nonsense", "{\"service_type\":", "\u{0}", "'a'"] {
            let request = Request::new("POST", path).body("application/json", body);
            home.send(&request).refused(400, "malformed_request");
        }
        let request = Request::new("POST", path).body("application/json", vec![b'"', 0xff, b'"']);
        home.send(&request).refused(400, "malformed_request");
    }
    let trailing = Request::new("POST", "/allocate");
    let trailing = trailing.body("application/json", "{\"service_type\":\"dev\"}}");
    home.send(&trailing).refused(400, "malformed_request");
    daemon.is_well(&home);
}

/// JSON, but of another shape than the interface says.
#[test]
fn json_of_the_wrong_shape() {
    let home = Home::new();
    let daemon = home.daemon();
    for body in ["", "[]", "[\"dev\"]", "1", "null", "\"dev\"", "true", &"[".repeat(60_000)] {
        let reply = home.send(&Request::new("POST", "/allocate").body("application/json", body));
        assert!(matches!(reply.status, 400 | 422), "{body}: {reply:#?}");
        let code = reply.json()["code"].clone();
        assert!(code == "malformed_request" || code == "invalid_value", "{body}: {reply:#?}");
    }
    daemon.is_well(&home);
}

#[test]
fn bodies_that_are_not_json_by_their_type() {
    let home = Home::new();
    let daemon = home.daemon();
    let body = json!({ "service_type": "dev" }).to_string();
    for content_type in
        ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""]
    {
        let request = Request::new("POST", "/allocate").body(content_type, body.clone());
        home.send(&request).refused(415, "unsupported_media_type");
    }
    let mut bare = Connection::open(&home.tcp()).expect("a daemon");
    let text = format!(
        "POST /allocate HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nContent-Length: {}\r\n\r\n{body}",
        home.daemon_port(),
        body.len()
    );
    bare.send_bytes(text.as_bytes()).expect("an answer").refused(415, "unsupported_media_type");
    assert_eq!(home.allocations(), [Value::Null; 0]);

    for content_type in ["application/json", "application/json; charset=utf-8", "Application/JSON"]
    {
        let request = Request::new("POST", "/allocate").body(content_type, body.clone());
        home.send(&request).expect(201);
    }
    daemon.is_well(&home);
}

#[test]
fn bodies_that_are_too_large() {
    let home = Home::new();
    let daemon = home.daemon();
    let padded = |size: usize| {
        let mut body = json!({ "service_type": "dev" }).to_string();
        body.push_str(&" ".repeat(size - body.len()));
        Request::new("POST", "/allocate").body("application/json", body)
    };
    home.send(&padded(64 * 1024)).expect(201);
    home.send(&padded(64 * 1024 + 1)).refused(413, "body_too_large");
    home.send(&padded(4 * 1024 * 1024)).refused(413, "body_too_large");
    let lie = Request::new("POST", "/allocate")
        .header("Content-Type", "application/json")
        .header("Content-Length", "99999999999");
    home.send(&lie).refused(413, "body_too_large");

    // Without a length: in chunks.
    let mut chunked = format!(
        "POST /allocate HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nContent-Type: application/json\r\n\
         Transfer-Encoding: chunked\r\n\r\n",
        home.daemon_port()
    );
    let chunk = format!("400\r\n{}\r\n", " ".repeat(1024));
    let padding = chunk.repeat(63);
    let body = "{\"service_type\":\r\n4\r\n\"dev\r\n2\r\n\"}";
    let end = "0\r\n\r\n";
    let fits = format!("{chunked}10\r\n{body}\r\n{padding}{end}");
    home.connect().send_bytes(fits.as_bytes()).expect("an answer").expect(201);
    chunked.push_str(&chunk.repeat(70));
    chunked.push_str(end);
    let reply = home.connect().send_bytes(chunked.as_bytes()).expect("an answer");
    reply.refused(413, "body_too_large");
    daemon.is_well(&home);
}

/// `POST /allocate` with one field more.
fn allocate_with(home: &Home, field: &str, value: &Value) -> Reply {
    let mut body = json!({ "service_type": "dev" });
    body[field] = value.clone();
    home.post("/allocate", body)
}

#[test]
fn each_field_of_an_allocation_with_values_that_cannot_be() {
    let home = Home::new();
    let daemon = home.daemon();
    for (field, values) in [
        ("preferred_port", vec![json!(0), json!(-1), json!(65536), json!("80"), json!(80.5)]),
        ("service_name", vec![json!(""), json!(7), json!("x".repeat(5000))]),
        ("protocol", vec![json!("sctp"), json!("TCP"), json!(6)]),
        ("if_running", vec![json!("kill"), json!(true)]),
        ("lock_id", vec![json!("not-a-uuid"), json!(""), json!(1)]),
        ("project_path", vec![json!("relative/path"), json!(""), json!(["a"])]),
        ("lease_seconds", vec![json!(0), json!(-1), json!("1m"), json!(u64::MAX)]),
        ("process_id", vec![json!(-1), json!("1"), json!(5_000_000_000_u64)]),
        ("previous_process_id", vec![json!(-1), json!("1"), json!(5_000_000_000_u64)]),
        ("process_start_time", vec![json!("yesterday"), json!(-1)]),
        ("instance_id", vec![json!(1), json!("x".repeat(5000))]),
        ("exact", vec![json!("yes"), json!(1)]),
        ("avoid_ports", vec![json!(80), json!([0]), json!(["80"]), json!(vec![8000; 65])]),
        ("dry_run", vec![json!("yes")]),
        ("implicit_owner", vec![json!("yes")]),
        ("service_type", vec![json!(1), Value::Null]),
    ] {
        for value in values {
            let reply = allocate_with(&home, field, &value);
            let body = reply.refused(422, "invalid_value");
            let named = body["context"]["field"].as_str().unwrap_or_default();
            assert!(named.contains(field), "{field}: {value}: names {named:?}: {reply:#?}");
        }
    }
    let missing = home.post("/allocate", json!({})).refused(422, "invalid_value");
    assert_eq!(missing["context"]["field"], "service_type", "{missing:#}");
    assert_eq!(home.allocations(), [Value::Null; 0]);
    daemon.is_well(&home);
}

#[test]
fn absent_and_null_are_the_same() {
    let home = Home::new();
    let _daemon = home.daemon();
    for field in [
        "service_name",
        "preferred_port",
        "exact",
        "avoid_ports",
        "process_id",
        "previous_process_id",
        "process_start_time",
        "implicit_owner",
        "pid_namespace",
        "instance_id",
        "project_path",
        "lease_seconds",
        "protocol",
        "if_running",
        "lock_id",
        "dry_run",
    ] {
        allocate_with(&home, field, &Value::Null).expect(201);
    }
}

#[test]
fn an_unknown_service_type_is_told_the_nearest() {
    let home = Home::new();
    let _daemon = home.daemon();
    for (given, nearest) in [("dve", "dev"), ("storybok", "storybook"), ("Test", "test")] {
        let reply = home.post("/allocate", json!({ "service_type": given }));
        let body = reply.refused(422, "unknown_service_type");
        assert!(body.to_string().contains(nearest), "{body:#}");
        home.get(&format!("/suggest/{given}")).refused(422, "unknown_service_type");
        let output = home.styxy(&["allocate", "-s", given]);
        assert!(matches!(output.code(), Some(1 | 2)), "{}", output.whole());
        assert_eq!(output.stdout, "", "{}", output.whole());
        output.complains(nearest);
    }
}

#[test]
fn bad_path_and_query_parameters() {
    let home = Home::new();
    let daemon = home.daemon();
    for path in [
        "/check/0",
        "/check/65536",
        "/check/abc",
        "/check/-1",
        "/check/%zz",
        "/check/3000?protocol=sctp",
        "/suggest/dev?count=0",
        "/suggest/dev?count=-1",
        "/suggest/dev?count=many",
        "/suggest/dev?count=99999999999999999999",
        "/suggest/dev?count=1&count=2",
        "/scan?start=0",
        "/scan?end=%31%30x",
    ] {
        let reply = home.get(path);
        let body = reply.json();
        let pair = (reply.status, body["code"].as_str().unwrap_or_default());
        let promised = [(400, "malformed_request"), (422, "invalid_value")];
        assert!(promised.contains(&pair), "{path}: {reply:#?}");
    }
    home.delete("/allocate/not-a-uuid").refused(404, "unknown_lock");
    let unknown = "/allocate/0e0b8c9e-3f0a-4a52-9d2c-6a3a4a1f8e11";
    home.delete(unknown).refused(404, "unknown_lock");
    home.post(&format!("{unknown}/renew"), json!({})).refused(404, "unknown_lock");
    home.delete("/instance/nobody").refused(404, "unknown_instance");
    home.send(&Request::new("PUT", "/instance/nobody/heartbeat")).refused(404, "unknown_instance");
    home.post("/instance/heartbeat", json!({ "instance_id": "nobody" }))
        .refused(404, "unknown_instance");
    daemon.is_well(&home);
}

#[test]
fn batches_are_all_or_none() {
    let home = Home::new();
    let daemon = home.daemon();
    let one = json!({ "service_type": "dev" });
    home.post("/allocate/batch", json!({ "requests": [] })).refused(422, "invalid_value");
    home.post("/allocate/batch", json!({ "requests": vec![one.clone(); 65] }))
        .refused(422, "invalid_value");
    home.post("/allocate/batch", json!({})).refused(422, "invalid_value");
    home.post("/allocate/batch", json!({ "requests": [one, { "service_type": "nothing" }] }))
        .refused(422, "unknown_service_type");
    let taken = tcp_socket(&format!("127.0.0.1:{}", home.spare_port(0)), false, true);
    let exact = json!({
        "service_type": "dev", "preferred_port": home.spare_port(0), "exact": true,
    });
    home.post("/allocate/batch", json!({ "requests": [one, one, exact] }))
        .refused(409, "port_unavailable");
    drop(taken);
    assert_eq!(home.allocations(), [Value::Null; 0]);
    daemon.is_well(&home);
}

#[test]
fn instances_and_assignments_with_values_that_cannot_be() {
    let home = Home::new();
    let daemon = home.daemon();
    for body in [
        json!({ "instance_id": "" }),
        json!({ "instance_id": 7 }),
        json!({ "working_directory": "relative" }),
        json!({ "metadata": "text" }),
        json!({ "process_id": "1" }),
    ] {
        home.post("/instance/register", body).refused(422, "invalid_value");
    }
    home.post("/instance/register", json!({ "process_id": i32::MAX }))
        .refused(422, "unknown_process");
    home.post("/instance/heartbeat", json!({})).refused(422, "invalid_value");

    let service = json!({ "service_type": "dev", "service_name": "web" });
    for body in [
        json!({ "project_path": "relative", "services": [service] }),
        json!({ "services": [service] }),
        json!({ "project_path": home.work() }),
        json!({ "project_path": home.work(), "services": [{ "service_type": "dev" }] }),
    ] {
        home.post("/assign", body).refused(422, "invalid_value");
    }
    let unknown = json!({ "service_type": "nothing", "service_name": "web" });
    let body = json!({ "project_path": home.work(), "services": [service, unknown] });
    home.post("/assign", body).refused(422, "unknown_service_type");
    let none = home.get("/assignments").expect(200);
    assert_eq!(none["assignments"], json!([]), "all or none: {none:#}");
    daemon.is_well(&home);
}

#[test]
fn a_full_range_is_said_with_who_fills_it() {
    let home = Home::new();
    let _daemon = home.daemon();
    let owner = owner();
    let request = json!({ "service_type": "api", "process_id": owner.pid() });
    // Four of its own range, and four of the overflow range.
    for _ in 0..8 {
        home.post("/allocate", request.clone()).expect(201);
    }
    let body = home.post("/allocate", request).refused(503, "range_exhausted");
    let (first, last) = home.api_range();
    let text = body.to_string();
    assert!(text.contains(&first.to_string()) && text.contains(&last.to_string()), "{body:#}");
    home.styxy(&["allocate", "-s", "api"]).exits(75);
}
