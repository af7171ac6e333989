//! What goes wrong, in three lines and an exit code.

use clap::builder::styling::{AnsiColor, Style};
use serde_json::Value;

use super::output::{self, View, printable, url};
use super::words;
use crate::api::{Allocation, ErrorResponse, SystemUsage};
use crate::client;

const ERROR: Style = AnsiColor::Red.on_default().bold();
const TRY: Style = Style::new().bold();

/// The exit codes other than 0 (sysexits.h for those from 64 on, POSIX sh for 126 and 127).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum Exit {
    /// The answer is no.
    No = 1,
    /// Wrong usage.
    Usage = 2,
    /// The daemon can't be reached or started.
    Unreachable = 69,
    /// The state can't be written.
    State = 74,
    /// No port is free in the range: try later.
    TryLater = 75,
    /// Refused: not yours.
    NotYours = 77,
    /// The configuration is wrong.
    Config = 78,
    /// `run`: the command can't be executed.
    NotExecutable = 126,
    /// `run`: the command is not found.
    NotFound = 127,
}

impl Exit {
    /// The number.
    pub(super) fn code(self) -> u8 {
        self as u8
    }

    /// The exit code of each refusal that the wire knows, by its stable name.
    fn of(code: &str) -> Option<Self> {
        Some(match code {
            "port_unavailable" | "unknown_lock" | "unknown_instance" | "already_running"
            | "lock_id_conflict" => Self::No,
            "malformed_request"
            | "invalid_value"
            | "unknown_service_type"
            | "unknown_process"
            | "body_too_large"
            | "unsupported_media_type" => Self::Usage,
            // A daemon of another version, or one that does not serve this client now.
            "unknown_route" | "method_not_allowed" | "foreign_namespace" | "shutting_down" => {
                Self::Unreachable
            }
            "state_not_writable" => Self::State,
            "range_exhausted" => Self::TryLater,
            "forbidden_peer" | "forbidden_host" | "forbidden_origin" => Self::NotYours,
            _ => return None,
        })
    }
}

/// Why a command failed, in the words of the person who typed it.
#[derive(Debug)]
pub(super) struct Failed {
    /// The exit code.
    pub(super) exit: Exit,
    fact: String,
    holder: Option<String>,
    next: Option<String>,
    /// What `--json` prints.
    response: Option<Box<ErrorResponse>>,
}

impl Failed {
    /// A failure of which no more is known than the fact.
    pub(super) fn new(exit: Exit, fact: impl Into<String>) -> Self {
        Self { exit, fact: fact.into(), holder: None, next: None, response: None }
    }

    /// With a second line: who is in the way.
    #[must_use]
    pub(super) fn holder(mut self, holder: impl Into<String>) -> Self {
        self.holder = Some(holder.into());
        self
    }

    /// With a third line: what to type next.
    #[must_use]
    pub(super) fn next(mut self, next: impl Into<String>) -> Self {
        self.next = Some(next.into());
        self
    }

    /// The same failure with another exit code.
    #[must_use]
    pub(super) fn exit(mut self, exit: Exit) -> Self {
        self.exit = exit;
        self
    }

    /// A refusal of the daemon.
    fn refused(response: Box<ErrorResponse>, view: &View) -> Self {
        let exit = Exit::of(&response.code).unwrap_or(Exit::No);
        let mut failed = Self::new(exit, response.error.clone());
        failed.next = response.suggestions().next().map(str::to_owned);
        match response.code.as_str() {
            "port_unavailable" => failed.port_unavailable(&response, view),
            "already_running" => failed.already_running(&response, view),
            "range_exhausted" => failed.holder = filled_by(&response),
            _ => {}
        }
        failed.response = Some(response);
        failed
    }

    fn port_unavailable(&mut self, response: &ErrorResponse, view: &View) {
        let holder = response.context.get("holder");
        let part = |name| holder.and_then(|holder| holder.get(name)).cloned().unwrap_or_default();
        let allocated_to: Option<Allocation> = read(part("allocated_to"));
        let usage: Option<SystemUsage> = read(part("system_usage"));
        // A coding agent reads this too, and should not start to look for the fault in its code.
        self.holder = words::holder(view, allocated_to.as_ref(), usage.as_ref())
            .map(|who| format!("held by {who}: another program, not an error in this code"));
        if let Some(instead) = response.context.get("instead").and_then(Value::as_u64) {
            self.next = Some(format!("the same without --exact    (would get {instead})"));
        }
    }

    fn already_running(&mut self, response: &ErrorResponse, view: &View) {
        let running = response.context.get("running").cloned().unwrap_or_default();
        let Some(running) = read::<Allocation>(running) else { return };
        let name = running.service_name.as_deref().unwrap_or(&running.service_type);
        self.fact = format!("{name} runs already: {}", url(running.port));
        self.holder = words::holder(view, Some(&running), None).map(|who| format!("held by {who}"));
        self.next = Some("--reuse to print its URL, --another to start a second one".to_owned());
    }

    /// Nobody answered.
    fn unreachable(reason: String, holder: Option<String>) -> Self {
        let next = match holder {
            Some(_) => "set STYXY_DAEMON_PORT, or listen in the configuration, to another port",
            None => "styxy daemon start",
        };
        let mut context = serde_json::Map::new();
        context.insert("holder".to_owned(), Value::from(holder.clone()));
        context.insert("suggestions".to_owned(), Value::from(vec![next]));
        let response = crate::error::response("unreachable", &reason, context);
        // The reason may name the holder already, as one of the places that were tried.
        let holder = holder.filter(|holder| !reason.contains(holder.as_str()));
        let mut failed = Self::new(Exit::Unreachable, reason).next(next);
        failed.holder = holder;
        failed.response = Some(Box::new(response));
        failed
    }

    /// Says it on stderr and, where JSON is wanted and there was an answer, on stdout as well.
    pub(super) fn report(&self, json: bool) {
        if let (true, Some(response)) = (json, &self.response) {
            let body = serde_json::to_string(response).unwrap_or_default();
            if let Err(unwritable) = output::print_json(&body) {
                output::print_error_line(&unwritable.lines());
            }
        }
        output::print_error_line(&self.lines());
    }

    /// The fact, the holder, the next command.
    pub(super) fn lines(&self) -> String {
        let fact = format!("{ERROR}error:{ERROR:#} {}", printable(&self.fact));
        let holder = self.holder.as_deref().map(|holder| format!("  {}", printable(holder)));
        let next =
            self.next.as_deref().map(|next| format!("  {TRY}try:{TRY:#} {}", printable(next)));
        let lines = [Some(fact), holder, next];
        lines.into_iter().flatten().collect::<Vec<_>>().join("\n")
    }
}

impl From<client::Failure> for Failed {
    fn from(failure: client::Failure) -> Self {
        match failure {
            client::Failure::Refused(response) => Self::refused(response, &View::current()),
            client::Failure::Unreachable { reason, holder } => Self::unreachable(reason, holder),
        }
    }
}

/// A part of a context. What an older or newer daemon says differently is left out.
fn read<T: serde::de::DeserializeOwned>(value: Value) -> Option<T> {
    serde_json::from_value(value).ok()
}

/// Who fills a range, on one line.
fn filled_by(response: &ErrorResponse) -> Option<String> {
    let lines = response.context.get("filled_by")?.as_array()?;
    let lines: Vec<&str> = lines.iter().filter_map(Value::as_str).collect();
    (!lines.is_empty()).then(|| format!("held by {}", lines.join("; ")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::words::tests::{usage, view, web};
    use super::*;
    use crate::error::Error;

    fn plain(error: &Error) -> (Exit, String) {
        let failed = Failed::refused(Box::new(error.to_response()), &view());
        (failed.exit, anstream::adapter::strip_str(&failed.lines()).to_string())
    }

    #[test]
    fn every_refusal_of_the_domain_has_its_exit_code() {
        let id = || "5d0bbf0c-3e0e-4f0e-9d3c-111111111111".to_owned();
        let table = [
            (Error::MalformedRequest("x".into()), Exit::Usage),
            (Error::invalid("lease_seconds", "is 0"), Exit::Usage),
            (
                Error::UnknownServiceType { given: "dve".into(), nearest: None, known: vec![] },
                Exit::Usage,
            ),
            (Error::UnknownProcess { pid: 1, reason: "does not exist".into() }, Exit::Usage),
            (Error::UnknownLock(id()), Exit::No),
            (Error::UnknownInstance("a".into()), Exit::No),
            (unavailable(), Exit::No),
            (Error::AlreadyRunning { running: Box::new(web()) }, Exit::No),
            (Error::LockIdConflict { lock_id: id(), port: 1 }, Exit::No),
            (Error::ForeignNamespace, Exit::Unreachable),
            (exhausted(), Exit::TryLater),
            (Error::ShuttingDown, Exit::Unreachable),
            (Error::StateNotWritable("full".into()), Exit::State),
        ];
        for (error, exit) in table {
            assert_eq!(Exit::of(error.code()), Some(exit), "{}", error.code());
        }
    }

    #[test]
    fn the_refusals_of_the_guard_have_their_exit_codes() {
        for code in ["forbidden_peer", "forbidden_host", "forbidden_origin"] {
            assert_eq!(Exit::of(code), Some(Exit::NotYours), "{code}");
        }
        for code in ["body_too_large", "unsupported_media_type"] {
            assert_eq!(Exit::of(code), Some(Exit::Usage), "{code}");
        }
        for code in ["unknown_route", "method_not_allowed"] {
            assert_eq!(Exit::of(code), Some(Exit::Unreachable), "{code}");
        }
        assert_eq!(Exit::of("of_a_later_version"), None);
    }

    #[test]
    fn exit_codes_are_the_documented_numbers() {
        let codes =
            [Exit::No, Exit::Usage, Exit::Unreachable, Exit::State, Exit::TryLater].map(Exit::code);
        assert_eq!(codes, [1, 2, 69, 74, 75]);
        let codes = [Exit::NotYours, Exit::Config, Exit::NotExecutable, Exit::NotFound];
        assert_eq!(codes.map(Exit::code), [77, 78, 126, 127]);
    }

    fn unavailable() -> Error {
        Error::PortUnavailable {
            port: 5173,
            reason: "is taken".into(),
            allocated_to: Some(Box::new(web())),
            system_usage: None,
            instead: Some(5174),
        }
    }

    fn exhausted() -> Error {
        Error::RangeExhausted {
            service_type: "storybook".into(),
            range: "6006-6010".into(),
            filled_by: vec!["~/src/a: 3".into(), "~/src/b: 2".into()],
        }
    }

    #[test]
    fn a_taken_port_is_explained_in_three_lines() {
        assert_eq!(
            plain(&unavailable()),
            (
                Exit::No,
                "error: port 5173 is taken\n  held by vite (pid 812) in ~/src/shop, allocated 14 \
                 minutes ago as dev/web: another program, not an error in this code\n  try: the \
                 same without --exact    (would get 5174)"
                    .to_owned()
            )
        );
    }

    #[test]
    fn a_stranger_on_the_port_is_named() {
        let error = Error::PortUnavailable {
            port: 9000,
            reason: "is taken".into(),
            allocated_to: None,
            system_usage: Some(Box::new(usage())),
            instead: None,
        };
        let (_, lines) = plain(&error);
        assert_eq!(
            lines,
            "error: port 9000 is taken\n  held by a process of another user (uid 4294967288): \
             another program, not an error in this code\n  try: ask without exact"
        );
    }

    #[test]
    fn what_runs_already_is_said_with_url_pid_and_age() {
        let (exit, lines) = plain(&Error::AlreadyRunning { running: Box::new(web()) });
        assert_eq!(exit, Exit::No);
        assert_eq!(
            lines,
            "error: web runs already: http://localhost:5173\n  held by vite (pid 812) in \
             ~/src/shop, allocated 14 minutes ago as dev/web\n  try: --reuse to print its URL, \
             --another to start a second one"
        );
    }

    #[test]
    fn a_full_range_names_who_fills_it() {
        let (_, lines) = plain(&exhausted());
        assert!(lines.contains("\n  held by ~/src/a: 3; ~/src/b: 2\n"), "{lines}");
    }

    #[test]
    fn who_listens_instead_of_the_daemon_is_named_once() {
        let stranger = "another program (karma, pid 812) listens on 127.0.0.1:9876";
        let named = format!("no daemon answers ({stranger})");
        let said = |reason: &str| {
            let failed = Failed::unreachable(reason.to_owned(), Some(stranger.to_owned()));
            assert_eq!(failed.exit, Exit::Unreachable);
            failed.lines().matches("karma").count()
        };
        assert_eq!((said("no daemon answers"), said(&named)), (1, 1));
    }

    #[test]
    fn an_answer_of_another_version_is_no_reason_to_stumble() {
        let response = json!({
            "success": false, "error": "no\u{1b}[2J", "code": "port_unavailable",
            "context": { "holder": 7, "suggestions": "none" },
        });
        let response: ErrorResponse = serde_json::from_value(response).expect("an error");
        let failed = Failed::refused(Box::new(response), &view());
        let lines = anstream::adapter::strip_str(&failed.lines()).to_string();
        assert_eq!(lines, "error: no\\u{1b}[2J");
    }
}
