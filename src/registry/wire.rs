//! The registry's values as the interface shows them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use uuid::Uuid;

use super::model::{Allocation, Assignment, Moment, milliseconds};
use super::tables::{Entry, InstanceEntry};
use super::{Listener, Registry};
use crate::api::{self, AllocationState};

/// RFC 3339 UTC with milliseconds.
pub(crate) fn timestamp(unix_ms: u64) -> String {
    // 9999-12-31T23:59:59Z: beyond it there is no RFC 3339.
    let unix_ms = unix_ms.min(253_402_300_799_000);
    let time: SystemTime = UNIX_EPOCH + Duration::from_millis(unix_ms);
    humantime::format_rfc3339_millis(time).to_string()
}

impl Registry {
    /// One allocation as the interface shows it.
    pub fn show(&self, lock_id: Uuid, now: Moment) -> Option<api::Allocation> {
        self.tables.entry(lock_id).map(|entry| Self::entry_to_wire(entry, now))
    }

    /// The live allocations as the interface shows them, by port.
    pub fn show_all(&self, now: Moment) -> Vec<api::Allocation> {
        let mut shown = Vec::with_capacity(self.allocation_count());
        shown.extend(self.entries().map(|entry| Self::entry_to_wire(entry, now)));
        shown
    }

    /// An allocation that ended, as it was.
    pub fn show_ended(allocation: &Allocation, now: Moment) -> api::Allocation {
        to_wire(allocation, None, None, now)
    }

    pub(super) fn entry_to_wire(entry: &Entry, now: Moment) -> api::Allocation {
        to_wire(&entry.allocation, entry.listener.as_ref(), entry.elsewhere.as_ref(), now)
    }

    /// The instances as the interface shows them, by id.
    pub fn show_instances(&self) -> Vec<api::Instance> {
        let instances = self.tables.instances.values();
        instances
            .map(|InstanceEntry { instance, heard_ms, .. }| api::Instance {
                instance_id: instance.instance_id.clone(),
                working_directory: instance.working_directory.clone(),
                process_id: instance.process.map(|process| process.pid),
                registered_at: timestamp(instance.registered_at_ms),
                last_heartbeat: timestamp(*heard_ms),
                active_allocations: self
                    .allocations_of_instance(&instance.instance_id)
                    .iter()
                    .map(Uuid::to_string)
                    .collect(),
                metadata: instance.metadata.clone(),
            })
            .collect()
    }
}

fn to_wire(
    allocation: &Allocation,
    listener: Option<&Listener>,
    elsewhere: Option<&Listener>,
    now: Moment,
) -> api::Allocation {
    let expires_at = allocation.lease.map(|lease| {
        let now_ms = milliseconds(now.monotonic);
        timestamp(now.unix_ms.saturating_add(lease.until_ms.saturating_sub(now_ms)))
    });
    api::Allocation {
        port: allocation.port,
        protocol: allocation.protocol,
        service_type: allocation.service_type.clone(),
        service_name: allocation.service_name.clone(),
        process_id: allocation.owner.map(|owner| owner.process.pid),
        process_start_time: allocation.owner.map(|owner| owner.started_at),
        instance_id: allocation.instance_id.clone(),
        project_path: allocation.project_path.clone(),
        allocated_at: timestamp(allocation.allocated_at_ms),
        lock_id: allocation.lock_id.to_string(),
        expires_at,
        implicit_owner: allocation.owner.is_some_and(|owner| owner.implicit),
        state: match listener {
            Some(listener) if listener.own => AllocationState::Listening,
            Some(listener) if listener.is_conflict() => AllocationState::Conflict,
            _ => AllocationState::Reserved,
        },
        listener: listener.map(listener_to_wire),
        elsewhere: elsewhere.filter(|_| listener.is_none()).map(listener_to_wire),
    }
}

fn listener_to_wire(listener: &Listener) -> api::Listener {
    api::Listener {
        pid: listener.process.map(|process| process.pid),
        name: listener.name.clone(),
        local_address: listener.local_address.clone(),
    }
}

impl Assignment {
    /// The assignment as the interface shows it.
    pub fn to_wire(&self) -> api::Assignment {
        api::Assignment {
            port: self.port,
            project_path: self.key.project_path.clone(),
            service_type: self.service_type.clone(),
            service_name: self.key.name().map(str::to_owned),
            slot: self.key.slot(),
            last_used: timestamp(self.last_used_ms),
        }
    }
}
