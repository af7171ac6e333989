//! Strays: sockets on ports that nobody allocated, where the program of an allocation may be that
//! does not listen on its own.

use std::collections;

use foldhash::{HashMap, HashSet};
use uuid::Uuid;

use super::known::Known;
use super::sockets::Socket;
use crate::registry::{Listener, Process, Searched};

/// Finds the programs of allocations among the sockets that they may have, which are in the order
/// of their ports: of several the lowest counts. It is theirs that the owner or a descendant of it
/// has, else that a process has that was started with the lock id. What is not known yet is
/// remembered as to be looked for.
pub(super) fn find<'s>(
    searched: &[Searched],
    strays: impl Iterator<Item = &'s Socket>,
    known: &mut Known,
) -> collections::HashMap<Uuid, Listener> {
    let strays: Vec<&Socket> = strays.collect();
    // Where there are more sockets than owners, most belong to nobody who is searched.
    let owners: Option<HashSet<Process>> = (strays.len() > searched.len())
        .then(|| searched.iter().map(|searched| searched.owner).collect());
    let is_owner = |process: &&Process| owners.as_ref().is_none_or(|it| it.contains(*process));
    let mut by_process: HashMap<Process, Listener> = HashMap::default();
    let mut by_lock_id: HashMap<Uuid, Listener> = HashMap::default();
    for socket in strays {
        for facts in known.processes_of(socket.inode) {
            let listener = || Listener {
                process: Some(facts.process),
                name: Some(facts.name.clone()),
                local_address: socket.local.to_string(),
                own: true,
            };
            let family = std::iter::once(&facts.process).chain(&facts.ancestors);
            for process in family.filter(is_owner) {
                by_process.entry(*process).or_insert_with(listener);
            }
            if let Some(lock_id) = facts.lock_id {
                by_lock_id.entry(lock_id).or_insert_with(listener);
            }
        }
    }
    let found = searched.iter().filter_map(|Searched { lock_id, owner }| {
        let found = by_process.get(owner).or_else(|| by_lock_id.get(lock_id))?;
        Some((*lock_id, found.clone()))
    });
    found.collect()
}
