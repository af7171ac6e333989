//! `POST /allocate` and its batch: a request is checked, its owner verified, and then decided.

use super::lock_ids::LockIds;
use super::{Coordinator, Decided, Inner, Peer, now, validate};
use crate::api::{self, AllocateRequest, AllocateResponse};
use crate::error::Error;
use crate::registry::{Granted, Moment, Registry, Request};

impl Coordinator {
    /// `POST /allocate`.
    ///
    /// # Errors
    ///
    /// Every refusal of the allocation.
    pub fn allocate(
        &self,
        request: &AllocateRequest,
        peer: Peer,
    ) -> Result<AllocateResponse, Error> {
        if request.dry_run {
            let mut inner = self.lock();
            let answer = self.allocate_in(&mut inner, request, peer, now());
            inner.registry.rollback();
            inner.dismiss_bystanders();
            return answer;
        }
        self.written(self.begin_allocate(request, peer)?)
    }

    pub(super) fn begin_allocate(
        &self,
        request: &AllocateRequest,
        peer: Peer,
    ) -> Result<Decided<AllocateResponse>, Error> {
        self.decide(|inner, now| self.allocate_in(inner, request, peer, now))
    }

    /// `POST /allocate/batch`: all or none.
    ///
    /// # Errors
    ///
    /// The refusal of the first request that is refused.
    pub fn allocate_batch(
        &self,
        batch: &api::BatchRequest,
        peer: Peer,
    ) -> Result<api::BatchResponse, Error> {
        validate::entries("requests", batch.requests.len())?;
        if let Some(index) = batch.requests.iter().position(|request| request.dry_run) {
            return Err(Error::invalid(format!("requests[{index}].dry_run"), "is not for batches"));
        }
        let allocations = self.change(|inner, now| {
            let requests = batch.requests.iter().enumerate();
            requests
                .map(|(index, request)| {
                    self.allocate_in(inner, request, peer, now)
                        .map_err(|error| validate::within(error, "requests", index))
                })
                .collect::<Result<Vec<_>, _>>()
        })?;
        Ok(api::BatchResponse { success: true, allocations })
    }

    pub(super) fn allocate_in(
        &self,
        inner: &mut Inner,
        request: &AllocateRequest,
        peer: Peer,
        now: Moment,
    ) -> Result<AllocateResponse, Error> {
        let checked = checked(request, &mut inner.lock_ids)?;
        let verified = inner.verify_owner(request, peer, now)?;
        // Who was named and cannot be believed gets a lease instead.
        let instead = verified.note.as_ref().map(|_| inner.registry.policy().default_lease);
        let lease = checked.lease.or(instead);
        let request = Request { owner: verified.owner, lease, ..checked };
        let granted = inner.registry.allocate(&request, &mut inner.host, now);
        self.wake_for_engines(inner);
        let mut granted = granted.map_err(|error| self.with_nearest(error))?;
        granted.notes.extend(verified.note);
        answer(&inner.registry, granted, now)
    }

    /// Adds the known service type that looks most like an unknown one.
    pub(super) fn with_nearest(&self, error: Error) -> Error {
        match error {
            Error::UnknownServiceType { given, known, .. } => {
                let nearest = self.config().nearest_service_type(&given).map(str::to_owned);
                Error::UnknownServiceType { given, nearest, known }
            }
            error => error,
        }
    }
}

/// A request with its values checked; the owner is verified separately.
fn checked(request: &AllocateRequest, lock_ids: &mut LockIds) -> Result<Request, Error> {
    if let Some(name) = &request.service_name {
        validate::name("service_name", name)?;
    }
    if let Some(id) = &request.instance_id {
        validate::name("instance_id", id)?;
    }
    validate::avoided(&request.avoid_ports)?;
    let project = request.project_path.as_deref();
    let lock_id = request.lock_id.as_deref();
    Ok(Request {
        service_type: request.service_type.clone(),
        service_name: request.service_name.clone(),
        project_path: project.map(|path| validate::path("project_path", path)).transpose()?,
        protocol: request.protocol,
        wish: request.preferred_port,
        exact: request.exact,
        avoid: request.avoid_ports.clone(),
        owner: None,
        instance_id: request.instance_id.clone(),
        lease: validate::lease(request.lease_seconds)?,
        if_running: request.if_running,
        previous: request.previous_process_id,
        lock_id: lock_id.map_or_else(|| Ok(lock_ids.next()), validate::chosen_lock_id)?,
    })
}

/// The answer to a granted request.
fn answer(registry: &Registry, granted: Granted, now: Moment) -> Result<AllocateResponse, Error> {
    let allocation = registry
        .show(granted.lock_id, now)
        .ok_or_else(|| Error::UnknownLock(granted.lock_id.to_string()))?;
    let also_running = granted.also_running.iter().filter_map(|id| registry.show(*id, now));
    let service = match &allocation.service_name {
        Some(name) => format!("{} service '{name}'", allocation.service_type),
        None => format!("{} service", allocation.service_type),
    };
    Ok(AllocateResponse {
        success: true,
        port: allocation.port,
        lock_id: allocation.lock_id.clone(),
        message: format!("Port {} allocated for {service}", allocation.port),
        reused: granted.reused,
        also_running: also_running.collect(),
        allocation,
        notes: granted.notes,
    })
}
