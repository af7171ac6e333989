//! Who an allocation is for: a process id of a request becomes an owner, or is refused.

use super::{Inner, Peer};
use crate::api::AllocateRequest;
use crate::detect::{namespace, process};
use crate::error::Error;
use crate::registry::{Moment, Owner, Process};

/// How far a start time may be from the real one, in seconds: both are rounded.
const START_TIME_TOLERANCE: u64 = 1;

/// What became of the process id of a request.
#[derive(Debug, Default)]
pub(super) struct Verified {
    pub(super) owner: Option<Owner>,
    /// Why there is no owner although one was named.
    pub(super) note: Option<String>,
}

impl Inner {
    /// Verifies the owner that a request names, and watches it from now on, so that there is no
    /// moment in which it could die unseen. Who gets nothing by the request is let go when it is
    /// decided ([`Inner::dismiss_bystanders`]).
    pub(super) fn verify_owner(
        &mut self,
        request: &AllocateRequest,
        peer: Peer,
        now: Moment,
    ) -> Result<Verified, Error> {
        let Some(named) = request.process_id else { return Ok(Verified::default()) };
        let pid = match self.translate(named, request.pid_namespace, peer) {
            Some(pid) => pid,
            None if request.implicit_owner => return Ok(Verified::default()),
            None => {
                let note = format!(
                    "process {named} is of another pid namespace: only a lease holds this port"
                );
                return Ok(Verified { owner: None, note: Some(note) });
            }
        };
        match self.verify_process(pid, request.process_start_time, now) {
            Ok((process, started_at)) => {
                let owner = Owner { process, started_at, implicit: request.implicit_owner };
                Ok(Verified { owner: Some(owner), note: None })
            }
            // Nobody named it: a parent that is gone already, or another user's, is just no owner.
            Err(_) if request.implicit_owner => Ok(Verified::default()),
            Err(error) => Err(error),
        }
    }

    /// Verifies that `pid` is a living process of this user that started when it should have, and
    /// watches it. Answers who it is, and when it started, in Unix seconds.
    pub(super) fn verify_process(
        &mut self,
        pid: u32,
        start_time: Option<u64>,
        now: Moment,
    ) -> Result<(Process, u64), Error> {
        let unknown = |reason: String| Error::UnknownProcess { pid, reason };
        let watched = match self.watch.watched(pid) {
            Some(process) if self.batch.all_live(&self.watch, now) => Some(process),
            Some(_) => self.watch.living(pid),
            None => None,
        };
        let (process, started_at) = if let Some(process) = watched {
            (process, process::unix_seconds(process.start_ticks))
        } else {
            let found = process::identify(pid).map_err(|reason| unknown(reason.to_owned()))?;
            if found.uid != self.uid {
                return Err(unknown("belongs to another user".to_owned()));
            }
            self.watch.add(found.process, found.pidfd, found.image);
            self.newcomers.push(found.process);
            (found.process, found.started_at)
        };
        match start_time {
            Some(said) if said.abs_diff(started_at) > START_TIME_TOLERANCE => {
                Err(unknown(format!(
                    "started at {started_at}, not at {said} (Unix seconds): the one that was meant is gone"
                )))
            }
            _ => Ok((process, started_at)),
        }
    }

    /// The process id as this pid namespace knows it. From another namespace only one can be
    /// known: the client itself, whose true id the kernel tells.
    fn translate(&self, pid: u32, said_namespace: Option<u64>, peer: Peer) -> Option<u32> {
        let own = self.namespaces.map(|own| own.pid);
        match (own, peer.pid_namespace.or(said_namespace)) {
            (Some(own), Some(theirs)) if own != theirs => {
                peer.pid.filter(|peer_pid| namespace::innermost_pid(*peer_pid) == Some(pid))
            }
            _ => Some(pid),
        }
    }

    /// Watches a process that the registry knows already: an heir, or a listener that was found.
    pub(super) fn watch_known(&mut self, known: Process) {
        if self.watch.living(known.pid) == Some(known) {
            return;
        }
        // If it is gone or another one by now, the safety net finds it dead.
        match process::identify(known.pid) {
            Ok(found) if found.process == known => {
                self.watch.add(known, found.pidfd, found.image);
            }
            _ => self.watch.add(known, None, None),
        }
    }
}
