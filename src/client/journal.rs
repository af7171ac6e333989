//! Doing without a daemon: the registry, worked on by this process under the journal's lock.

use super::Failure;
use crate::config::Config;
use crate::coordinator::{Answer, Call, Coordinator, Peer};
use crate::detect::namespace;
use crate::error::Error;
use crate::paths::Paths;
use crate::store::OpenError;

/// The journal itself, locked for as long as this lives.
#[derive(Debug)]
pub(super) struct Journal(Coordinator);

impl Journal {
    /// Opens the state, unless somebody else works on it for longer than anybody waits.
    pub(super) fn open(paths: &Paths, config: &Config) -> Result<Self, OpenError> {
        Coordinator::for_command(paths, config.clone()).map(Self)
    }

    /// Has one call answered, just as a daemon would.
    pub(super) fn call(&self, call: &Call) -> Result<Answer, Failure> {
        let pid_namespace = namespace::own().ok().map(|own| own.pid);
        let peer = Peer { pid: Some(std::process::id()), pid_namespace };
        self.0.call(call, peer).map_err(|error| {
            let named = self.0.name_holder(error);
            Failure::Refused(Box::new(named.to_response()))
        })
    }
}

/// Why the journal cannot be worked on. `absent` says where no daemon answers, `failed` why none
/// could be started.
pub(super) fn failure(error: OpenError, absent: &str, failed: Option<&str>) -> Failure {
    let OpenError::Locked { dir, holder } = error else {
        // The same refusal as a daemon's, and the same exit code.
        let refusal = Error::StateNotWritable(error.to_string());
        return Failure::Refused(Box::new(refusal.to_response()));
    };
    let dir = dir.display();
    let reason = match holder {
        // That one runs is why another could not be started.
        Some(holder) if holder.role == "daemon" => {
            let serves = match holder.sockets.as_slice() {
                [] => String::new(),
                sockets => format!(" and serves {}", sockets.join(" and ")),
            };
            format!("{absent}; a daemon (pid {}) works on {dir}{serves}", holder.pid)
        }
        holder => {
            let failed = failed.map(|reason| format!("; {reason}")).unwrap_or_default();
            let who = holder.map(|holder| format!(" (pid {})", holder.pid)).unwrap_or_default();
            format!("{absent}{failed}; another styxy{who} works on {dir}")
        }
    };
    Failure::Unreachable { reason, holder: None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::LockHolder;

    #[test]
    fn a_daemon_that_cannot_be_reached_is_named_with_its_pid_and_places() {
        let holder = LockHolder {
            pid: 812,
            start_ticks: 1,
            version: "0.1.0".to_owned(),
            role: "daemon".to_owned(),
            sockets: vec!["127.0.0.1:9999".to_owned()],
            systemd: false,
        };
        let locked = OpenError::Locked { dir: "/state".into(), holder: Some(holder) };
        let failure = failure(locked, "no daemon answers", Some("a background daemon: …"));
        let expected = "no daemon answers; a daemon (pid 812) works on /state and serves \
                        127.0.0.1:9999";
        assert!(matches!(failure, Failure::Unreachable { .. }));
        assert_eq!(failure.to_string(), expected);
    }

    #[test]
    fn a_state_that_cannot_be_opened_is_refused_as_a_daemon_would() {
        let source = std::io::Error::from_raw_os_error(libc::ENOSPC);
        let failure =
            failure(OpenError::Io { path: "/state/daemon.lock".into(), source }, "", None);
        let Failure::Refused(response) = failure else { panic!("{failure}") };
        assert_eq!(response.code, "state_not_writable");
        assert!(response.error.contains("/state/daemon.lock"), "{}", response.error);
    }
}
