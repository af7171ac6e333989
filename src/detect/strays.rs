//! Strays: sockets on ports that nobody allocated, where the program of an allocation may be that
//! does not listen on its own.

use std::collections;

use foldhash::HashMap;
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
    let mut by_owner: HashMap<Process, Option<Listener>> =
        searched.iter().map(|searched| (searched.owner, None)).collect();
    let mut by_lock_id: HashMap<Uuid, Option<Listener>> =
        searched.iter().map(|searched| (searched.lock_id, None)).collect();
    for socket in strays {
        for facts in known.processes_of(socket.inode) {
            let listener = || Listener {
                process: Some(facts.process),
                name: Some(facts.name.clone()),
                local_address: socket.local.to_string(),
                own: true,
            };
            for process in std::iter::once(&facts.process).chain(&facts.ancestors) {
                if let Some(place) = by_owner.get_mut(process) {
                    place.get_or_insert_with(listener);
                }
            }
            if let Some(place) = facts.lock_id.and_then(|id| by_lock_id.get_mut(&id)) {
                place.get_or_insert_with(listener);
            }
        }
    }
    let found = searched.iter().filter_map(|searched| {
        let of_owner = by_owner.get(&searched.owner)?.as_ref();
        let found = of_owner.or_else(|| by_lock_id.get(&searched.lock_id)?.as_ref())?;
        Some((searched.lock_id, found.clone()))
    });
    found.collect()
}
