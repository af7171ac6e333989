//! Starting, stopping and looking at the daemon: `styxy daemon start|stop|restart|status`.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::process::{Signal, pidfd_send_signal};

use super::autostart::{self, Means};
use super::discover::Lookup;
use super::link::Link;
use super::units::Manager;
use super::{Failure, pidfd};
use crate::config::Config;
use crate::detect::process;
use crate::paths::Paths;
use crate::store::{LockHolder, lock_holder};

/// How long a daemon may take to end: it finishes what it accepted first.
const PATIENCE: Duration = Duration::from_secs(10);

/// What there is of a daemon now.
#[derive(Debug)]
pub struct Running {
    /// Where one answers: `unix:/…`, `http://127.0.0.1:9876`. With socket activation an address
    /// answers though no process runs yet.
    pub endpoint: Option<String>,
    /// Who listens there instead: `another program (karma, pid 812) listens on 127.0.0.1:9876`.
    pub stranger: Option<String>,
    /// The process that works on the state.
    pub holder: Option<LockHolder>,
    /// The user's service manager has the units.
    pub has_units: bool,
}

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

/// Looks whether a daemon answers and who works on the state. Starts nothing but what systemd
/// starts for the question.
///
/// # Errors
///
/// [`Failure::Unreachable`] when the environment names an address that cannot be.
pub fn running(paths: &Paths, config: &Config) -> Result<Running, Failure> {
    let lookup = lookup(paths, config)?;
    let (endpoint, stranger) = match Link::find(&lookup) {
        Ok(link) => (Some(link.endpoint().to_string()), None),
        Err(absence) => (None, absence.stranger),
    };
    let holder = lock_holder(&paths.state_dir);
    Ok(Running { endpoint, stranger, holder, has_units: Manager::find(paths).is_some() })
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

/// Stops sockets and service where systemd has them, then whatever daemon still works on the
/// state, and waits for its end.
///
/// # Errors
///
/// [`Failure::Unreachable`] when systemctl refuses, or the daemon does not end within 10 s.
pub fn stop(paths: &Paths) -> Result<Stopped, Failure> {
    let failed = |reason| Failure::Unreachable { reason, holder: None };
    let mut units = false;
    if let Some(manager) = Manager::find(paths) {
        units = manager.is_active();
        manager.stop().map_err(failed)?;
    }
    let holder = lock_holder(&paths.state_dir).filter(|holder| holder.role == "daemon");
    let daemon = match &holder {
        Some(holder) => terminate(holder).map_err(failed)?.then_some(holder.pid),
        None => None,
    };
    Ok(Stopped { units, daemon })
}

fn lookup(paths: &Paths, config: &Config) -> Result<Lookup, Failure> {
    let unreachable = |reason| Failure::Unreachable { reason, holder: None };
    Lookup::from_env(paths, config).map_err(unreachable)
}

/// Asks that very daemon to end and waits until it has; false if it had ended already.
fn terminate(holder: &LockHolder) -> Result<bool, String> {
    let Some(pidfd) = pidfd_of(holder)? else {
        return Ok(false);
    };
    let pid = holder.pid;
    match pidfd_send_signal(&pidfd, Signal::TERM) {
        Ok(()) => {}
        Err(rustix::io::Errno::SRCH) => return Ok(false),
        Err(error) => return Err(format!("the daemon (pid {pid}) cannot be stopped: {error}")),
    }
    match pidfd::wait(&pidfd, Instant::now() + PATIENCE) {
        Ok(true) => Ok(true),
        Ok(false) => {
            Err(format!("the daemon (pid {pid}) does not end within {} s", PATIENCE.as_secs()))
        }
        Err(error) => Err(format!("the daemon (pid {pid}) cannot be waited for: {error}")),
    }
}

/// The pidfd of the holder; `None` if that process lives no more. Its start time tells it from
/// another process with a recycled pid.
fn pidfd_of(holder: &LockHolder) -> Result<Option<OwnedFd>, String> {
    let pid = holder.pid;
    let Ok(found) = process::identify(pid) else {
        return Ok(None);
    };
    if found.process.start_ticks != holder.start_ticks {
        return Ok(None);
    }
    // Without a pidfd the signal could hit another process that got the pid meanwhile.
    let pidfd = found.pidfd.ok_or_else(|| {
        format!("the daemon (pid {pid}) cannot be stopped safely on this kernel: kill {pid}")
    })?;
    Ok(Some(pidfd))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn a_stop_ends_that_very_process_and_no_other() -> Result<(), Box<dyn std::error::Error>> {
        let mut child = Command::new("sleep").arg("60").spawn()?;
        let process = process::identify(child.id())?.process;
        let holder = |start_ticks| LockHolder {
            pid: process.pid,
            start_ticks,
            version: String::new(),
            role: "daemon".to_owned(),
            sockets: Vec::new(),
            systemd: false,
        };

        assert_eq!(terminate(&holder(process.start_ticks + 1)), Ok(false), "a recycled pid");
        assert!(child.try_wait()?.is_none(), "it lives");
        assert_eq!(terminate(&holder(process.start_ticks)), Ok(true));
        child.wait()?;
        assert_eq!(terminate(&holder(process.start_ticks)), Ok(false), "it has ended");
        Ok(())
    }
}
