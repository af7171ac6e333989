//! The daemon: its version, who works on the state, and what its addresses answer.

use std::time::Duration;

use super::Finding;
use crate::api::StatusResponse;
use crate::cli::context::read;
use crate::cli::output::{View, long};
use crate::client::survey::{Found, Kind, Place, Survey};
use crate::paths::Paths;

const RESTART: &str = "styxy daemon restart";

/// Version, daemon and its problems, unix socket and TCP socket.
pub(super) fn check(paths: &Paths, survey: &Survey) -> Vec<Finding> {
    let answers: Vec<StatusResponse> = survey
        .places
        .iter()
        .filter_map(|place| match &place.found {
            Found::Daemon(answer) => read(answer).ok(),
            _ => None,
        })
        .collect();
    let status = answers.first();
    let mut findings = vec![version(status), daemon(survey, &answers)];
    if let Some(status) = status {
        findings.extend(state_of(paths, status));
        let problems = status.problems.iter();
        findings.extend(problems.map(|problem| {
            Finding::warn("daemon", problem.as_str(), format!("mend it, then {RESTART}"))
        }));
    }
    let [unix, tcp] = &survey.places;
    findings.push(socket("unix-socket", unix, survey, status));
    findings.push(socket("tcp-socket", tcp, survey, status));
    findings
}

/// Whether command and daemon are of one version.
fn version(status: Option<&StatusResponse>) -> Finding {
    let own = env!("CARGO_PKG_VERSION");
    match status {
        Some(status) if status.version != own => {
            let message = format!("this command is {own}, and the daemon is {}", status.version);
            Finding::warn("version", message, RESTART)
        }
        Some(_) => Finding::ok("version", format!("command and daemon are {own}")),
        None => Finding::ok("version", format!("this command is {own}")),
    }
}

/// Who works on the state, and whether it answers.
fn daemon(survey: &Survey, answers: &[StatusResponse]) -> Finding {
    let holder = survey.holder.as_ref().filter(|holder| holder.role == "daemon");
    if let [one, other] = answers
        && one.pid != other.pid
    {
        let message = format!("two daemons answer, pid {} and pid {}", one.pid, other.pid);
        return Finding::warn("daemon", message, format!("kill {}", other.pid));
    }
    let Some(status) = answers.first() else {
        return match holder {
            Some(holder) => {
                let pid = holder.pid;
                let message = format!("pid {pid} works on the state and does not answer");
                let next =
                    format!("kill -9 {pid}: what it answered is written, and the next knows it");
                Finding::fail("daemon", message, next)
            }
            None => Finding::ok("daemon", "none runs; it starts when a command needs it"),
        };
    };
    let kind = survey.kind(status);
    let how = match kind {
        Kind::Service => "as styxy.service",
        Kind::Background => "in the background",
        Kind::Foreground => "in the foreground",
    };
    let uptime = Duration::try_from_secs_f64(status.uptime).unwrap_or_default();
    let message = format!("pid {} runs {how}, for {}", status.pid, long(uptime));
    let is_beside = |unit: &_| kind != Kind::Service && is_listening(unit);
    if survey.known_units().iter().any(is_beside) {
        return Finding::warn("daemon", format!("{message}, beside systemd's sockets"), RESTART);
    }
    Finding::ok("daemon", message)
}

fn is_listening(unit: &crate::client::units::Unit) -> bool {
    !unit.is_service() && unit.is_active()
}

/// Whether the daemon and this environment mean the same state.
fn state_of(paths: &Paths, status: &StatusResponse) -> Option<Finding> {
    let own = paths.state_dir.to_string_lossy();
    let view = View::current();
    (status.state_dir != own).then(|| {
        let (its, own) = (view.path(&status.state_dir), view.path(&own));
        Finding::warn(
            "daemon",
            format!("its state is in {its}, and this environment means {own}"),
            format!("set XDG_STATE_HOME alike (systemctl --user show-environment), then {RESTART}"),
        )
    })
}

/// Whether an address answers, and who has it instead.
fn socket(
    check: &'static str,
    place: &Place,
    survey: &Survey,
    status: Option<&StatusResponse>,
) -> Finding {
    let Place { address, port, found, .. } = place;
    match found {
        Found::Daemon(_) => Finding::ok(check, format!("{address} answers")),
        Found::Dormant => {
            let message = format!("systemd listens on {address}, and starts the daemon when asked");
            Finding::ok(check, message)
        }
        Found::Stranger(who) if port.is_some() => Finding::warn(
            check,
            format!("{who}, so only the unix socket is served"),
            "end it, or set listen of [daemon] in the configuration to another port",
        ),
        Found::Stranger(who) => Finding::fail(check, who.as_str(), "end that program"),
        Found::Trouble(failure) => Finding::fail(check, failure.to_string(), RESTART),
        Found::Nobody(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            let path = address.trim_start_matches("unix:");
            let look = format!("ls -ld {path}: it and its directories must be yours");
            Finding::fail(check, format!("{address} lets this user not in: {error}"), look)
        }
        Found::Nobody(_) if status.is_some() => {
            Finding::warn(check, format!("the daemon does not listen on {address}"), RESTART)
        }
        Found::Nobody(_) if survey.holder.is_none() => {
            let message = format!("nobody listens on {address}; a daemon does when it runs");
            Finding::ok(check, message)
        }
        Found::Nobody(error) => {
            Finding::warn(check, format!("{address} does not answer: {error}"), RESTART)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Status;
    use super::*;
    use crate::client::Failure;
    use crate::coordinator::Answer;
    use crate::store::LockHolder;
    use std::io;

    fn status(pid: u32, version: &str) -> StatusResponse {
        StatusResponse {
            status: "running".to_owned(),
            version: version.to_owned(),
            pid,
            uptime: 60.0,
            allocations: 0,
            instances: 0,
            started_at: "2026-01-17T16:39:12.000Z".to_owned(),
            listening: Vec::new(),
            state_dir: "/state".to_owned(),
            socket_activated: true,
            problems: Vec::new(),
        }
    }

    fn answers(status: &StatusResponse) -> Found {
        let body = serde_json::to_string(status).expect("JSON");
        Found::Daemon(Answer { body, created: false })
    }

    fn nobody() -> Found {
        Found::Nobody(io::ErrorKind::ConnectionRefused.into())
    }

    fn survey(unix: Found, tcp: Found) -> Survey {
        let place = |address: &str, port, found| {
            let address = address.to_owned();
            Place { address, port, is_asked: true, found }
        };
        let places = [place("unix:/s", None, unix), place("http://h:1", Some(1), tcp)];
        Survey { units: None, places, holder: None }
    }

    fn paths() -> Paths {
        Paths { state_dir: "/state".into(), socket: "/s".into(), config_files: Vec::new() }
    }

    /// The status of each check, by name.
    fn found(survey: &Survey) -> Vec<(&'static str, Status)> {
        let findings = check(&paths(), survey);
        for finding in &findings {
            let says_what = finding.suggestion.is_some();
            assert_eq!(says_what, finding.status != Status::Ok, "{finding:?}");
        }
        findings.iter().map(|finding| (finding.check, finding.status)).collect()
    }

    fn all(
        version: Status,
        daemon: Status,
        unix: Status,
        tcp: Status,
    ) -> Vec<(&'static str, Status)> {
        vec![("version", version), ("daemon", daemon), ("unix-socket", unix), ("tcp-socket", tcp)]
    }

    #[test]
    fn no_daemon_is_no_fault() {
        use Status::Ok;
        let nothing = all(Ok, Ok, Ok, Ok);
        assert_eq!(found(&survey(nobody(), nobody())), nothing);
        assert_eq!(found(&survey(Found::Dormant, Found::Dormant)), nothing);
    }

    #[test]
    fn a_daemon_that_answers_is_judged_by_what_it_says() {
        use Status::{Ok, Warn};
        let own = status(812, env!("CARGO_PKG_VERSION"));
        assert_eq!(found(&survey(answers(&own), answers(&own))), all(Ok, Ok, Ok, Ok));
        let old = status(812, "0.0.1");
        assert_eq!(found(&survey(answers(&old), answers(&old))), all(Warn, Ok, Ok, Ok));
        let other = status(813, env!("CARGO_PKG_VERSION"));
        assert_eq!(found(&survey(answers(&own), answers(&other))), all(Ok, Warn, Ok, Ok));
        assert_eq!(found(&survey(answers(&own), nobody())), all(Ok, Ok, Ok, Warn));

        let mut bad = own.clone();
        bad.problems.push("the disk is full".to_owned());
        bad.state_dir = "/elsewhere".to_owned();
        let findings = check(&paths(), &survey(answers(&bad), answers(&bad)));
        let warned = findings.iter().filter(|one| one.status == Warn).map(|one| &one.message);
        let warned = warned.cloned().collect::<Vec<_>>().join("\n");
        assert!(warned.contains("the disk is full") && warned.contains("/elsewhere"), "{warned}");
    }

    #[test]
    fn whoever_stands_in_the_way_is_named() {
        use Status::{Fail, Ok, Warn};
        let karma = || Found::Stranger("another program (karma, pid 9) listens on h:1".to_owned());
        let beside = survey(nobody(), karma());
        assert_eq!(found(&beside), all(Ok, Ok, Ok, Warn));
        assert!(check(&paths(), &beside).iter().any(|one| one.message.contains("karma, pid 9")));
        assert_eq!(found(&survey(karma(), nobody())), all(Ok, Ok, Fail, Ok));

        let denied = Found::Nobody(io::ErrorKind::PermissionDenied.into());
        assert_eq!(found(&survey(denied, nobody())), all(Ok, Ok, Fail, Ok));
        let reason = "no answer".to_owned();
        let trouble = Found::Trouble(Failure::Unreachable { reason, holder: None });
        assert_eq!(found(&survey(trouble, nobody())), all(Ok, Ok, Fail, Ok));

        let mut silent = survey(nobody(), nobody());
        silent.holder = Some(LockHolder {
            pid: 812,
            start_ticks: 1,
            version: String::new(),
            role: "daemon".to_owned(),
            sockets: Vec::new(),
            systemd: false,
        });
        assert_eq!(found(&silent), all(Ok, Fail, Warn, Warn));
    }
}
