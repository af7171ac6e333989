//! What a finished command said.

use std::process::ExitStatus;

use serde_json::Value;

/// Exit code, stdout and stderr of one command. Its checks print all of it when they fail.
#[derive(Debug, Clone)]
pub(crate) struct Output {
    pub(crate) command: String,
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Output {
    /// The exit code; `None` after a signal.
    pub(crate) fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// Everything there is to show.
    pub(crate) fn whole(&self) -> String {
        let Self { command, status, stdout, stderr } = self;
        format!("$ {command}\n{status}\n--- stdout\n{stdout}\n--- stderr\n{stderr}\n---")
    }

    /// Checks the exit code.
    #[track_caller]
    pub(crate) fn exits(self, code: i32) -> Self {
        assert_eq!(self.code(), Some(code), "exit code\n{}", self.whole());
        self
    }

    /// Checks that the command did what it should.
    #[track_caller]
    pub(crate) fn ok(self) -> Self {
        self.exits(0)
    }

    /// Checks that stderr has `text`.
    #[track_caller]
    pub(crate) fn complains(self, text: &str) -> Self {
        assert!(self.stderr.contains(text), "no {text:?} on stderr\n{}", self.whole());
        self
    }

    /// stdout without the line's end.
    pub(crate) fn text(&self) -> &str {
        self.stdout.trim_end()
    }

    /// stdout as one port and nothing else.
    #[track_caller]
    pub(crate) fn port(&self) -> u16 {
        match self.text().parse() {
            Ok(port) => port,
            Err(error) => panic!("not a port alone: {error}\n{}", self.whole()),
        }
    }

    /// stdout as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        match serde_json::from_str(&self.stdout) {
            Ok(value) => value,
            Err(error) => panic!("not JSON: {error}\n{}", self.whole()),
        }
    }
}
