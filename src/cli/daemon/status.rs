//! `styxy daemon status`: what runs, as what, and how it fares.

use std::time::Duration;

use crate::api::StatusResponse;
use crate::cli::context::Context;
use crate::cli::failure::{Exit, Failed};
use crate::cli::output::{View, long, printable};
use crate::client::Failure;
use crate::client::survey::{self, Kind, Survey};
use crate::client::units::Unit;
use crate::detect::process;

/// Never starts a daemon, also not by asking a socket that systemd listens on.
pub(super) fn run(context: &Context) -> Result<(), Failed> {
    let paths = Context::paths()?;
    let survey = survey::look(&paths, context.config(&paths))?;
    let answer = survey.status().map_err(|failure| match failure {
        // Here that is the answer, and no failure.
        Failure::Unreachable { .. } => Failed::from(failure).exit(Exit::No),
        Failure::Refused(_) => failure.into(),
    })?;
    context.answer(answer, |status: StatusResponse| {
        describe(&View::current(), &status, &Facts::of(&survey, &status))
    })
}

/// What the daemon does not say of itself.
struct Facts {
    kind: Kind,
    /// In bytes.
    memory: Option<u64>,
    units: Option<String>,
}

impl Facts {
    fn of(survey: &Survey, status: &StatusResponse) -> Self {
        Self {
            kind: survey.kind(status),
            memory: process::resident_bytes(status.pid),
            units: survey.units.as_ref().map(|units| match units {
                Ok(units) => sockets(units),
                Err(reason) => format!("unknown: {}", printable(reason)),
            }),
        }
    }
}

/// Whether the sockets are there, start with the session, and listen.
fn sockets(units: &[Unit]) -> String {
    let sockets: Vec<&Unit> =
        units.iter().filter(|unit| unit.is_found() && !unit.is_service()).collect();
    if sockets.is_empty() {
        return "not installed    (styxy daemon install)".to_owned();
    }
    let words = |unit: &&Unit| {
        let state = if unit.file.is_empty() { &unit.load } else { &unit.file };
        format!("{} {}, {}", printable(&unit.name), printable(state), printable(&unit.active))
    };
    sockets.iter().map(words).collect::<Vec<_>>().join("; ")
}

fn describe(view: &View, status: &StatusResponse, facts: &Facts) -> String {
    let StatusResponse { pid, version, allocations, instances, .. } = status;
    // A daemon of another version could say anything, also what is no duration.
    let uptime = Duration::try_from_secs_f64(status.uptime).unwrap_or_default();
    let kind = match facts.kind {
        Kind::Service => "as styxy.service of systemd",
        Kind::Background => "in the background",
        Kind::Foreground => "in the foreground",
    };
    let count = |count: usize, noun| format!("{count} {noun}{}", if count == 1 { "" } else { "s" });
    let listening: Vec<String> = status.listening.iter().map(|one| view.path(one)).collect();
    let mut lines = vec![
        format!(
            "running    pid {pid}, version {}, for {}, {kind}",
            printable(version),
            long(uptime)
        ),
        format!("listening  {}", listening.join(", ")),
        format!(
            "holding    {}, {}",
            count(*allocations, "allocation"),
            count(*instances, "instance")
        ),
    ];
    lines.extend(facts.memory.map(|bytes| format!("memory     {}", mebibytes(bytes))));
    lines.push(format!("state      {}", view.path(&status.state_dir)));
    lines.extend(facts.units.as_ref().map(|units| format!("sockets    {units}")));
    let problems = status.problems.iter().map(|one| format!("problem    {}", printable(one)));
    lines.extend(problems);
    lines.join("\n") + "\n"
}

/// Bytes, to a tenth of a MiB.
fn mebibytes(bytes: u64) -> String {
    let tenths = (bytes * 10) >> 20;
    format!("{}.{} MiB", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::words::tests::view;

    #[test]
    fn the_status_of_a_daemon_names_its_kind_and_its_problems() {
        let status = StatusResponse {
            status: "running".to_owned(),
            version: "0.1.0".to_owned(),
            pid: 812,
            uptime: 7_300.5,
            allocations: 1,
            instances: 0,
            started_at: "2026-01-17T16:39:12.000Z".to_owned(),
            listening: vec!["unix:/run/user/1000/styxy/styxy.sock".to_owned()],
            state_dir: "/home/ada/.local/state/styxy/f00".to_owned(),
            socket_activated: true,
            problems: vec!["127.0.0.1:9876 is taken by karma (pid 9)".to_owned()],
        };
        let units = Some("styxy.socket enabled, active".to_owned());
        let facts = Facts { kind: Kind::Service, memory: Some(6_500_000), units };
        assert_eq!(
            describe(&view(), &status, &facts),
            "running    pid 812, version 0.1.0, for 2 hours, as styxy.service of systemd\n\
             listening  unix:/run/user/1000/styxy/styxy.sock\n\
             holding    1 allocation, 0 instances\n\
             memory     6.1 MiB\n\
             state      ~/.local/state/styxy/f00\n\
             sockets    styxy.socket enabled, active\n\
             problem    127.0.0.1:9876 is taken by karma (pid 9)\n"
        );
    }

    #[test]
    fn sockets_are_told_by_whether_they_start_and_listen() {
        let unit = |name: &str, load: &str, file: &str, active: &str| Unit {
            name: name.to_owned(),
            load: load.to_owned(),
            file: file.to_owned(),
            active: active.to_owned(),
            ..Unit::default()
        };
        let units = [
            unit("styxy.socket", "loaded", "enabled", "failed"),
            unit("styxy-unix.socket", "loaded", "disabled", "active"),
            unit("styxy.service", "loaded", "static", "active"),
        ];
        assert_eq!(
            sockets(&units),
            "styxy.socket enabled, failed; styxy-unix.socket disabled, active"
        );
        let none = [unit("styxy.socket", "not-found", "", "inactive")];
        assert!(sockets(&none).starts_with("not installed"));
        assert_eq!(sockets(&[]), sockets(&none));
        let masked = [unit("styxy.socket", "masked", "", "inactive")];
        assert_eq!(sockets(&masked), "styxy.socket masked, inactive");
    }
}
