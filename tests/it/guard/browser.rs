//! A real browser with pages of somebody else: nothing changes and nothing is readable.

use std::process::Stdio;

use serde_json::{Value, json};

use crate::support::{
    Home, PATIENCE, Running, Site, eventually, has_program, is_root, owner, skip,
};

/// The attacks of a page, against every base of `TARGETS`; what it could read goes to `REPORT`.
const ATTACKS: &str = include_str!("attacks.js");

/// Headless Chromium with one page open, until it is dropped. Every `*.test` is this machine.
fn browse(home: &Home, url: &str) -> Running {
    let mut command = home.command("chromium");
    command.args([
        "--headless",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--disable-dev-shm-usage",
        "--host-resolver-rules=MAP *.test 127.0.0.1",
        // What this browser would forbid such a page by itself: others don't.
        "--disable-features=LocalNetworkAccessChecks,HttpsUpgrades",
    ]);
    command.arg(format!("--user-data-dir={}", home.path("chromium").display()));
    if is_root() {
        command.arg("--no-sandbox");
    }
    command.arg(url).stdin(Stdio::null()).stdout(Stdio::null());
    command.stderr(std::fs::File::create(home.path("chromium.log")).expect("a file"));
    Running::spawn(&mut command)
}

/// A page that attacks these bases and reports to that address.
fn page(targets: &[String], report: &str) -> String {
    let targets = json!(targets);
    format!(
        "<!doctype html><body><script>const TARGETS = {targets}, REPORT = {report:?};\n\
         {ATTACKS}</script>"
    )
}

/// What a page must never read.
#[track_caller]
fn says_nothing(home: &Home, seen: &str, lock_id: &str) {
    let secrets = [lock_id, "port_range", "state.jsonl", "uptime", "openapi"];
    let place = home.path("").display().to_string();
    for secret in secrets.into_iter().chain([&*place]) {
        assert!(!seen.contains(secret), "the page has read {secret}: {seen}");
    }
}

/// A daemon that has something to take: the lock id, and all that it keeps.
fn everything(home: &Home) -> [Value; 3] {
    ["/allocations", "/instance/list", "/assignments"].map(|path| home.get(path).expect(200))
}

#[test]
fn a_page_of_another_origin_changes_nothing_and_reads_nothing() {
    if !has_program("chromium") {
        return skip("there is no chromium");
    }
    let home = Home::new();
    let daemon = home.daemon();
    let owner = owner();
    let lock_id = home.allocate_for(owner.pid())["lock_id"].clone();
    let lock_id = lock_id.as_str().expect("a lock id");
    let before = everything(&home);

    let (port, victim, own) = (home.daemon_port(), home.spare_port(0), home.spare_port(1));
    // A server without a guard shows that the browser does send all this.
    let unguarded = Site::open(victim, "<!doctype html>secret");
    let targets = ["127.0.0.1", "localhost", "evil.test"].map(|it| format!("http://{it}:{port}"));
    let targets = [&targets[..], &[format!("http://127.0.0.1:{victim}")]].concat();
    let report = format!("http://page.test:{own}/report");
    let author = Site::open(own, &page(&targets, &report));
    let browser = browse(&home, &format!("http://page.test:{own}/"));
    let seen = eventually(PATIENCE * 3, || author.report("/report"));

    let seen: Value = serde_json::from_str(&seen).expect("JSON");
    let seen = seen.as_array().expect("a list");
    assert_eq!(seen.len(), targets.len() * 14, "{seen:#?}");
    for attempt in seen {
        let [base, name, read] = [0, 1, 2].map(|n| attempt[n].as_str().expect("a text"));
        says_nothing(&home, read, lock_id);
        let is_blind = ["blocked", "error", "", "sent"].contains(&read);
        assert!(is_blind, "{name} of {base} has read {read}");
    }
    let visits = unguarded.visits();
    for what in [
        "POST /allocate",
        "OPTIONS /allocate",
        "OPTIONS /allocate/LOCK",
        "GET /allocations",
        "GET /check/3000",
        "GET /config",
        "GET /status",
        "GET /events",
        "POST /cleanup",
    ] {
        assert!(visits.iter().any(|visit| visit.what == what), "no {what}: {visits:#?}");
    }
    let upgrades = |it: &String| it == "upgrade: websocket";
    assert!(visits.iter().any(|visit| visit.headers.iter().any(upgrades)), "{visits:#?}");
    let is_simple = |it: &String| it.starts_with("content-type: text/plain");
    assert!(visits.iter().any(|visit| visit.headers.iter().any(is_simple)), "{visits:#?}");

    assert_eq!(everything(&home), before);
    drop(browser);
    daemon.is_well(&home);
}

/// DNS rebinding: the name of the page's own site leads to the daemon after the page has come, so
/// that the page and the daemon are the same origin.
#[test]
fn a_page_whose_name_leads_to_the_daemon_later_changes_nothing() {
    if !has_program("chromium") {
        return skip("there is no chromium");
    }
    let home = Home::new();
    let (port, own) = (home.daemon_port(), home.spare_port(0));
    let base = format!("http://evil.test:{port}");
    let ear = Site::open(own, "");
    let report = format!("http://evil.test:{own}/report");
    let author = Site::open(port, &page(std::slice::from_ref(&base), &report));
    let browser = browse(&home, &format!("{base}/?rebind"));
    eventually(PATIENCE * 3, || ear.report("/report/loaded"));
    drop(author);
    let daemon = home.daemon();
    let owner = owner();
    let lock_id = home.allocate_for(owner.pid())["lock_id"].clone();
    let before = everything(&home);

    let seen = eventually(PATIENCE * 3, || ear.report("/report"));
    says_nothing(&home, &seen, lock_id.as_str().expect("a lock id"));
    // The browser lets it read: that it was refused.
    assert!(seen.contains("forbidden_host"), "{seen}");
    assert!(!seen.contains("201"), "{seen}");
    assert_eq!(everything(&home), before);
    drop(browser);
    daemon.is_well(&home);
}
