//! `styxy daemon`: the daemon's life, for people; it needs none of this to work.

mod install;
mod status;

use std::process::ExitCode;

use super::args::{Daemon, DaemonRun, DaemonStop};
use super::context::Context;
use super::failure::{Exit, Failed};
use crate::client::lifecycle::{self, Started, Stopped};
use crate::daemon::{self, Options, StartError};
use crate::store::OpenError;

pub(super) fn run(context: &Context, args: Daemon) -> Result<ExitCode, Failed> {
    match args {
        Daemon::Start => start(context),
        Daemon::Stop(args) => stop(context, &args),
        Daemon::Restart => restart(context),
        Daemon::Status => status::run(context),
        Daemon::Run(args) => serve(args),
        Daemon::Install => install::install(context),
        Daemon::Uninstall => install::uninstall(context),
    }?;
    Ok(ExitCode::SUCCESS)
}

fn start(context: &Context) -> Result<(), Failed> {
    let paths = Context::paths()?;
    say_started(context, lifecycle::start(&paths, context.config(&paths))?)
}

fn restart(context: &Context) -> Result<(), Failed> {
    let paths = Context::paths()?;
    say_started(context, lifecycle::restart(&paths, context.config(&paths))?)
}

fn say_started(context: &Context, started: Started) -> Result<(), Failed> {
    context.say(&match started {
        Started::Already(endpoint) => format!("styxy: a daemon serves {endpoint} already"),
        Started::Units(endpoint) => format!("styxy: systemd serves {endpoint}"),
        Started::Background { pid, endpoint } => {
            format!("styxy: a background daemon (pid {pid}) serves {endpoint}")
        }
    });
    if context.global.json { status::run(context) } else { Ok(()) }
}

fn stop(context: &Context, args: &DaemonStop) -> Result<(), Failed> {
    let paths = Context::paths()?;
    let stopped = if args.background {
        lifecycle::stop_background(&paths)?
    } else {
        lifecycle::stop(&paths)?
    };
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
        StartError::State(OpenError::Io { path, .. }) if path.starts_with("/proc") => {
            (Exit::Unreachable, Some("mount -t proc proc /proc"))
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
}
