//! The facts that the registry is handed: the only way it sees a machine.

use std::collections::HashMap;

use uuid::Uuid;

use super::model::{Allocation, Owner, Process};
use crate::api::{Protocol, SystemUsage};

/// What the registry asks about the machine, while it decides.
///
/// The real one is `detect::Host`; the property tests have one that they make up.
pub trait Machine {
    /// Whether a server could bind `port` now. Never asked for an allocated port: a probe occupies
    /// the port for a moment.
    fn probe(&mut self, port: u16, protocol: Protocol) -> Probe;

    /// The container that publishes `port`, or will when it is started. A running one may have it
    /// without any socket that a probe would meet.
    fn publisher(&mut self, _port: u16, _protocol: Protocol) -> Option<Publisher> {
        None
    }

    /// Who listens on the port of an allocation: an own listener, if there is one, else a
    /// stranger, else nobody.
    fn listener(&mut self, allocation: &Allocation) -> Option<Listener>;

    /// Where the programs of these allocations listen on ports that nobody allocated, by lock id.
    fn elsewhere(
        &mut self,
        _searched: &[Searched],
        _is_allocated: &dyn Fn(u16) -> bool,
    ) -> HashMap<Uuid, Listener> {
        HashMap::new()
    }

    /// Whether that very process lives: same pid, same start time.
    fn is_alive(&mut self, process: Process) -> bool;

    /// The processes that go on with what dead owners began, by lock id: each lives, and has that
    /// `STYXY_LOCK_ID` in its environment, or is a fork of the owner, with all that it knew.
    fn heirs(&mut self, orphans: &[Orphan]) -> HashMap<Uuid, Owner>;

    /// Whether that directory exists. What cannot be seen counts as existing.
    fn directory_exists(&mut self, path: &str) -> bool;
}

/// An allocation whose program is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Searched {
    /// Its lock id.
    pub lock_id: Uuid,
    /// Its owner, who lives.
    pub owner: Process,
}

/// An allocation whose owner has died.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Orphan {
    /// Its lock id.
    pub lock_id: Uuid,
    /// The owner that it had.
    pub owner: Process,
    /// Nobody named that owner: it may know nothing of the allocation, and so may its forks.
    pub implicit: bool,
    /// When it was allocated, in Unix milliseconds: who came earlier knows nothing of it.
    pub allocated_at_ms: u64,
}

/// What became of a bind probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Probe {
    /// A server could bind it.
    Free,
    /// Somebody has it.
    Taken,
    /// This user may not bind it: below `net.ipv4.ip_unprivileged_port_start` (ip(7)).
    Forbidden,
}

/// A container that publishes a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publisher {
    /// What the interface says of it; its container is not null.
    pub usage: SystemUsage,
    /// It has the port now; otherwise it gets it when it is started.
    pub running: bool,
}

/// Who listens on an allocated port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// Its process, where it is known.
    pub process: Option<Process>,
    /// The name of its program, or of its container, where it is known.
    pub name: Option<String>,
    /// Address and port, such as `[::]:3000`.
    pub local_address: String,
    /// It belongs to the allocation: only then does it hold it.
    pub own: bool,
}

impl Listener {
    /// Whether its process is known, or the container that it is.
    pub fn is_known(&self) -> bool {
        self.process.is_some() || self.name.is_some()
    }

    /// Whether it is surely a stranger. A socket that cannot be inspected, as another user's, is
    /// never called that: it may be a container's.
    pub fn is_conflict(&self) -> bool {
        !self.own && self.is_known()
    }
}
