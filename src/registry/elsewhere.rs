//! Programs that listen, but not on the port that they were given.

use uuid::Uuid;

use super::machine::Machine;
use super::model::Moment;
use super::{Event, Registry};
use crate::api::Protocol;

/// Some servers open another socket before the right one: so long nobody is told, in milliseconds.
const PATIENCE_MS: u64 = 1_000;

/// How long after its allocation a program is looked for, in milliseconds: while it starts.
const START_MS: u64 = 5 * 60 * 1_000;

impl Registry {
    /// Sees where the program of an allocation listens that nobody listens on. An implicit owner is
    /// a shell, which may have started anything.
    pub(super) fn look_elsewhere(
        &mut self,
        lock_id: Uuid,
        machine: &mut impl Machine,
        now: Moment,
    ) {
        let Some(entry) = self.tables.allocations.get(&lock_id) else { return };
        let age_ms = now.unix_ms.saturating_sub(entry.allocation.allocated_at_ms);
        let is_due = entry.elsewhere.is_some() || (PATIENCE_MS..START_MS).contains(&age_ms);
        let has_owner = entry.living_owner().is_some_and(|owner| !owner.implicit);
        let found = if is_due && has_owner && entry.listener.is_none() {
            let is_allocated = |port| self.tables.is_allocated(port, Protocol::Tcp);
            machine.elsewhere(&entry.allocation, &is_allocated)
        } else {
            None
        };
        if found != entry.elsewhere
            && let Some(entry) = self.tables.allocations.get_mut(&lock_id)
        {
            entry.elsewhere = found;
            if entry.elsewhere.is_some() {
                self.events.push(Event::Elsewhere(lock_id));
            }
        }
    }
}
