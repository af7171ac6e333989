//! A request whose service or lock id has an allocation already.

use uuid::Uuid;

use super::Registry;
use super::allocate::{Granted, Request};
use super::machine::Machine;
use super::model::{Allocation, Change, Moment};
use super::tables::Entry;
use crate::api::{IfRunning, Protocol};
use crate::error::Error;

/// What is decided about a named request whose service has an allocation already.
pub(super) enum Reuse {
    /// Answer that one as it is.
    AsItIs(Uuid),
    /// It goes to the new owner.
    HandOver(Uuid),
    /// Make a new one beside these.
    Another(Vec<Uuid>),
}

impl Registry {
    /// Step 3 of the design: whether a named service's allocation answers this request too.
    pub(super) fn reuse(
        &self,
        request: &Request,
        machine: &mut impl Machine,
        now: Moment,
    ) -> Result<Reuse, Error> {
        let Some(name) = &request.service_name else {
            return Ok(Reuse::Another(Vec::new()));
        };
        let mut running = self.service(request.project_path.as_deref(), name, request.protocol);
        running.sort_by_key(|entry| (entry.allocation.allocated_at_ms, entry.allocation.lock_id));

        let fits = |entry: &&&Entry| {
            !request.exact || request.wish.is_none_or(|wish| wish == entry.allocation.port)
        };
        let same_owner = |entry: &&&Entry| {
            let owner = entry.allocation.owner.map(|owner| owner.process);
            owner.is_some() && owner == request.owner.map(|owner| owner.process)
        };
        if let Some(entry) = running.iter().filter(fits).find(same_owner) {
            return Ok(Reuse::AsItIs(entry.allocation.lock_id));
        }
        for entry in running.iter().filter(fits) {
            let allocation = &entry.allocation;
            let owner_gone = allocation
                .owner
                .is_none_or(|owner| owner.implicit || !machine.is_alive(owner.process));
            if owner_gone
                && allocation.instance_id == request.instance_id
                && machine.listener(allocation).is_none()
            {
                return Ok(Reuse::HandOver(allocation.lock_id));
            }
        }
        match (running.first(), request.if_running) {
            (Some(first), IfRunning::Refuse) => {
                Err(Error::AlreadyRunning { running: Box::new(Self::entry_to_wire(first, now)) })
            }
            (Some(first), IfRunning::Reuse) => Ok(Reuse::AsItIs(first.allocation.lock_id)),
            _ => Ok(Reuse::Another(running.iter().map(|entry| entry.allocation.lock_id).collect())),
        }
    }

    /// Gives the allocation `request.lock_id` to another owner, if it is still the previous one's: of
    /// several that want it one gets it.
    pub(super) fn take_over(
        &mut self,
        previous: u32,
        request: &Request,
        machine: &mut impl Machine,
        now: Moment,
    ) -> Result<Granted, Error> {
        let lock_id = request.lock_id;
        let allocation = self.allocation(lock_id);
        let allocation = allocation.ok_or_else(|| Error::UnknownLock(lock_id.to_string()))?;
        let again = repeated(request, allocation)?;
        let (Some(from), Some(to)) = (allocation.owner, request.owner) else {
            return Err(conflict(allocation));
        };
        if from.process == to.process {
            return Ok(again);
        }
        let may_go = from.process.pid == previous || !machine.is_alive(from.process);
        if !may_go || machine.listener(allocation).is_some() {
            return Err(conflict(allocation));
        }
        Ok(self.hand_over(lock_id, request, now))
    }

    /// The live allocations of a named service with just that protocol.
    fn service(&self, project: Option<&str>, name: &str, protocol: Protocol) -> Vec<&Entry> {
        let ids = self.tables.of_service(project, name).iter();
        ids.filter_map(|lock_id| self.tables.entry(*lock_id))
            .filter(|entry| entry.allocation.protocol == protocol)
            .collect()
    }

    /// Gives an allocation that nobody uses to whoever asks now.
    pub(super) fn hand_over(&mut self, lock_id: Uuid, request: &Request, now: Moment) -> Granted {
        let mut notes = self.other_port(lock_id, request);
        if let Some(entry) = self.tables.entry(lock_id) {
            let mut allocation = entry.allocation.clone();
            // The name says which service it is; its new owner may know better what it is.
            allocation.service_type.clone_from(&request.service_type);
            allocation.owner = request.owner;
            allocation.lease = self.lease_for(request, now, &mut notes);
            allocation.taken_over = false;
            self.record(Change::Allocation(allocation));
        }
        granted_again(lock_id, notes)
    }

    /// Why a service that has a port already does not get the one asked for.
    pub(super) fn other_port(&self, lock_id: Uuid, request: &Request) -> Vec<String> {
        let port = self.allocation(lock_id).map(|allocation| allocation.port);
        let told = request.wish.zip(port).filter(|(wish, port)| wish != port);
        let tell = |(wish, port)| {
            format!(
                "not {wish}: this service has port {port} already (styxy release {lock_id} gives it back)"
            )
        };
        told.map(tell).into_iter().collect()
    }
}

/// The same lock id again: the same allocation, if it is the same request.
pub(super) fn repeated(request: &Request, allocation: &Allocation) -> Result<Granted, Error> {
    let same = request.service_type == allocation.service_type
        && request.service_name == allocation.service_name
        && request.project_path == allocation.project_path
        && request.protocol == allocation.protocol;
    if same { Ok(granted_again(allocation.lock_id, Vec::new())) } else { Err(conflict(allocation)) }
}

fn conflict(allocation: &Allocation) -> Error {
    Error::LockIdConflict { lock_id: allocation.lock_id.to_string(), port: allocation.port }
}

pub(super) fn granted_again(lock_id: Uuid, notes: Vec<String>) -> Granted {
    Granted { lock_id, reused: true, also_running: Vec::new(), moved: None, notes }
}
