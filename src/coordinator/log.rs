//! What happened, a line each, with fields that the journal can search.

use tracing::{info, warn};

use crate::registry::{Allocation, Event, Registry, describe};
use crate::text::printable;

/// Logs one event. Nothing is logged for a heartbeat: it says nothing that anybody would look for.
pub(super) fn event(event: &Event, registry: &Registry) {
    match event {
        Event::Allocated(lock_id) => {
            if let Some(allocation) = registry.allocation(*lock_id) {
                allocated(allocation, "allocated to");
            }
        }
        Event::Inherited(lock_id) => {
            if let Some(allocation) = registry.allocation(*lock_id) {
                allocated(allocation, "inherited by");
            }
        }
        Event::Elsewhere(_) | Event::Listening(_) | Event::Identified(_) | Event::Silent(_) => {}
        Event::Conflict(lock_id) => {
            if let Some(allocation) = registry.allocation(*lock_id) {
                warn!(
                    port = allocation.port,
                    lock_id = %allocation.lock_id,
                    pid = pid(allocation),
                    service_type = allocation.service_type,
                    project = allocation.project_path,
                    "port {} of {} is used by another program",
                    allocation.port,
                    printable(&describe(allocation)),
                );
            }
        }
        Event::Released(allocation, reason) => info!(
            port = allocation.port,
            lock_id = %allocation.lock_id,
            pid = pid(allocation),
            service_type = allocation.service_type,
            project = allocation.project_path,
            reason = reason.as_str(),
            "port {} released by {}: {}",
            allocation.port,
            printable(&describe(allocation)),
            reason.as_str(),
        ),
        Event::InstanceLost(instance_id) => {
            info!(instance_id, "instance {} lost", printable(instance_id));
        }
        Event::Moved(moved) => info!(
            port = moved.to,
            project = moved.project_path,
            "the port of {} in {} is {} from now on, it was {}",
            printable(moved.service_name.as_deref().unwrap_or(&moved.service_type)),
            printable(&moved.project_path),
            moved.to,
            moved.from,
        ),
    }
}

fn allocated(allocation: &Allocation, verb: &str) {
    info!(
        port = allocation.port,
        lock_id = %allocation.lock_id,
        pid = pid(allocation),
        service_type = allocation.service_type,
        project = allocation.project_path,
        "port {} {verb} {}",
        allocation.port,
        printable(&describe(allocation)),
    );
}

fn pid(allocation: &Allocation) -> Option<u32> {
    allocation.owner.map(|owner| owner.process.pid)
}
