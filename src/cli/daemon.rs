//! `styxy daemon`: the daemon's life, for people; it needs none of this to work.

use std::process::ExitCode;
use std::time::Duration;

use super::args::{Daemon, DaemonRun};
use super::context::Context;
use super::failure::{Exit, Failed};
use super::output::{View, long, printable};
use crate::api::StatusResponse;
use crate::client::lifecycle::{self, Started, Stopped};
use crate::client::{Autostart, Failure};
use crate::coordinator::{Answer, Call};
use crate::daemon::{self, Options, StartError};
use crate::store::OpenError;

pub(super) fn run(context: &Context, args: Daemon) -> Result<ExitCode, Failed> {
    match args {
        Daemon::Start => start(context),
        Daemon::Stop => stop(context),
        Daemon::Restart => stop(context).and_then(|()| start(context)),
        Daemon::Status => status(context),
        Daemon::Run(args) => serve(args),
    }?;
    Ok(ExitCode::SUCCESS)
}

fn start(context: &Context) -> Result<(), Failed> {
    let paths = Context::paths()?;
    let started = lifecycle::start(&paths, context.config(&paths))?;
    context.say(&match started {
        Started::Already(endpoint) => format!("styxy: a daemon serves {endpoint} already"),
        Started::Units(endpoint) => format!("styxy: systemd serves {endpoint}"),
        Started::Background { pid, endpoint } => {
            format!("styxy: a background daemon (pid {pid}) serves {endpoint}")
        }
    });
    if context.global.json { status(context) } else { Ok(()) }
}

fn stop(context: &Context) -> Result<(), Failed> {
    let stopped = lifecycle::stop(&Context::paths()?)?;
    context.say(&match stopped {
        Stopped { units: true, daemon: None } => {
            "styxy: sockets and service are stopped".to_owned()
        }
        Stopped { units: true, daemon: Some(pid) } => {
            format!("styxy: sockets and service are stopped, and the daemon (pid {pid}) besides")
        }
        Stopped { units: false, daemon: Some(pid) } => {
            format!("styxy: the daemon (pid {pid}) is stopped")
        }
        Stopped { units: false, daemon: None } => "styxy: no daemon ran".to_owned(),
    });
    Ok(())
}

fn status(context: &Context) -> Result<(), Failed> {
    let answer = ask_running(context).map_err(|failure| match failure {
        // Here that is the answer, and no failure.
        Failure::Unreachable { .. } => Failed::from(failure).exit(Exit::No),
        Failure::Refused(_) => failure.into(),
    })?;
    context.answer(&answer, |status| describe(&View::current(), &status))
}

fn ask_running(context: &Context) -> Result<Answer, Failure> {
    context.connect_with(Autostart::Never)?.call(&Call::Status)
}

fn describe(view: &View, status: &StatusResponse) -> String {
    let StatusResponse { pid, version, allocations, instances, .. } = status;
    // A daemon of another version could say anything, also what is no duration.
    let uptime = Duration::try_from_secs_f64(status.uptime).unwrap_or_default();
    let by = if status.socket_activated { ", socket-activated" } else { "" };
    let count = |count: usize, noun| format!("{count} {noun}{}", if count == 1 { "" } else { "s" });
    let listening: Vec<String> = status.listening.iter().map(|one| view.path(one)).collect();
    let mut lines = vec![
        format!("running    pid {pid}, version {}, for {}{by}", printable(version), long(uptime)),
        format!("listening  {}", listening.join(", ")),
        format!(
            "holding    {}, {}",
            count(*allocations, "allocation"),
            count(*instances, "instance")
        ),
        format!("state      {}", view.path(&status.state_dir)),
    ];
    let problems = status.problems.iter().map(|one| format!("problem    {}", printable(one)));
    lines.extend(problems);
    lines.join("\n") + "\n"
}

/// Serves in the foreground until a signal ends it.
fn serve(args: DaemonRun) -> Result<(), Failed> {
    let options = Options { listen: args.listen, socket: args.socket, background: args.background };
    daemon::run(&options).map_err(|error| not_started(&error))
}

fn not_started(error: &StartError) -> Failed {
    let (exit, next) = match error {
        StartError::NotLoopback(_) => (Exit::Usage, Some("--listen 127.0.0.1:9876")),
        StartError::AlreadyRunning(_) | StartError::State(OpenError::Locked { .. }) => {
            (Exit::Unreachable, Some("styxy daemon status"))
        }
        StartError::AddressTaken { .. } => {
            (Exit::Unreachable, Some("another port with --listen, or another --socket"))
        }
        StartError::State(OpenError::Io { .. }) => (Exit::State, Some("styxy config path")),
        StartError::NoListener(_) | StartError::NoPlace(_) | StartError::Machine(..) => {
            (Exit::Unreachable, None)
        }
    };
    let failed = Failed::new(exit, error.to_string());
    match next {
        Some(next) => failed.next(next),
        None => failed,
    }
}

#[cfg(test)]
mod tests {
    use super::super::words::tests::view;
    use super::*;

    #[test]
    fn why_a_daemon_did_not_start_has_an_exit_code() {
        let io = || std::io::Error::other("no room");
        let dir = || std::path::PathBuf::from("/state");
        let taken = |address: &str| StartError::AddressTaken {
            address: address.to_owned(),
            holder: Some("karma (pid 9)".to_owned()),
        };
        let table = [
            (StartError::NotLoopback(([0, 0, 0, 0], 1).into()), Exit::Usage),
            (taken("127.0.0.1:9876"), Exit::Unreachable),
            (OpenError::Locked { dir: dir(), holder: None }.into(), Exit::Unreachable),
            (OpenError::Io { path: dir(), source: io() }.into(), Exit::State),
            (StartError::Machine("can't serve", io()), Exit::Unreachable),
        ];
        for (error, exit) in table {
            let said = error.to_string();
            let failed = not_started(&error);
            assert_eq!(failed.exit, exit, "{said}");
            assert!(failed.lines().contains(&said), "{said}");
        }
    }

    #[test]
    fn the_status_of_a_daemon_names_its_problems() {
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
        assert_eq!(
            describe(&view(), &status),
            "running    pid 812, version 0.1.0, for 2 hours, socket-activated\n\
             listening  unix:/run/user/1000/styxy/styxy.sock\n\
             holding    1 allocation, 0 instances\n\
             state      ~/.local/state/styxy/f00\n\
             problem    127.0.0.1:9876 is taken by karma (pid 9)\n"
        );
    }
}
