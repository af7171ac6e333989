//! The registry's tables and their indexes: what is where, and nothing of why.
//!
//! Every value goes in and out through [`Tables::apply`], so the indexes can't be forgotten.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use foldhash::HashMap;
use uuid::Uuid;

use super::machine::Listener;
use super::model::{
    Allocation, Assignment, AssignmentKey, Change, Instance, Owner, Process, Reason, Service,
};
use super::port_set::PortSet;
use crate::api::Protocol;

/// One of the two transports of a port number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Transport {
    Tcp,
    Udp,
}

/// The transports that a protocol takes.
pub(crate) fn transports(protocol: Protocol) -> impl Iterator<Item = Transport> {
    let tcp = protocol.has_tcp().then_some(Transport::Tcp);
    let udp = protocol.has_udp().then_some(Transport::Udp);
    tcp.into_iter().chain(udp)
}

/// An allocation with what is known of it now, which no journal keeps.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) allocation: Allocation,
    /// Who listened on its port when somebody last looked.
    pub(super) listener: Option<Listener>,
    /// Where its program listens instead.
    pub(super) elsewhere: Option<Listener>,
    /// The owner whose death was reported. Another one may have come since.
    pub(super) dead: Option<Process>,
}

/// What takes one change back, with what no journal keeps.
#[derive(Debug)]
pub(super) enum Undo {
    /// This was there, just so.
    Allocation(Box<Entry>),
    /// This was there, just so.
    Instance(Box<InstanceEntry>),
    /// Another change undoes it.
    Change(Change),
    /// Who was seen to listen.
    Listener(Uuid, Option<Listener>),
    /// Whose death was known.
    Dead(Uuid, Option<Process>),
}

/// An instance with when it was last heard of.
#[derive(Debug, Clone)]
pub(super) struct InstanceEntry {
    pub(super) instance: Instance,
    pub(super) heard: Duration,
    pub(super) heard_ms: u64,
}

/// The numbers that the unnamed allocations of one (project, type) use.
#[derive(Debug, Default)]
struct Slots {
    /// The lowest number that was never used.
    next: u32,
    /// Those below it that are free again.
    free: BTreeSet<u32>,
}

#[derive(Debug, Default)]
pub(super) struct Tables {
    /// Each in a place of its own: one in 2,000 puts would move thousands of them for milliseconds.
    pub(super) allocations: HashMap<Uuid, Box<Entry>>,
    pub(super) by_port: BTreeMap<(u16, Transport), Uuid>,
    tcp: PortSet,
    udp: PortSet,
    by_owner: HashMap<Process, Vec<Uuid>>,
    by_listener: HashMap<Process, Vec<Uuid>>,
    by_service: HashMap<String, Vec<Uuid>>,
    by_instance: HashMap<String, Vec<Uuid>>,
    leases: BTreeSet<(u64, Uuid)>,
    slots: HashMap<String, Slots>,
    pub(super) instances: BTreeMap<String, InstanceEntry>,
    pub(super) assignments: BTreeMap<AssignmentKey, Assignment>,
    pub(super) assigned: HashMap<u16, AssignmentKey>,
}

/// One string for a service of a project, so that a look-up needs one key.
fn service_key(project: Option<&str>, name: &str) -> String {
    let project = project.unwrap_or_default();
    let mut key = String::with_capacity(project.len() + 1 + name.len());
    key.push_str(project);
    // No path and no name has it.
    key.push('\0');
    key.push_str(name);
    key
}

fn remove_from<K>(index: &mut HashMap<K, Vec<Uuid>>, key: &K, lock_id: Uuid)
where
    K: std::hash::Hash + Eq,
{
    if let Some(ids) = index.get_mut(key) {
        ids.retain(|id| *id != lock_id);
        if ids.is_empty() {
            index.remove(key);
        }
    }
}

impl Tables {
    /// Makes one change, and tells what would undo it; `None` if there was nothing to do.
    pub(super) fn apply(&mut self, change: Change) -> Option<Undo> {
        Some(match change {
            Change::Allocation(allocation) => {
                let lock_id = allocation.lock_id;
                Undo::Change(match self.put(allocation) {
                    Some(old) => Change::Allocation(old),
                    None => Change::Released { lock_id, reason: Reason::RolledBack },
                })
            }
            Change::Released { lock_id, .. } => Undo::Allocation(self.take(lock_id)?),
            Change::Instance(instance) => {
                let instance_id = instance.instance_id.clone();
                match self.put_instance(instance) {
                    Some(old) => Undo::Instance(Box::new(old)),
                    None => Undo::Change(Change::InstanceRemoved { instance_id }),
                }
            }
            Change::InstanceRemoved { instance_id } => {
                Undo::Instance(Box::new(self.instances.remove(&instance_id)?))
            }
            Change::Assignment(assignment) => {
                let key = assignment.key.clone();
                Undo::Change(match self.put_assignment(assignment) {
                    Some(old) => Change::Assignment(old),
                    None => Change::AssignmentRemoved { key },
                })
            }
            Change::AssignmentRemoved { key } => {
                let old = self.assignments.remove(&key)?;
                self.assigned.remove(&old.port);
                Undo::Change(Change::Assignment(old))
            }
        })
    }

    /// Takes one change back.
    pub(super) fn undo(&mut self, undo: Undo) {
        match undo {
            Undo::Allocation(entry) => {
                let Entry { allocation, listener, dead, .. } = *entry;
                let lock_id = allocation.lock_id;
                self.put(allocation);
                self.set_listener(lock_id, listener);
                self.set_dead(lock_id, dead);
            }
            Undo::Instance(entry) => {
                self.instances.insert(entry.instance.instance_id.clone(), *entry);
            }
            Undo::Change(change) => {
                self.apply(change);
            }
            Undo::Listener(lock_id, listener) => {
                self.set_listener(lock_id, listener);
            }
            Undo::Dead(lock_id, dead) => {
                self.set_dead(lock_id, dead);
            }
        }
    }

    fn put(&mut self, allocation: Allocation) -> Option<Allocation> {
        let lock_id = allocation.lock_id;
        let Some(entry) = self.allocations.get_mut(&lock_id) else {
            self.index(&allocation);
            let entry = Entry { allocation, listener: None, elsewhere: None, dead: None };
            self.allocations.insert(lock_id, Box::new(entry));
            return None;
        };
        let old = std::mem::replace(&mut entry.allocation, allocation.clone());
        self.unindex(&old);
        self.index(&allocation);
        Some(old)
    }

    fn take(&mut self, lock_id: Uuid) -> Option<Box<Entry>> {
        let listener = self.set_listener(lock_id, None);
        let mut entry = self.allocations.remove(&lock_id)?;
        self.unindex(&entry.allocation);
        entry.listener = listener;
        Some(entry)
    }

    /// The allocation of that id.
    pub(super) fn entry(&self, lock_id: Uuid) -> Option<&Entry> {
        self.allocations.get(&lock_id).map(Box::as_ref)
    }

    /// Notes who listens on the port of an allocation. Answers who did.
    pub(super) fn set_listener(
        &mut self,
        lock_id: Uuid,
        listener: Option<Listener>,
    ) -> Option<Listener> {
        let entry = self.allocations.get_mut(&lock_id)?;
        let old = std::mem::replace(&mut entry.listener, listener);
        let new = entry.listener.as_ref().and_then(|listener| listener.process);
        if let Some(process) = old.as_ref().and_then(|listener| listener.process) {
            remove_from(&mut self.by_listener, &process, lock_id);
        }
        if let Some(process) = new {
            self.by_listener.entry(process).or_default().push(lock_id);
        }
        old
    }

    /// Notes whose death was reported. Answers whose was before.
    pub(super) fn set_dead(&mut self, lock_id: Uuid, dead: Option<Process>) -> Option<Process> {
        let entry = self.allocations.get_mut(&lock_id)?;
        std::mem::replace(&mut entry.dead, dead)
    }

    fn index(&mut self, allocation: &Allocation) {
        let lock_id = allocation.lock_id;
        for transport in transports(allocation.protocol) {
            self.by_port.insert((allocation.port, transport), lock_id);
            self.ports_mut(transport).insert(allocation.port);
        }
        if let Some(owner) = &allocation.owner {
            self.by_owner.entry(owner.process).or_default().push(lock_id);
        }
        if let Some(instance_id) = &allocation.instance_id {
            self.by_instance.entry(instance_id.clone()).or_default().push(lock_id);
        }
        if let Some(lease) = &allocation.lease {
            self.leases.insert((lease.until_ms, lock_id));
        }
        let project = allocation.project_path.as_deref();
        if let Some(name) = &allocation.service_name {
            self.by_service.entry(service_key(project, name)).or_default().push(lock_id);
        }
        if let Some(slot) = allocation.slot {
            let key = service_key(project, &allocation.service_type);
            let slots = self.slots.entry(key).or_default();
            if slot >= slots.next {
                slots.free.extend(slots.next..slot);
                slots.next = slot + 1;
            } else {
                slots.free.remove(&slot);
            }
        }
    }

    fn unindex(&mut self, allocation: &Allocation) {
        let lock_id = allocation.lock_id;
        for transport in transports(allocation.protocol) {
            self.by_port.remove(&(allocation.port, transport));
            self.ports_mut(transport).remove(allocation.port);
        }
        if let Some(owner) = &allocation.owner {
            remove_from(&mut self.by_owner, &owner.process, lock_id);
        }
        if let Some(instance_id) = &allocation.instance_id {
            remove_from(&mut self.by_instance, instance_id, lock_id);
        }
        if let Some(lease) = &allocation.lease {
            self.leases.remove(&(lease.until_ms, lock_id));
        }
        let project = allocation.project_path.as_deref();
        if let Some(name) = &allocation.service_name {
            remove_from(&mut self.by_service, &service_key(project, name), lock_id);
        }
        if let Some(slot) = allocation.slot {
            let key = service_key(project, &allocation.service_type);
            if let Some(slots) = self.slots.get_mut(&key) {
                slots.free.insert(slot);
                if slots.free.len() == slots.next as usize {
                    self.slots.remove(&key);
                }
            }
        }
    }

    fn put_instance(&mut self, instance: Instance) -> Option<InstanceEntry> {
        let old = self.instances.remove(&instance.instance_id);
        let (heard, heard_ms) =
            old.as_ref().map_or((Duration::ZERO, 0), |old| (old.heard, old.heard_ms));
        let entry = InstanceEntry { instance, heard, heard_ms };
        self.instances.insert(entry.instance.instance_id.clone(), entry);
        old
    }

    fn put_assignment(&mut self, assignment: Assignment) -> Option<Assignment> {
        let old = self.assignments.remove(&assignment.key);
        if let Some(old) = &old {
            self.assigned.remove(&old.port);
        }
        self.assigned.insert(assignment.port, assignment.key.clone());
        self.assignments.insert(assignment.key.clone(), assignment);
        old
    }

    /// Whether a port is allocated for UDP.
    pub(super) fn has_udp(&self) -> bool {
        !self.udp.is_empty()
    }

    fn ports_mut(&mut self, transport: Transport) -> &mut PortSet {
        match transport {
            Transport::Tcp => &mut self.tcp,
            Transport::Udp => &mut self.udp,
        }
    }

    /// Whether an allocation has `port` for any transport of `protocol`.
    pub(super) fn is_allocated(&self, port: u16, protocol: Protocol) -> bool {
        protocol.has_tcp() && self.tcp.contains(port)
            || protocol.has_udp() && self.udp.contains(port)
    }

    /// The allocation that has `port` for a transport of `protocol`.
    pub(super) fn at(&self, port: u16, protocol: Protocol) -> Option<&Entry> {
        let lock_id =
            transports(protocol).find_map(|transport| self.by_port.get(&(port, transport)))?;
        self.entry(*lock_id)
    }

    /// The allocations whose owner is `process`.
    pub(super) fn owned_by(&self, process: Process) -> &[Uuid] {
        self.by_owner.get(&process).map_or(&[], Vec::as_slice)
    }

    /// The allocations on whose port `process` was seen to listen.
    pub(super) fn listened_by(&self, process: Process) -> &[Uuid] {
        self.by_listener.get(&process).map_or(&[], Vec::as_slice)
    }

    /// The live allocations of a named service, oldest first.
    pub(super) fn of_service(&self, project: Option<&str>, name: &str) -> &[Uuid] {
        self.by_service.get(&service_key(project, name)).map_or(&[], Vec::as_slice)
    }

    /// The allocations that carry an instance's id.
    pub(super) fn of_instance(&self, instance_id: &str) -> &[Uuid] {
        self.by_instance.get(instance_id).map_or(&[], Vec::as_slice)
    }

    /// The lowest slot that no live unnamed allocation of (project, type) uses.
    pub(super) fn free_slot(&self, project: Option<&str>, service_type: &str) -> u32 {
        self.slots
            .get(&service_key(project, service_type))
            .map_or(0, |slots| slots.free.first().copied().unwrap_or(slots.next))
    }

    /// The lease that ends first: when (milliseconds, monotonic), and whose it is.
    pub(super) fn first_lease(&self) -> Option<(u64, Uuid)> {
        self.leases.first().copied()
    }

    /// The leases that end at `now_ms` or before.
    pub(super) fn leases_until(&self, now_ms: u64) -> Vec<Uuid> {
        self.leases.range(..=(now_ms, Uuid::max())).map(|(_, lock_id)| *lock_id).collect()
    }

    /// Whose assignment `port` is, unless it is `key`'s own.
    pub(super) fn assigned_to_other(
        &self,
        port: u16,
        key: Option<&AssignmentKey>,
    ) -> Option<&AssignmentKey> {
        self.assigned.get(&port).filter(|other| Some(*other) != key)
    }
}

impl Entry {
    /// The owner, unless its death was reported.
    pub(super) fn living_owner(&self) -> Option<Owner> {
        self.allocation.owner.filter(|owner| self.dead != Some(owner.process))
    }
}

impl AssignmentKey {
    /// The name of a named service.
    pub fn name(&self) -> Option<&str> {
        match &self.service {
            Service::Named(name) => Some(name),
            Service::Slot(..) => None,
        }
    }

    /// The slot of an unnamed one.
    pub fn slot(&self) -> Option<u32> {
        match self.service {
            Service::Named(_) => None,
            Service::Slot(_, slot) => Some(slot),
        }
    }
}
