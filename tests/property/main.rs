//! Property tests: what holds for any input, tried with many.

mod fuzz;
mod journal;
mod registry;

use std::io::Write as _;

/// Whether the long forms were asked for (`STYXY_TEST_FULL=1`).
fn full() -> bool {
    std::env::var_os("STYXY_TEST_FULL").is_some_and(|value| value == "1")
}

/// Says how much a test covered that has a short and a long form. Not by eprintln!, whose output
/// the test runner keeps to itself when a test passes.
fn report(covered: &str) {
    let name = std::thread::current().name().unwrap_or("a test").to_owned();
    let line = format!("COVERED: {name}: {covered}\n");
    std::io::stderr().write_all(line.as_bytes()).expect("a writable stderr");
}
