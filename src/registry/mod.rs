//! The allocation layer: who has which port, and who gets which next.
//!
//! Pure: no input or output, no clock, no /proc. It is handed facts and answers with decisions, so
//! that every rule is tested without a machine.
//!
//! An operation changes the tables at once and remembers what it did. Whoever called it then
//! journals [`Registry::changes`] and calls [`Registry::commit`], or [`Registry::rollback`] when
//! the journal refused. So nothing is answered that was not written, and a batch is all or none.
//! Several operations may be journaled together; a [`Registry::savepoint`] parts them.

mod allocate;
mod assignments;
mod candidates;
mod elsewhere;
mod instances;
mod life;
mod machine;
mod model;
mod policy;
mod port_set;
mod reuse;
mod suggest;
mod tables;
#[cfg(test)]
mod tests;
mod wire;

use std::time::Duration;

use uuid::Uuid;

pub use allocate::{Granted, Request, describe};
pub use assignments::Wanted;
pub use instances::Registration;
pub use life::Holder;
pub use machine::{Listener, Machine, Orphan, Probe, Publisher, Searched};
pub(crate) use model::milliseconds;
pub use model::{
    Allocation, Assignment, AssignmentKey, Change, Instance, Lease, Moment, Owner, Process, Reason,
    Service,
};
pub use policy::{HEARTBEAT, Policy};
pub use suggest::Suggestions;
pub(crate) use tables::{Transport, transports};
pub(crate) use wire::timestamp;

use crate::api::{Moved, Protocol};
use tables::{Entry, Tables, Undo};

/// More than all ports of both protocols.
const MAX_SLOTS: u32 = 1 << 17;

/// Something that happened, for the log and for who follows along.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// An allocation was made.
    Allocated(Uuid),
    /// Its own listener is there.
    Listening(Uuid),
    /// The process of its own listener is known now, or is another one.
    Identified(Uuid),
    /// A stranger listens on its port.
    Conflict(Uuid),
    /// Nobody listens on its port any more, and something else holds it.
    Silent(Uuid),
    /// Nobody listens on its port, but its program does on another one.
    Elsewhere(Uuid),
    /// Its owner died, and a process with its lock id in the environment is the owner now.
    Inherited(Uuid),
    /// It ended.
    Released(Box<Allocation>, Reason),
    /// An instance died or fell silent.
    InstanceLost(String),
    /// A service's port is another one from now on.
    Moved(Moved),
}

/// Who has which port.
#[derive(Debug)]
pub struct Registry {
    policy: Policy,
    tables: Tables,
    changes: Vec<Change>,
    undo: Vec<Undo>,
    events: Vec<Event>,
    savepoint: Savepoint,
    /// No instance falls silent before; `None`: none can. Heartbeats only make it later, so it is
    /// worked out anew only when it is reached.
    silence: Option<Duration>,
}

/// How much had been changed, and not committed, before an operation began.
#[derive(Debug, Clone, Copy, Default)]
struct Savepoint {
    changes: usize,
    undo: usize,
    events: usize,
}

impl Registry {
    /// An empty registry.
    pub fn new(policy: Policy) -> Self {
        Self {
            policy,
            tables: Tables::default(),
            changes: Vec::new(),
            undo: Vec::new(),
            events: Vec::new(),
            savepoint: Savepoint::default(),
            silence: None,
        }
    }

    /// Takes up what a journal says, in its order. Then [`Registry::resume`] looks at what became
    /// of it.
    pub fn replay(&mut self, mut change: Change) {
        // More slots than there are ports were never given; the gaps below one are remembered.
        if let Change::Allocation(Allocation { slot, .. }) = &mut change {
            *slot = slot.filter(|slot| *slot < MAX_SLOTS);
        }
        // A damaged journal may have lost the line that freed this port: the later line is right.
        match &change {
            Change::Allocation(new) => {
                for transport in transports(new.protocol) {
                    if let Some(holder) = self.tables.by_port.get(&(new.port, transport)).copied()
                        && holder != new.lock_id
                    {
                        let reason = Reason::RolledBack;
                        self.tables.apply(Change::Released { lock_id: holder, reason });
                    }
                }
            }
            Change::Assignment(new) => {
                if let Some(other) = self.tables.assigned_to_other(new.port, Some(&new.key)) {
                    let key = other.clone();
                    self.tables.apply(Change::AssignmentRemoved { key });
                }
            }
            _ => {}
        }
        self.tables.apply(change);
    }

    /// Goes on after a replay: sees which owners live and who listens, and ends what nobody holds.
    ///
    /// With `renew_leases`, every lease and every heartbeat gets a full period: nobody could renew
    /// while no daemon was there.
    pub fn resume(&mut self, renew_leases: bool, machine: &mut impl Machine, now: Moment) {
        let lock_ids: Vec<Uuid> = self.tables.allocations.keys().copied().collect();
        if renew_leases {
            for lock_id in &lock_ids {
                self.renew_period(*lock_id, now);
            }
        }
        self.hear_all(now);
        self.lose_dead_instances(machine, now);
        self.examine(&lock_ids, machine, now);
        self.expire(machine, now);
    }

    /// Begins the period of a lease anew, if there is one.
    fn renew_period(&mut self, lock_id: Uuid, now: Moment) {
        let Some(allocation) = self.allocation(lock_id) else { return };
        let Some(lease) = allocation.lease else { return };
        let lease = Some(Lease::starting(now, Duration::from_millis(lease.length_ms)));
        let allocation = Allocation { lease, ..allocation.clone() };
        self.record(Change::Allocation(allocation));
    }

    /// Makes a change and remembers how to undo it.
    fn record(&mut self, change: Change) {
        if let Some(undo) = self.tables.apply(change.clone()) {
            self.changes.push(change);
            self.undo.push(undo);
        }
    }

    /// What was changed since the last commit: what the journal must keep.
    pub fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// The changes are written. Answers what happened, in order.
    pub fn commit(&mut self) -> Vec<Event> {
        self.changes.clear();
        self.undo.clear();
        self.savepoint = Savepoint::default();
        std::mem::take(&mut self.events)
    }

    /// An operation begins: what others have changed before is not touched by
    /// [`Registry::rollback`].
    pub fn savepoint(&mut self) {
        self.savepoint = Savepoint {
            changes: self.changes.len(),
            undo: self.undo.len(),
            events: self.events.len(),
        };
    }

    /// Takes back every change since the last savepoint or commit.
    pub fn rollback(&mut self) {
        let Savepoint { changes, undo, events } = self.savepoint;
        self.changes.truncate(changes);
        self.events.truncate(events);
        while self.undo.len() > undo
            && let Some(undo) = self.undo.pop()
        {
            self.tables.undo(undo);
        }
    }

    /// Takes back every change since the last commit.
    pub fn rollback_all(&mut self) {
        self.savepoint = Savepoint::default();
        self.rollback();
    }

    /// Every value as a change that makes it: a journal of nothing but this is the same registry.
    pub fn snapshot(&self) -> impl Iterator<Item = Change> {
        let instances = self.tables.instances.values().map(|entry| entry.instance.clone());
        let assignments = self.tables.assignments.values().cloned();
        instances
            .map(Change::Instance)
            .chain(assignments.map(Change::Assignment))
            .chain(self.allocations().cloned().map(Change::Allocation))
    }

    /// How many values there are: what [`Registry::snapshot`] would count.
    pub fn len(&self) -> usize {
        let Tables { allocations, instances, assignments, .. } = &self.tables;
        allocations.len() + instances.len() + assignments.len()
    }

    /// Whether there is nothing at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The live allocations, by port.
    pub fn allocations(&self) -> impl Iterator<Item = &Allocation> {
        self.entries().map(|entry| &entry.allocation)
    }

    fn entries(&self) -> impl Iterator<Item = &Entry> {
        let mut last = None;
        self.tables
            .by_port
            .values()
            // `both` stands in the index twice, one after the other.
            .filter(move |lock_id| last.replace(**lock_id) != Some(**lock_id))
            .filter_map(|lock_id| self.tables.entry(*lock_id))
    }

    /// The ports that are allocated, in their order; one may come twice.
    pub fn ports(&self) -> impl Iterator<Item = u16> {
        self.tables.by_port.keys().map(|(port, _)| *port)
    }

    /// Of which protocol the sockets are that may say something of an allocation: of TCP always,
    /// because a program may listen elsewhere.
    pub fn protocol_to_watch(&self) -> Protocol {
        if self.tables.has_udp() { Protocol::Both } else { Protocol::Tcp }
    }

    /// Whether the life of an allocation or an instance depends on `process`.
    pub fn involves(&self, process: Process) -> bool {
        !self.tables.owned_by(process).is_empty()
            || !self.tables.listened_by(process).is_empty()
            || self.tables.instances.values().any(|entry| entry.instance.process == Some(process))
    }

    /// One allocation.
    pub fn allocation(&self, lock_id: Uuid) -> Option<&Allocation> {
        self.tables.entry(lock_id).map(|entry| &entry.allocation)
    }

    /// The allocation that has `port` for a transport of `protocol`.
    pub fn allocation_at(&self, port: u16, protocol: Protocol) -> Option<&Allocation> {
        self.tables.at(port, protocol).map(|entry| &entry.allocation)
    }

    /// Who listens on the port of an allocation, as it was seen last.
    pub fn listener(&self, lock_id: Uuid) -> Option<&Listener> {
        self.tables.entry(lock_id)?.listener.as_ref()
    }

    /// The instances, by id.
    pub fn instances(&self) -> impl Iterator<Item = &Instance> {
        self.tables.instances.values().map(|entry| &entry.instance)
    }

    /// The assignments, by project and service.
    pub fn assignments(&self) -> impl Iterator<Item = &Assignment> {
        self.tables.assignments.values()
    }

    /// How many allocations there are.
    pub fn allocation_count(&self) -> usize {
        self.tables.allocations.len()
    }

    /// How many instances there are.
    pub fn instance_count(&self) -> usize {
        self.tables.instances.len()
    }

    /// Puts other rules in force. What was allocated and assigned stays.
    pub fn set_policy(&mut self, policy: Policy) {
        self.policy = policy;
    }

    /// The rules in force.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }
}
