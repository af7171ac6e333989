//! Every peer with every head: each is served or refused as a second, plainer writing of the rules
//! says, and what was refused has changed nothing.
//!
//! The daemon is a user's own, not root's, so that root is a peer of its own kind.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use serde_json::json;

use super::no_cors;
use crate::support::{
    Address, Connection, Home, NOBODY, STRANGER, as_user, full, is_root, report, skip,
};

/// Where a request comes from.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Peer {
    Own,
    Root,
    Stranger,
}

/// Over which of the two sockets.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Over {
    Tcp,
    Unix,
}

/// A request's head, part by part. `None` leaves a header out.
#[derive(Debug, Clone)]
struct Case {
    hosts: Vec<String>,
    origin: Option<String>,
    site: Option<&'static str>,
    referer: Option<&'static str>,
    content_type: Option<&'static str>,
    method: &'static str,
}

/// Which code refuses a request, or none: the rules of the design, said again.
fn refusal(peer: Peer, over: Over, port: u16, case: &Case) -> Option<(u16, &'static str)> {
    let names = ["127.0.0.1", "localhost", "[::1]"];
    let with_port: Vec<_> = names.iter().map(|name| format!("{name}:{port}")).collect();
    let is_ours = |host: &str| match over {
        Over::Tcp => with_port.iter().any(|known| known == &host.to_ascii_lowercase()),
        // There is no port to be right or wrong.
        Over::Unix => names.iter().any(|name| {
            let host = host.to_ascii_lowercase();
            host == *name || host.strip_prefix(name).is_some_and(|rest| rest.starts_with(':'))
        }),
    };
    if peer == Peer::Stranger {
        return Some((403, "forbidden_peer"));
    }
    if !matches!(&case.hosts[..], [host] if is_ours(host)) {
        return Some((403, "forbidden_host"));
    }
    let is_own_page = |origin: &String| {
        over == Over::Tcp && with_port.iter().any(|own| *origin == format!("http://{own}"))
    };
    if case.origin.as_ref().is_some_and(|origin| !is_own_page(origin))
        || case.site.is_some_and(|site| !matches!(site, "same-origin" | "none"))
    {
        return Some((403, "forbidden_origin"));
    }
    let is_json = case.content_type.is_some_and(|it| {
        it.split(';').next().is_some_and(|it| it.eq_ignore_ascii_case("application/json"))
    });
    if case.method != "GET" && !is_json {
        return Some((415, "unsupported_media_type"));
    }
    (case.method == "PATCH").then_some((405, "method_not_allowed"))
}

/// The values of each part of a head.
fn hosts(port: u16) -> Vec<Vec<String>> {
    let other = port + 1;
    let one = [
        format!("127.0.0.1:{port}"),
        format!("localhost:{port}"),
        format!("LOCALHOST:{port}"),
        format!("[::1]:{port}"),
        "127.0.0.1".to_owned(),
        "localhost".to_owned(),
        "LocalHost".to_owned(),
        "[::1]".to_owned(),
        format!("127.0.0.1:{other}"),
        format!("localhost:{other}"),
        format!("[::1]:{other}"),
        format!("localhost.:{port}"),
        format!("127.0.0.1.:{port}"),
        format!("127.1:{port}"),
        format!("2130706433:{port}"),
        format!("0.0.0.0:{port}"),
        format!("evil.example:{port}"),
        "evil.example".to_owned(),
        format!("localhost.evil.example:{port}"),
        format!("evil.example@localhost:{port}"),
        format!("[::ffff:127.0.0.1]:{port}"),
        String::new(),
    ];
    let own = format!("127.0.0.1:{port}");
    let twice = ["evil.example".to_owned(), own.clone()];
    let mut hosts: Vec<_> = one.into_iter().map(|host| vec![host]).collect();
    hosts.extend([vec![], vec![own.clone(), own.clone()], twice.to_vec()]);
    hosts.push(twice.into_iter().rev().collect());
    hosts
}

fn origins(port: u16) -> Vec<Option<String>> {
    let origins = [
        format!("http://127.0.0.1:{port}"),
        format!("http://localhost:{port}"),
        format!("https://127.0.0.1:{port}"),
        "http://127.0.0.1:5173".to_owned(),
        "http://evil.example".to_owned(),
        format!("http://evil.example:{port}"),
        "null".to_owned(),
        String::new(),
    ];
    std::iter::once(None).chain(origins.into_iter().map(Some)).collect()
}

const SITES: [Option<&str>; 6] =
    [None, Some("none"), Some("same-origin"), Some("same-site"), Some("cross-site"), Some("")];
const REFERERS: [Option<&str>; 2] = [None, Some("http://evil.example/page")];
const CONTENT_TYPES: [Option<&str>; 5] = [
    Some("application/json"),
    Some("Application/JSON; charset=utf-8"),
    Some("text/plain"),
    Some("application/x-www-form-urlencoded"),
    None,
];
const METHODS: [&str; 3] = ["POST", "GET", "PATCH"];

/// All combinations of Host, Origin and Sec-Fetch-Site. The long form has each with every other
/// part; in the short one the other parts take turns.
fn cases(port: u16) -> Vec<Case> {
    let mut rest = Vec::new();
    for referer in REFERERS {
        for content_type in CONTENT_TYPES {
            rest.extend(METHODS.map(|method| (referer, content_type, method)));
        }
    }
    let mut turns = rest.iter().cycle();
    let mut cases = Vec::new();
    for hosts in hosts(port) {
        for origin in origins(port) {
            for site in SITES {
                let count = if full() { rest.len() } else { 1 };
                cases.extend(turns.by_ref().take(count).map(|(referer, content_type, method)| {
                    let (hosts, origin) = (hosts.clone(), origin.clone());
                    let (referer, content_type) = (*referer, *content_type);
                    Case { hosts, origin, site, referer, content_type, method }
                }));
            }
        }
    }
    cases
}

impl Case {
    /// The request's bytes. It registers an instance of that name, where it is one that may.
    fn bytes(&self, name: &str) -> Vec<u8> {
        let body = json!({ "instance_id": name }).to_string();
        let body = if self.method == "GET" { "" } else { &body };
        let path = if self.method == "GET" { "/instance/list" } else { "/instance/register" };
        let mut text = format!("{} {path} HTTP/1.1\r\n", self.method);
        let hosts = self.hosts.iter().map(|host| ("Host", host.as_str()));
        let others = [
            ("Origin", self.origin.as_deref()),
            ("Sec-Fetch-Site", self.site),
            ("Referer", self.referer),
            ("Content-Type", self.content_type),
        ];
        let others = others.into_iter().filter_map(|(name, value)| Some((name, value?)));
        for (name, value) in hosts.chain(others) {
            text.extend([name, ": ", value, "\r\n"]);
        }
        let length = body.len().to_string();
        text.extend(["Content-Length: ", &length, "\r\n\r\n", body]);
        text.into_bytes()
    }
}

/// Sends every case from one peer over one socket, and checks each answer. The number that was
/// served.
fn send_all(address: &Address, peer: Peer, over: Over, port: u16, cases: &[Case]) -> usize {
    let mut connection = Connection::open(address).expect("a daemon");
    let mut served = 0;
    for (number, case) in cases.iter().enumerate() {
        let expected = refusal(peer, over, port, case);
        let name = if expected.is_none() { "invited" } else { &format!("{peer:?}-{number}") };
        let reply = connection.send_bytes(&case.bytes(name)).expect("an answer");
        no_cors(&reply);
        if let Some((status, code)) = expected {
            assert_eq!(reply.status, status, "{peer:?} over {over:?}: {case:#?} {reply:#?}");
            reply.refused(status, code);
        } else {
            assert!(matches!(reply.status, 200 | 201), "{peer:?} {over:?} {case:#?} {reply:#?}");
            served += 1;
        }
        if reply.header("Connection") == Some("close") {
            connection = Connection::open(address).expect("a daemon");
        }
    }
    served
}

#[test]
fn every_peer_with_every_head_is_served_or_refused_as_the_rules_say() {
    if !is_root() {
        return skip("being another user needs root");
    }
    let home = Home::new();
    let daemon = home.daemon_of_nobody();
    // Else the stranger would not even reach it.
    let folder = home.socket().parent().expect("a folder").to_owned();
    for (path, mode) in
        [(home.path(""), 0o755), (home.path("run"), 0o755), (folder, 0o755), (home.socket(), 0o666)]
    {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("root may");
    }
    let port = home.daemon_port();
    let cases = cases(port);

    let mut served = 0;
    for (over, address) in [(Over::Tcp, home.tcp()), (Over::Unix, home.unix())] {
        for (peer, uid) in [(Peer::Own, NOBODY), (Peer::Root, 0), (Peer::Stranger, STRANGER)] {
            let sent = || send_all(&address, peer, over, port, &cases);
            let count = as_user(uid, sent);
            assert_eq!(count == 0, peer == Peer::Stranger, "{peer:?} over {over:?}");
            served += count;
        }
    }

    let body = home.get("/instance/list").expect(200);
    let names: Vec<_> = body["instances"].as_array().expect("a list").iter().collect();
    assert!(names.iter().all(|it| it["instance_id"] == "invited"), "{body:#}");
    assert_eq!(names.len(), 1, "{body:#}");
    daemon.is_well(&home);
    report(&format!("{} requests, {served} of them served", 6 * cases.len()));
}
