//! A daemon in the foreground.

use std::fs::File;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use rustix::process::Signal;
use serde_json::Value;

use super::{Home, PATIENCE, Running, eventually};

/// `styxy daemon run` of one home, killed and reaped when dropped.
#[derive(Debug)]
pub(crate) struct Daemon {
    process: Running,
    log: PathBuf,
}

impl Daemon {
    /// Starts it and waits until it answers.
    #[track_caller]
    pub(super) fn start(home: &Home) -> Self {
        Self::spawn(home, &mut home.styxy_command(&["daemon", "run"]))
    }

    /// Starts it with another command than the usual one, which becomes `styxy daemon run`.
    #[track_caller]
    pub(crate) fn spawn(home: &Home, command: &mut Command) -> Self {
        let log = home.path("daemon.log");
        let file = File::options().create(true).append(true).open(&log).expect("a log file");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(file);
        let mut daemon = Self { process: Running::spawn(command), log };
        let pid = daemon.pid();
        eventually(PATIENCE, || {
            if let Some(status) = daemon.process.try_wait() {
                panic!("the daemon ended: {status}\n{}", daemon.log());
            }
            match home.try_get("/status") {
                Ok(reply) if reply.json()["pid"] == pid => Ok(()),
                answer => Err(format!("{answer:?}\n{}", daemon.log())),
            }
        });
        daemon
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// How many descriptors it has open.
    pub(crate) fn descriptors(&self) -> usize {
        let list = std::fs::read_dir(format!("/proc/{}/fd", self.pid()));
        list.expect("a living daemon").count()
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// What it, and the daemons before it in the same home, wrote to stderr.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// SIGKILL: it saves nothing.
    pub(crate) fn crash(mut self) {
        self.process.kill();
    }

    /// SIGTERM, and waits for its end, which must be a clean one.
    #[track_caller]
    pub(crate) fn stop(mut self) {
        self.process.signal(Signal::TERM);
        let status = self.process.wait();
        assert!(status.success(), "{status} ({:?})\n{}", status.signal(), self.log());
    }

    /// Checks that it lives, answers and has not panicked.
    #[track_caller]
    pub(crate) fn is_well(&self, home: &Home) -> Value {
        let log = self.log();
        assert!(!log.contains("panicked"), "it panicked\n{log}");
        let status = home.get("/status").expect(200);
        assert_eq!(status["pid"], self.pid(), "another daemon answers: {status:#}\n{log}");
        status
    }
}
