//! A machine that is made up: who lives, who listens, which directories exist.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use styxy::api::Protocol;
use styxy::registry::{Allocation, Listener, Machine, Orphan, Owner, Probe, Process};
use uuid::Uuid;

/// Who listens on a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Socket {
    pub(crate) process: Process,
    pub(crate) own: bool,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Fake {
    pub(crate) alive: BTreeSet<Process>,
    /// Whose `STYXY_LOCK_ID` processes were born with.
    pub(crate) marks: BTreeMap<Process, Uuid>,
    /// Ports that programs use whom the registry does not know.
    pub(crate) used: BTreeSet<u16>,
    pub(crate) sockets: BTreeMap<u16, Socket>,
    pub(crate) gone: BTreeSet<String>,
    /// The ports that were probed in the last step.
    pub(crate) probed: Vec<u16>,
    /// The ports that were looked at since somebody cleared this, and for which protocol.
    pub(crate) looked_at: Vec<(u16, Protocol)>,
}

impl Fake {
    /// The first living process with that lock id.
    pub(crate) fn heir(&self, lock_id: Uuid) -> Option<Owner> {
        let is_marked = |process: &&Process| self.marks.get(process) == Some(&lock_id);
        let process = *self.alive.iter().find(is_marked)?;
        Some(Owner { process, started_at: 0, implicit: false })
    }
}

impl Machine for Fake {
    fn probe(&mut self, port: u16, _: Protocol) -> Probe {
        self.probed.push(port);
        if self.used.contains(&port) || self.sockets.contains_key(&port) {
            Probe::Taken
        } else {
            Probe::Free
        }
    }

    fn listener(&mut self, allocation: &Allocation) -> Option<Listener> {
        self.looked_at.push((allocation.port, allocation.protocol));
        let socket = self.sockets.get(&allocation.port)?;
        Some(Listener {
            process: Some(socket.process),
            name: None,
            local_address: format!("[::]:{}", allocation.port),
            own: socket.own,
        })
    }

    fn is_alive(&mut self, process: Process) -> bool {
        self.alive.contains(&process)
    }

    fn heirs(&mut self, orphans: &[Orphan]) -> HashMap<Uuid, Owner> {
        let heir = |orphan: &Orphan| Some((orphan.lock_id, self.heir(orphan.lock_id)?));
        orphans.iter().filter_map(heir).collect()
    }

    fn directory_exists(&mut self, path: &str) -> bool {
        !self.gone.contains(path)
    }
}
