//! What all tests share, those of the library and those of the program, which take in this file.

use std::io::Write as _;

/// Names a test that this machine cannot run. Under `CI=true` that is a failure.
#[track_caller]
pub(crate) fn skip(reason: &str) {
    let name = std::thread::current().name().unwrap_or("a test").to_owned();
    assert!(
        std::env::var_os("CI").is_none_or(|value| value != "true"),
        "{name} must not be skipped here: {reason}"
    );
    say(&format!("SKIPPED: {name}: {reason}"));
}

/// Says something that is to be seen also when the test passes: the test runner keeps the output of
/// eprintln! to itself then.
pub(crate) fn say(line: &str) {
    std::io::stderr().write_all(format!("{line}\n").as_bytes()).expect("a writable stderr");
}
