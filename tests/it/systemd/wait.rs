//! Waiting for conditions and for commands, with a deadline.

use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// How long anything may take that has no promise of its own.
const PATIENCE: Duration = Duration::from_secs(30);

/// Looks again and again until `look` has something, and returns it. Panics with what was seen last
/// when that takes too long.
#[track_caller]
pub(super) fn eventually<T>(mut look: impl FnMut() -> Result<T, String>) -> T {
    let start = Instant::now();
    loop {
        match look() {
            Ok(found) => return found,
            Err(seen) => assert!(start.elapsed() < PATIENCE, "not in time; seen last: {seen}"),
        }
        thread::park_timeout(Duration::from_millis(2));
    }
}

/// What a command said.
#[derive(Debug)]
pub(super) struct Output {
    pub(super) command: String,
    pub(super) status: ExitStatus,
    pub(super) stdout: String,
    pub(super) stderr: String,
}

impl Output {
    /// Its stdout, if it went well.
    #[track_caller]
    pub(super) fn expect(&self) -> &str {
        let Self { command, status, stdout, stderr } = self;
        assert!(status.success(), "{command}\n{status}\n{stdout}\n{stderr}");
        stdout.trim_end()
    }
}

/// Runs `command` to its end.
#[track_caller]
pub(super) fn finish(command: &mut Command) -> Output {
    let shown = format!("{command:?}");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().unwrap_or_else(|error| panic!("{shown}: {error}"));
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || sender.send(child.wait_with_output()));
    let output = receiver.recv_timeout(PATIENCE * 2);
    let output = output.unwrap_or_else(|_| panic!("{shown} hangs"));
    let output = output.expect("a child can be waited for");
    Output {
        command: shown,
        status: output.status,
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}
