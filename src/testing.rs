//! What the tests of every layer share.

use std::io::Write as _;

/// Names a test that this machine cannot run. Under `CI=true` that is a failure.
#[track_caller]
pub(crate) fn skip(reason: &str) {
    let name = std::thread::current().name().unwrap_or("a test").to_owned();
    assert!(
        std::env::var_os("CI").is_none_or(|value| value != "true"),
        "{name} must not be skipped here: {reason}"
    );
    // Not eprintln!, whose output the test runner keeps to itself when a test passes.
    let line = format!("SKIPPED: {name}: {reason}\n");
    std::io::stderr().write_all(line.as_bytes()).expect("a writable stderr");
}
