//! Listening sockets on ports that nobody allocated: where the program of an allocation may be that
//! does not listen on its own.

use std::collections::HashMap;

use uuid::Uuid;

use super::known::Known;
use super::sockets::Socket;
use crate::api::Protocol;
use crate::registry::{Allocation, Listener, Process};

/// This user's listening sockets on ports that nobody allocated, by whose they are.
#[derive(Debug, Default)]
pub(super) struct Strays {
    /// By their process and by each of its ancestors.
    by_process: HashMap<Process, Listener>,
    /// By the lock id that it was started with.
    by_lock_id: HashMap<Uuid, Listener>,
}

impl Strays {
    /// Those among `sockets`, which are in the order of their ports: of several the lowest counts.
    /// What is not known yet is remembered as to be looked for.
    pub(super) fn among(
        sockets: &[Socket],
        known: &mut Known,
        uid: u32,
        is_allocated: &dyn Fn(u16) -> bool,
    ) -> Self {
        let mut strays = Self::default();
        let is_stray = |socket: &&Socket| {
            socket.protocol == Protocol::Tcp
                && socket.uid == uid
                && !is_allocated(socket.local.port())
        };
        for socket in sockets.iter().filter(is_stray) {
            for facts in known.processes_of(socket.inode) {
                let listener = || Listener {
                    process: Some(facts.process),
                    name: Some(facts.name.clone()),
                    local_address: socket.local.to_string(),
                    own: true,
                };
                for process in std::iter::once(&facts.process).chain(&facts.ancestors) {
                    strays.by_process.entry(*process).or_insert_with(listener);
                }
                if let Some(lock_id) = facts.lock_id {
                    strays.by_lock_id.entry(lock_id).or_insert_with(listener);
                }
            }
        }
        strays
    }

    /// The one that the program of an allocation has.
    pub(super) fn of(&self, allocation: &Allocation) -> Option<Listener> {
        let owner = allocation.owner.map(|owner| owner.process);
        let found = owner.and_then(|owner| self.by_process.get(&owner));
        found.or_else(|| self.by_lock_id.get(&allocation.lock_id)).cloned()
    }
}
