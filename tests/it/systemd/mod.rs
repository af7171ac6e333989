//! Styxy under a real `systemd --user`, with the units of this repository.

mod activation;
mod faults;
mod hardening;
mod idle;
mod machine;
mod replaced;
mod sockets;
mod takeover;
mod user;
mod wait;

use std::io::Write as _;

/// Names a test that this machine cannot run. Under `CI=true` that is a failure.
fn skip(reason: &str) {
    let name = std::thread::current().name().unwrap_or("a test").to_owned();
    let in_ci = std::env::var_os("CI").is_some_and(|value| value == "true");
    assert!(!in_ci, "{name} must not be skipped here: {reason}");
    // Not eprintln!, whose output the test runner keeps to itself when a test passes.
    let line = format!("SKIPPED: {name}: {reason}\n");
    std::io::stderr().write_all(line.as_bytes()).expect("a writable stderr");
}

/// Whether the long forms were asked for.
fn full() -> bool {
    std::env::var_os("STYXY_TEST_FULL").is_some_and(|value| value == "1")
}
