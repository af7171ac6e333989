//! `styxy doctor`: all that Styxy needs, a line each, with what to do. It starts no daemon.

mod daemon;
mod machine;
mod places;
mod units;

use std::process::ExitCode;

use clap::builder::styling::AnsiColor;
use serde::Serialize;

use super::context::{Context, to_json};
use super::failure::{Exit, Failed};
use super::output::{self, Cell, Table, printable};
use crate::client::survey;
use crate::config::Config;
use crate::paths::Paths;
use crate::store;

pub(super) fn run(context: &Context) -> Result<ExitCode, Failed> {
    let findings = examine();
    if context.global.json {
        output::print_json(&to_json(&findings)?)?;
    } else {
        output::print(&table(&findings).render(false))?;
    }
    let fails = findings.iter().any(|finding| finding.status == Status::Fail);
    Ok(ExitCode::from(if fails { Exit::No.code() } else { 0 }))
}

/// How a check went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Status {
    Ok,
    Warn,
    Fail,
}

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Finding {
    /// Which check: a name that stays from version to version.
    check: &'static str,
    status: Status,
    /// One sentence without its full stop.
    message: String,
    /// What to do about it.
    suggestion: Option<String>,
}

impl Finding {
    fn ok(check: &'static str, message: impl Into<String>) -> Self {
        Self { check, status: Status::Ok, message: message.into(), suggestion: None }
    }

    /// Something works less well than it could.
    fn warn(
        check: &'static str,
        message: impl Into<String>,
        suggestion: impl Into<String>,
    ) -> Self {
        let suggestion = Some(suggestion.into());
        Self { check, status: Status::Warn, message: message.into(), suggestion }
    }

    /// Something does not work.
    fn fail(
        check: &'static str,
        message: impl Into<String>,
        suggestion: impl Into<String>,
    ) -> Self {
        Self { status: Status::Fail, ..Self::warn(check, message, suggestion) }
    }
}

fn examine() -> Vec<Finding> {
    let paths = match Paths::from_env() {
        Ok(paths) => paths,
        Err(reason) => {
            let places = Finding::fail("places", reason, "set HOME");
            return [vec![places], machine::check()].concat();
        }
    };
    let (config, diagnostics) = Config::load(&paths.config_files);
    let journal = store::inspect(&paths.state_dir);
    let mut findings = match survey::look(&paths, &config) {
        Ok(survey) => {
            let mut findings = daemon::check(&paths, &survey);
            findings.extend(units::check(&config, &survey));
            findings
        }
        Err(failure) => {
            vec![Finding::fail("environment", failure.to_string(), "unset it, or mend it")]
        }
    };
    findings.push(places::configuration(&paths, &diagnostics));
    findings.extend(places::directories(&paths));
    findings.extend(places::journal(&paths, &journal));
    let modified = journal.ok().flatten().and_then(|journal| journal.modified);
    findings.push(machine::clock(modified));
    findings.push(machine::port_ranges(&config));
    findings.extend(machine::check());
    findings
}

fn table(findings: &[Finding]) -> Table<3> {
    let mut table = Table::new(["", "CHECK", "RESULT"]);
    for Finding { check, status, message, suggestion } in findings {
        let status = match status {
            Status::Ok => Cell::coloured("ok", AnsiColor::Green),
            Status::Warn => Cell::coloured("warn", AnsiColor::Yellow),
            Status::Fail => Cell::coloured("fail", AnsiColor::Red),
        };
        table.push([status, (*check).into(), printable(message).into()]);
        if let Some(suggestion) = suggestion {
            table.push(["".into(), "".into(), format!("try: {}", printable(suggestion)).into()]);
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_is_a_line_and_what_to_do_is_below_it() {
        let findings = [
            Finding::ok("pidfd", "the end of a process is seen at once"),
            Finding::warn("tcp-socket", "karma\x1b listens there", "end it"),
            Finding::fail("journal", "can't be read", "look"),
        ];
        let text = anstream::adapter::strip_str(&table(&findings).render(false)).to_string();
        assert_eq!(
            text,
            "ok    pidfd       the end of a process is seen at once\n\
             warn  tcp-socket  karma\\u{1b} listens there\n\
             \u{20}                 try: end it\n\
             fail  journal     can't be read\n\
             \u{20}                 try: look\n"
        );
        let json = to_json(&findings[1]).expect("JSON");
        assert_eq!(
            json,
            r#"{"check":"tcp-socket","status":"warn","message":"karma\u001b listens there","suggestion":"end it"}"#
        );
    }
}
