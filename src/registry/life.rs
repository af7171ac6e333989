//! How allocations end: holders, deaths, leases, listeners.
//!
//! The rule of this module: an allocation lives exactly while it has a holder, and release follows
//! the holders, never age.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use uuid::Uuid;

use super::machine::{Listener, Machine, Orphan};
use super::model::{Allocation, Change, Moment, Owner, Process, Reason, milliseconds};
use super::tables::{Entry, InstanceEntry, Undo};
use super::{Event, Registry};
use crate::api::Protocol;

/// What keeps an allocation alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holder {
    /// The process it was made for.
    Owner,
    /// The instance it was made for, where it has no owner.
    Instance,
    /// An own listener.
    Listener,
    /// A deadline that is still to come.
    Lease,
}

impl Registry {
    /// What keeps `lock_id` alive, the strongest first; `None` for one that should end, or is not
    /// there.
    pub fn holder(&self, lock_id: Uuid, now: Moment) -> Option<Holder> {
        self.holder_of(self.tables.entry(lock_id)?, now)
    }

    fn holder_of(&self, entry: &Entry, now: Moment) -> Option<Holder> {
        let Entry { allocation, listener, .. } = entry;
        if listener.as_ref().is_some_and(|listener| listener.own) {
            return Some(Holder::Listener);
        }
        if allocation.owner.is_some() {
            // A shell that stays open for weeks holds nothing once its server has come and gone.
            let holds = |owner: Owner| !(owner.implicit && allocation.taken_over);
            if entry.living_owner().is_some_and(holds) {
                return Some(Holder::Owner);
            }
        } else if let Some(instance_id) = &allocation.instance_id
            && self.tables.instances.contains_key(instance_id)
        {
            return Some(Holder::Instance);
        }
        let lease = allocation.lease.as_ref()?;
        (Duration::from_millis(lease.until_ms) > now.monotonic).then_some(Holder::Lease)
    }

    /// Processes died: what they owned goes to their heirs, to who listens, or ends.
    pub fn processes_died(&mut self, died: &[Process], machine: &mut impl Machine, now: Moment) {
        let owned = died.iter().flat_map(|process| self.tables.owned_by(*process));
        self.lose_owners(&owned.copied().collect::<Vec<_>>(), machine, now);
        let served = died.iter().flat_map(|process| self.tables.listened_by(*process));
        for lock_id in served.copied().collect::<Vec<_>>() {
            self.refresh(lock_id, machine, now);
        }
        let lost: Vec<String> = self
            .tables
            .instances
            .values()
            .filter(|entry| entry.instance.process.is_some_and(|process| died.contains(&process)))
            .map(|entry| entry.instance.instance_id.clone())
            .collect();
        for instance_id in lost {
            self.lose_instance(&instance_id, machine, now);
        }
    }

    /// The ports that somebody looks at when these processes have died, in their order, and for which
    /// protocol: what they own, what they listen on, and what instances hold that they prove to live.
    pub fn held_by(&self, processes: &[Process]) -> (BTreeSet<u16>, Protocol) {
        let tables = &self.tables;
        let is_theirs = |entry: &&InstanceEntry| {
            entry.instance.process.is_some_and(|it| processes.contains(&it))
        };
        let instances = tables.instances.values().filter(is_theirs);
        let owned = processes.iter().flat_map(|process| tables.owned_by(*process));
        let served = processes.iter().flat_map(|process| tables.listened_by(*process));
        let kept = instances.flat_map(|entry| tables.of_instance(&entry.instance.instance_id));
        let held = owned.chain(served).chain(kept).filter_map(|lock_id| self.allocation(*lock_id));
        let (mut ports, mut has_tcp, mut has_udp) = (BTreeSet::new(), false, false);
        for allocation in held {
            ports.insert(allocation.port);
            has_tcp |= allocation.protocol.has_tcp();
            has_udp |= allocation.protocol.has_udp();
        }
        let protocol = match (has_tcp, has_udp) {
            (_, false) => Protocol::Tcp,
            (false, true) => Protocol::Udp,
            (true, true) => Protocol::Both,
        };
        (ports, protocol)
    }

    /// The owners of these allocations are dead.
    fn lose_owners(&mut self, lock_ids: &[Uuid], machine: &mut impl Machine, now: Moment) {
        let mut orphans = Vec::new();
        for lock_id in lock_ids {
            let Some(entry) = self.tables.entry(*lock_id) else { continue };
            let dead = entry.allocation.owner.map(|owner| owner.process);
            self.undo.push(Undo::Dead(*lock_id, self.tables.set_dead(*lock_id, dead)));
            self.look(*lock_id, machine);
            if let Some(owner) = dead
                && let Some(entry) = self.tables.entry(*lock_id)
                && !has_served(entry)
            {
                let Allocation { lock_id, allocated_at_ms, .. } = entry.allocation;
                let implicit = entry.allocation.owner.is_some_and(|owner| owner.implicit);
                orphans.push(Orphan { lock_id, owner, implicit, allocated_at_ms });
            }
        }
        // `npm run dev &`, nohup, programs that go to the background: their child goes on with the
        // lock id that it has from them, and will listen soon. One look for all that died at once.
        let heirs = if orphans.is_empty() { HashMap::new() } else { machine.heirs(&orphans) };
        for lock_id in lock_ids {
            if let Some(heir) = heirs.get(lock_id)
                && let Some(entry) = self.tables.entry(*lock_id)
            {
                let allocation = Allocation { owner: Some(*heir), ..entry.allocation.clone() };
                self.record(Change::Allocation(allocation));
                self.events.push(Event::Inherited(*lock_id));
            } else {
                self.end_unless_held(*lock_id, Reason::OwnerDied, now);
            }
        }
    }

    /// Whether the death of an owner would make somebody look for its heirs.
    pub fn awaits_heirs(&self) -> bool {
        let mut entries = self.tables.allocations.values();
        entries.any(|entry| entry.living_owner().is_some() && !has_served(entry))
    }

    /// Looks at every allocation: listeners that came and went, leases that ran out, programs that
    /// listen elsewhere, and whatever an event should have told and didn't.
    pub fn sweep(&mut self, machine: &mut impl Machine, now: Moment) {
        self.refresh_all(machine, now);
        self.look_elsewhere(machine, now);
    }

    /// The same without the programs that listen elsewhere: so that an answer about all allocations
    /// is true now.
    pub fn refresh_all(&mut self, machine: &mut impl Machine, now: Moment) {
        let entries = self.tables.allocations.values();
        let mut due: Vec<(u16, Uuid)> = entries
            .filter(|entry| !self.is_quiet(entry, machine, now))
            .map(|entry| (entry.allocation.port, entry.allocation.lock_id))
            .collect();
        // The tables have no order of their own, and what happens is told by port.
        due.sort_unstable();
        for (_, lock_id) in due {
            self.refresh(lock_id, machine, now);
        }
        self.lose_silent_instances(machine, now);
    }

    /// Whether a look at an allocation would change nothing: nobody listened when somebody looked
    /// last, nobody does now, and it is held. Most are like that most of the time.
    fn is_quiet(&self, entry: &Entry, machine: &mut impl Machine, now: Moment) -> bool {
        entry.listener.is_none()
            && machine.listener(&entry.allocation).is_none()
            && self.holder_of(entry, now).is_some()
    }

    /// Ends what has a deadline that has passed: leases, and instances that fell silent.
    pub fn expire(&mut self, machine: &mut impl Machine, now: Moment) {
        let now_ms = milliseconds(now.monotonic);
        for lock_id in self.tables.leases_until(now_ms) {
            self.look(lock_id, machine);
            let Some(entry) = self.tables.entry(lock_id) else { continue };
            if self.holder_of(entry, now).is_none() {
                self.end(lock_id, Reason::LeaseExpired);
            } else if entry.allocation.lease.is_some() {
                // So that a deadline that has passed is not met again.
                let allocation = Allocation { lease: None, ..entry.allocation.clone() };
                self.record(Change::Allocation(allocation));
            }
        }
        self.lose_silent_instances(machine, now);
    }

    /// Looks at one allocation's port, so that an answer about it is true now.
    pub fn refresh(&mut self, lock_id: Uuid, machine: &mut impl Machine, now: Moment) {
        let had_listener = self.has_own_listener(lock_id);
        self.look(lock_id, machine);
        let Some(entry) = self.tables.entry(lock_id) else { return };
        let reason = if had_listener { Reason::ListenerGone } else { lapse(&entry.allocation) };
        self.end_unless_held(lock_id, reason, now);
    }

    fn has_own_listener(&self, lock_id: Uuid) -> bool {
        let entry = self.tables.entry(lock_id);
        entry.and_then(|entry| entry.listener.as_ref()).is_some_and(|listener| listener.own)
    }

    /// When [`Registry::expire`] may have something to do next, on the monotonic clock.
    pub fn next_deadline(&self) -> Option<Duration> {
        let lease = self.tables.first_lease().map(|(until_ms, _)| Duration::from_millis(until_ms));
        lease.into_iter().chain(self.silence).min()
    }

    /// Sees who listens on the port of an allocation. The first own listener takes over.
    pub(super) fn look(&mut self, lock_id: Uuid, machine: &mut impl Machine) {
        let Some(entry) = self.tables.entry(lock_id) else { return };
        let listener = machine.listener(&entry.allocation);
        let own = |listener: &Listener| listener.own;
        // A socket whose process isn't known yet counts as own, but it doesn't take over: it may
        // turn out to be a stranger's, and then the lease must still be there.
        let surely_own = |listener: &Listener| listener.own && listener.is_known();
        let was = entry.listener.as_ref().map(own);
        let is = listener.as_ref().map(own);
        let is_new = !entry.listener.as_ref().is_some_and(surely_own);
        let takes_over = listener.as_ref().is_some_and(surely_own)
            && (!entry.allocation.taken_over || is_new && entry.allocation.lease.is_some());
        let allocation = takes_over.then(|| Allocation {
            taken_over: true,
            lease: None,
            ..entry.allocation.clone()
        });
        let is_conflict = listener.as_ref().is_some_and(Listener::is_conflict);
        let process = |listener: &Listener| listener.process;
        let is_another =
            entry.listener.as_ref().and_then(process) != listener.as_ref().and_then(process);
        let was_told =
            entry.listener.as_ref().is_some_and(|listener| listener.own || listener.is_conflict());
        if listener != entry.listener {
            let old = self.tables.set_listener(lock_id, listener);
            self.undo.push(Undo::Listener(lock_id, old));
        }
        if let Some(allocation) = allocation {
            self.record(Change::Allocation(allocation));
        }
        match is {
            Some(true) if is != was => self.events.push(Event::Listening(lock_id)),
            Some(true) if is_another => self.events.push(Event::Identified(lock_id)),
            Some(false) if is != was && is_conflict => self.events.push(Event::Conflict(lock_id)),
            None if was_told => self.events.push(Event::Silent(lock_id)),
            _ => {}
        }
    }

    pub(super) fn end_unless_held(&mut self, lock_id: Uuid, reason: Reason, now: Moment) {
        let Some(entry) = self.tables.entry(lock_id) else { return };
        if self.holder_of(entry, now).is_none() {
            self.end(lock_id, reason);
        }
    }

    pub(super) fn end(&mut self, lock_id: Uuid, reason: Reason) -> Option<Allocation> {
        let entry = self.tables.entry(lock_id)?;
        let allocation = entry.allocation.clone();
        self.record(Change::Released { lock_id, reason });
        self.events.push(Event::Released(Box::new(allocation.clone()), reason));
        Some(allocation)
    }

    /// Releases what no holder keeps; with `force` everything. `scope` says which allocations are
    /// meant at all. Answers those that ended, by port.
    pub fn cleanup(
        &mut self,
        force: bool,
        scope: impl Fn(&Allocation) -> bool,
        machine: &mut impl Machine,
        now: Moment,
    ) -> Vec<Allocation> {
        let lock_ids: Vec<Uuid> = self
            .allocations()
            .filter(|allocation| scope(allocation))
            .map(|allocation| allocation.lock_id)
            .collect();
        if force {
            return lock_ids.iter().filter_map(|id| self.end(*id, Reason::Forced)).collect();
        }
        let before: Vec<Allocation> =
            lock_ids.iter().filter_map(|id| self.allocation(*id).cloned()).collect();
        self.examine(&lock_ids, machine, now);
        before.into_iter().filter(|it| self.allocation(it.lock_id).is_none()).collect()
    }

    /// Sees whether owners and listeners of allocations are there, without waiting to be told.
    pub(super) fn examine(&mut self, lock_ids: &[Uuid], machine: &mut impl Machine, now: Moment) {
        let mut orphans = Vec::new();
        for lock_id in lock_ids {
            let Some(entry) = self.tables.entry(*lock_id) else { continue };
            if entry.living_owner().is_some_and(|owner| !machine.is_alive(owner.process)) {
                orphans.push(*lock_id);
            } else {
                self.refresh(*lock_id, machine, now);
            }
        }
        self.lose_owners(&orphans, machine, now);
    }
}

/// Once something has listened there, who is left over when the owner dies has another purpose.
fn has_served(entry: &Entry) -> bool {
    entry.listener.is_some() || entry.allocation.taken_over
}

/// Why an allocation ends whose holder went before anybody looked.
fn lapse(allocation: &Allocation) -> Reason {
    if allocation.lease.is_some() {
        Reason::LeaseExpired
    } else if allocation.taken_over {
        Reason::ListenerGone
    } else if allocation.owner.is_some() {
        Reason::OwnerDied
    } else {
        Reason::InstanceLost
    }
}
