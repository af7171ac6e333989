//! Starting and stopping the daemon: `styxy daemon start|stop|restart`.

use std::io;
use std::time::Duration;

use super::Failure;
use super::autostart::{self, Means};
use super::discover::Lookup;
use super::link::Link;
use super::units::Manager;
use crate::config::Config;
use crate::detect::terminate::{self, Termination};
use crate::paths::Paths;
use crate::registry::Process;
use crate::store::{LockHolder, lock_holder};

/// How long a daemon may take to end: it finishes what it accepted first.
const PATIENCE: Duration = Duration::from_secs(10);

/// Who serves after a start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Started {
    /// One did already, at this address.
    Already(String),
    /// systemd listens, at this address, and starts the service when it is asked.
    Units(String),
    /// A background daemon.
    Background {
        /// Its process id.
        pid: u32,
        /// Where it answers.
        endpoint: String,
    },
}

/// What a stop ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stopped {
    /// Units that were active were stopped.
    pub units: bool,
    /// The process id of a daemon that was ended besides.
    pub daemon: Option<u32>,
}

impl Stopped {
    /// Whether anything ran.
    pub fn anything(self) -> bool {
        self.units || self.daemon.is_some()
    }
}

/// Starts a daemon, unless one answers: by the user's units, else in the background.
///
/// # Errors
///
/// [`Failure::Unreachable`] with what was tried.
pub fn start(paths: &Paths, config: &Config) -> Result<Started, Failure> {
    let lookup = lookup(paths, config)?;
    let absence = match Link::find(&lookup) {
        Ok(link) => return Ok(Started::Already(link.endpoint().to_string())),
        Err(absence) => absence,
    };
    if absence.stranger.is_some() && matches!(lookup, Lookup::Named(_)) {
        return Err(Failure::Unreachable { reason: absence.tried, holder: absence.stranger });
    }
    match autostart::start(&lookup, paths) {
        Ok(started) => {
            let endpoint = started.link.endpoint().to_string();
            Ok(match started.by {
                Means::Units => Started::Units(endpoint),
                Means::Background(pid) => Started::Background { pid, endpoint },
                Means::SomebodyElse => Started::Already(endpoint),
            })
        }
        Err(reason) => Err(Failure::Unreachable { reason, holder: absence.stranger }),
    }
}

/// Starts the daemon anew: where systemd listens on both sockets, without a moment in which nobody
/// does. A socket that has failed is started too, which systemd refuses as long as the service runs.
///
/// # Errors
///
/// [`Failure::Unreachable`] with what was tried.
pub fn restart(paths: &Paths, config: &Config) -> Result<Started, Failure> {
    let lookup = lookup(paths, config)?;
    let manager = Manager::find(paths).filter(|manager| manager.serves(&lookup));
    let Some(manager) = manager.filter(Manager::listens) else {
        stop(paths)?;
        return start(paths, config);
    };
    let failed = |reason| Failure::Unreachable { reason, holder: None };
    manager.restart().map_err(failed)?;
    match Link::find(&lookup) {
        Ok(link) => Ok(Started::Units(link.endpoint().to_string())),
        Err(absence) => {
            Err(Failure::Unreachable { reason: absence.tried, holder: absence.stranger })
        }
    }
}

/// Stops sockets and service where systemd has them, then whatever daemon still works on the
/// state, and waits for its end: also where systemctl refuses.
///
/// # Errors
///
/// [`Failure::Unreachable`] when systemctl refused, or the daemon does not end within 10 s.
pub fn stop(paths: &Paths) -> Result<Stopped, Failure> {
    let manager = Manager::find(paths);
    let units = manager.as_ref().is_some_and(Manager::is_active);
    let refused = manager.and_then(|manager| manager.stop().err());
    let stopped = stop_daemon(paths, |_| true);
    let Some(refused) = refused else { return Ok(Stopped { units, daemon: stopped? }) };
    let reason = match stopped {
        Ok(Some(pid)) => format!("{refused}; the daemon (pid {pid}) was stopped"),
        Ok(None) => refused,
        Err(failure) => format!("{refused}; {failure}"),
    };
    Err(Failure::Unreachable { reason, holder: None })
}

/// Stops a daemon that systemd did not start, and waits for its end.
///
/// # Errors
///
/// [`Failure::Unreachable`] when it does not end within 10 s.
pub fn stop_background(paths: &Paths) -> Result<Stopped, Failure> {
    let daemon = stop_daemon(paths, |holder| !holder.systemd)?;
    Ok(Stopped { units: false, daemon })
}

fn stop_daemon(
    paths: &Paths,
    is_meant: impl Fn(&LockHolder) -> bool,
) -> Result<Option<u32>, Failure> {
    let holder = lock_holder(&paths.state_dir);
    let Some(holder) = holder.filter(|holder| holder.role == "daemon" && is_meant(holder)) else {
        return Ok(None);
    };
    let ended = terminate(&holder);
    let ended = ended.map_err(|reason| Failure::Unreachable { reason, holder: None })?;
    Ok(ended.then_some(holder.pid))
}

fn lookup(paths: &Paths, config: &Config) -> Result<Lookup, Failure> {
    let unreachable = |reason| Failure::Unreachable { reason, holder: None };
    Lookup::from_env(paths, config).map_err(unreachable)
}

/// Asks that very daemon to end and waits until it has; false if it had ended already.
fn terminate(holder: &LockHolder) -> Result<bool, String> {
    let pid = holder.pid;
    let process = Process { pid, start_ticks: holder.start_ticks };
    match terminate::terminate(process, PATIENCE) {
        Ok(Termination::Ended) => Ok(true),
        Ok(Termination::Absent) => Ok(false),
        Ok(Termination::Lingers) => {
            Err(format!("the daemon (pid {pid}) does not end within {} s", PATIENCE.as_secs()))
        }
        Err(error) if error.kind() == io::ErrorKind::Unsupported => Err(format!(
            "the daemon (pid {pid}) cannot be stopped safely on this kernel: kill {pid}"
        )),
        Err(error) => Err(format!("the daemon (pid {pid}) cannot be stopped: {error}")),
    }
}
