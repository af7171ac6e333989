//! Programs that listen, but not on the port that they were given.

use std::collections::HashMap;

use super::machine::{Machine, Searched};
use super::model::{Allocation, Moment};
use super::tables::Entry;
use super::{Event, Registry};
use crate::api::Protocol;

/// Some servers open another socket before the right one: so long nobody is told, in milliseconds.
const PATIENCE_MS: u64 = 1_000;

/// How long after its allocation a program is looked for, in milliseconds: while it starts.
const START_MS: u64 = 5 * 60 * 1_000;

impl Registry {
    /// Sees where the programs of allocations listen that nobody listens on. An implicit owner is a
    /// shell, which may have started anything.
    pub(super) fn look_elsewhere(&mut self, machine: &mut impl Machine, now: Moment) {
        let entries = self.tables.allocations.values();
        let searched: Vec<Searched> = entries.filter_map(|entry| searched(entry, now)).collect();
        let mut found = HashMap::new();
        if !searched.is_empty() {
            let is_allocated = |port| self.tables.is_allocated(port, Protocol::Tcp);
            found = machine.elsewhere(&searched, &is_allocated);
        }
        let entries = self.tables.allocations.values_mut();
        let mut news = Vec::new();
        for entry in entries {
            if entry.elsewhere.is_none() && found.is_empty() {
                continue;
            }
            let Allocation { port, lock_id, .. } = entry.allocation;
            let found = found.remove(&lock_id);
            if found != entry.elsewhere {
                entry.elsewhere = found;
                news.extend(entry.elsewhere.is_some().then_some((port, lock_id)));
            }
        }
        // The tables have no order of their own, and what happens is told by port.
        news.sort_unstable();
        self.events.extend(news.into_iter().map(|(_, lock_id)| Event::Elsewhere(lock_id)));
    }
}

/// Whether it is time to look for the program of an allocation.
fn searched(entry: &Entry, now: Moment) -> Option<Searched> {
    let age_ms = now.unix_ms.saturating_sub(entry.allocation.allocated_at_ms);
    let is_due = entry.elsewhere.is_some() || (PATIENCE_MS..START_MS).contains(&age_ms);
    if !is_due || entry.listener.is_some() {
        return None;
    }
    let owner = entry.living_owner().filter(|owner| !owner.implicit)?;
    Some(Searched { lock_id: entry.allocation.lock_id, owner: owner.process })
}
