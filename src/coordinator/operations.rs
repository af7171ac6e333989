//! The operations of the wire, one method each.

use uuid::Uuid;

use super::{Coordinator, Inner, Journal, Peer, now, validate};
use crate::api::{self, AllocateRequest, AllocateResponse, Protocol};
use crate::detect::holders;
use crate::error::Error;
use crate::registry::{
    Allocation, Assignment, Granted, HEARTBEAT, Machine, Moment, Probe, Registration, Registry,
    Request, Wanted,
};

/// The most requests of one batch, and the most services of one `POST /assign`.
const MAX_BATCH: usize = 64;

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
        self.change(|inner, now| self.allocate_in(inner, request, peer, now))
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
        check_count("requests", batch.requests.len())?;
        if let Some(index) = batch.requests.iter().position(|request| request.dry_run) {
            return Err(Error::invalid(format!("requests[{index}].dry_run"), "is not for batches"));
        }
        let allocations = self.change(|inner, now| {
            let requests = batch.requests.iter().enumerate();
            requests
                .map(|(index, request)| {
                    self.allocate_in(inner, request, peer, now)
                        .map_err(|error| within(error, "requests", index))
                })
                .collect::<Result<Vec<_>, _>>()
        })?;
        Ok(api::BatchResponse { success: true, allocations })
    }

    fn allocate_in(
        &self,
        inner: &mut Inner,
        request: &AllocateRequest,
        peer: Peer,
        now: Moment,
    ) -> Result<AllocateResponse, Error> {
        let checked = checked(request)?;
        let verified = inner.verify_owner(request, peer)?;
        // Who was named and cannot be believed gets a lease instead.
        let instead = verified.note.as_ref().map(|_| inner.registry.policy().default_lease);
        let lease = checked.lease.or(instead);
        let request = Request { owner: verified.owner, lease, ..checked };
        let granted = inner.registry.allocate(&request, &mut inner.host, now);
        let mut granted = granted.map_err(|error| self.with_nearest(error))?;
        granted.notes.extend(verified.note);
        answer(&inner.registry, granted, now)
    }

    /// Adds the known service type that looks most like an unknown one.
    fn with_nearest(&self, error: Error) -> Error {
        match error {
            Error::UnknownServiceType { given, known, .. } => {
                let nearest = self.config.nearest_service_type(&given).map(str::to_owned);
                Error::UnknownServiceType { given, nearest, known }
            }
            error => error,
        }
    }

    /// Adds to a refusal who holds the port, where the registry doesn't know. Slow: it looks
    /// through /proc.
    pub fn name_holder(error: Error) -> Error {
        match error {
            Error::PortUnavailable {
                port,
                reason,
                allocated_to: None,
                system_usage: None,
                instead,
            } => {
                let usage = holders::usage(port, Protocol::Both).ok().flatten().map(Box::new);
                Error::PortUnavailable {
                    port,
                    reason,
                    allocated_to: None,
                    system_usage: usage,
                    instead,
                }
            }
            error => error,
        }
    }

    /// `POST /allocate/{lockId}/renew`.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownLock`], [`Error::InvalidValue`], [`Error::StateNotWritable`].
    pub fn renew(
        &self,
        lock_id: &str,
        request: &api::RenewRequest,
    ) -> Result<api::RenewResponse, Error> {
        let length = validate::lease(request.lease_seconds)?;
        let id = validate::lock_id(lock_id)?;
        self.change(|inner, now| {
            inner.registry.renew(id, length, now)?;
            let shown = inner.registry.show(id, now);
            let expires_at = shown.and_then(|allocation| allocation.expires_at).unwrap_or_default();
            Ok(api::RenewResponse { success: true, lock_id: id.to_string(), expires_at })
        })
    }

    /// `DELETE /allocate/{lockId}`.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownLock`]; [`Error::StateNotWritable`] when the release counts, but could not
    /// be written yet.
    pub fn release(&self, lock_id: &str) -> Result<api::ReleaseResponse, Error> {
        let id = validate::lock_id(lock_id)?;
        self.end(|inner, _| {
            let Allocation { port, lock_id, .. } = inner.registry.release(id)?;
            Ok(api::ReleaseResponse {
                success: true,
                port,
                lock_id: lock_id.to_string(),
                message: format!("Port {port} released"),
            })
        })
    }

    /// Carries out an operation that ends something: it counts even when it can't be written yet,
    /// but then it is not answered as done.
    fn end<T>(
        &self,
        operation: impl FnOnce(&mut Inner, Moment) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let mut inner = self.lock();
        inner.journal.is_usable()?;
        let answer = operation(&mut inner, now()).inspect_err(|_| inner.registry.rollback())?;
        let written = inner.write_or_defer();
        self.commit(&mut inner);
        written.map_err(Error::StateNotWritable)?;
        Ok(answer)
    }

    /// `GET /check/{port}`. Slow when the port is used: it looks through /proc for who it is.
    pub fn check(&self, port: u16, protocol: Protocol) -> api::CheckResponse {
        let (allocated_to, free) = {
            let mut inner = self.lock();
            let inner = &mut *inner;
            let now = now();
            let at = inner.registry.allocation_at(port, protocol).map(|it| it.lock_id);
            if let Some(lock_id) = at {
                inner.registry.refresh(lock_id, &mut inner.host, now);
                inner.settle();
            }
            let allocated_to = at.and_then(|lock_id| inner.registry.show(lock_id, now));
            // A probe occupies the port for a moment: never an allocated one.
            let free = allocated_to.is_none() && inner.host.probe(port, protocol) == Probe::Free;
            (allocated_to, free)
        };
        // What the kernel refuses to tell is as good as not seen.
        let usage = || holders::usage(port, protocol).ok().flatten();
        let system_usage = if free { None } else { usage() };
        api::CheckResponse { port, available: free, allocated_to, system_usage }
    }

    /// `GET /suggest/{serviceType}`.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownServiceType`], [`Error::InvalidValue`].
    pub fn suggest(&self, service_type: &str, count: usize) -> Result<api::SuggestResponse, Error> {
        let count = validate::count(count)?;
        let mut inner = self.lock();
        let inner = &mut *inner;
        let suggestions = inner.registry.suggest(service_type, count, &mut inner.host);
        let suggestions = suggestions.map_err(|error| self.with_nearest(error))?;
        let count = suggestions.len();
        let ports = if count == 1 { "port is" } else { "ports are" };
        Ok(api::SuggestResponse {
            service_type: service_type.to_owned(),
            message: format!("{count} {ports} free for {service_type}; nothing is reserved"),
            suggestions,
            count,
        })
    }

    /// `POST /instance/register`. Answers also whether it was new.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidValue`], [`Error::UnknownProcess`], [`Error::StateNotWritable`].
    pub fn register(
        &self,
        request: &api::RegisterRequest,
        peer: Peer,
    ) -> Result<(api::RegisterResponse, bool), Error> {
        if let Some(id) = &request.instance_id {
            validate::instance_id(id)?;
        }
        if let Some(metadata) = &request.metadata {
            validate::metadata(metadata)?;
        }
        let directory = request.working_directory.as_deref();
        let working_directory =
            directory.map(|path| validate::path("working_directory", path)).transpose()?;
        let instance_id = request.instance_id.clone().unwrap_or_else(|| Uuid::new_v4().to_string());
        self.change(|inner, now| {
            let named = AllocateRequest { process_id: request.process_id, ..Default::default() };
            let owner = inner.verify_owner(&named, peer)?.owner;
            let registration = Registration {
                instance_id: instance_id.clone(),
                working_directory,
                process: owner.map(|owner| owner.process),
                metadata: request.metadata.clone().unwrap_or_default(),
            };
            let is_new = inner.registry.register(registration, now);
            let proof = match owner {
                Some(owner) => format!("lives while process {} does", owner.process.pid),
                None => format!("lives while it is heard of every {} s", HEARTBEAT.as_secs()),
            };
            let message = format!("Instance {instance_id} {proof}");
            let heartbeat_seconds = HEARTBEAT.as_secs();
            let answer =
                api::RegisterResponse { success: true, instance_id, heartbeat_seconds, message };
            Ok((answer, is_new))
        })
    }

    /// `POST /instance/heartbeat`.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownInstance`], [`Error::StateNotWritable`].
    pub fn heartbeat(&self, instance_id: &str) -> Result<api::HeartbeatResponse, Error> {
        let mut inner = self.lock();
        inner.journal.is_usable()?;
        let now = now();
        inner.registry.heartbeat(instance_id, now)?;
        Ok(api::HeartbeatResponse {
            success: true,
            instance_id: instance_id.to_owned(),
            last_heartbeat: crate::registry::timestamp(now.unix_ms),
        })
    }

    /// `GET /instance/list`.
    pub fn instances(&self) -> api::InstancesResponse {
        api::InstancesResponse { instances: self.lock().registry.show_instances() }
    }

    /// `DELETE /instance/{id}`.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownInstance`], [`Error::StateNotWritable`].
    pub fn remove_instance(&self, instance_id: &str) -> Result<api::RemoveInstanceResponse, Error> {
        self.end(|inner, now| {
            let ended = inner.registry.remove_instance(instance_id, &mut inner.host, now)?;
            Ok(api::RemoveInstanceResponse {
                success: true,
                instance_id: instance_id.to_owned(),
                message: format!("Instance removed, {}", ports_released(ended.len())),
                released: show_ended(&ended, now),
            })
        })
    }

    /// `GET /status`.
    pub fn status(&self) -> api::StatusResponse {
        let inner = self.lock();
        let uptime = now().monotonic.saturating_sub(self.started.monotonic);
        let mut problems = inner.problems.clone();
        if let Journal::Closed(reason) = &inner.journal {
            problems.push(format!("the state can't be used: {reason}"));
        }
        api::StatusResponse {
            status: "running".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uptime: (uptime.as_secs_f64() * 1000.0).round() / 1000.0,
            allocations: inner.registry.allocation_count(),
            instances: inner.registry.instance_count(),
            started_at: crate::registry::timestamp(self.started.unix_ms),
            listening: inner.listening.clone(),
            state_dir: self.state.directory.display().to_string(),
            socket_activated: self.state.holder.systemd,
            problems,
        }
    }

    /// `POST /cleanup`.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidValue`], [`Error::StateNotWritable`].
    pub fn cleanup(&self, request: &api::CleanupRequest) -> Result<api::CleanupResponse, Error> {
        let project = request.project_path.as_deref();
        let project = project.map(|path| validate::path("project_path", path)).transpose()?;
        let scope = |allocation: &Allocation| {
            project.as_ref().is_none_or(|it| allocation.project_path.as_ref() == Some(it))
                && request
                    .instance_id
                    .as_ref()
                    .is_none_or(|it| allocation.instance_id.as_ref() == Some(it))
        };
        let clean = |inner: &mut Inner, now| {
            let ended = inner.registry.cleanup(request.force, scope, &mut inner.host, now);
            api::CleanupResponse {
                success: true,
                cleaned: ended.len(),
                message: ports_released(ended.len()),
                released: show_ended(&ended, now),
            }
        };
        if request.dry_run {
            let mut inner = self.lock();
            let mut answer = clean(&mut inner, now());
            inner.registry.rollback();
            answer.message = format!("{} would be released", answer.cleaned);
            return Ok(answer);
        }
        self.end(|inner, now| Ok(clean(inner, now)))
    }

    /// `GET /assignments`.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidValue`].
    pub fn assignments(&self, project: Option<&str>) -> Result<api::AssignmentsResponse, Error> {
        let project = project.map(|path| validate::path("project_path", path)).transpose()?;
        let inner = self.lock();
        let assignments = inner.registry.assignments();
        let wanted = assignments
            .filter(|it| project.as_ref().is_none_or(|path| it.key.project_path == *path));
        Ok(api::AssignmentsResponse { assignments: wanted.map(Assignment::to_wire).collect() })
    }

    /// `POST /assign`: all or none; reserves nothing.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidValue`], [`Error::UnknownServiceType`], [`Error::RangeExhausted`],
    /// [`Error::StateNotWritable`].
    pub fn assign(&self, request: &api::AssignRequest) -> Result<api::AssignResponse, Error> {
        let project = validate::path("project_path", &request.project_path)?;
        check_count("services", request.services.len())?;
        self.change(|inner, now| {
            let mut assignments = Vec::with_capacity(request.services.len());
            let mut moved = Vec::new();
            for (index, service) in request.services.iter().enumerate() {
                let done = validate::name("service_name", &service.service_name).and_then(|()| {
                    let wanted = Wanted {
                        service_type: service.service_type.clone(),
                        service_name: service.service_name.clone(),
                        wish: service.preferred_port,
                    };
                    inner.registry.assign(&project, &wanted, &mut inner.host, now)
                });
                let (assignment, change) =
                    done.map_err(|error| within(self.with_nearest(error), "services", index))?;
                assignments.push(assignment.to_wire());
                moved.extend(change);
            }
            Ok(api::AssignResponse { success: true, assignments, moved })
        })
    }

    /// `GET /allocations`: as they are now, not as they were when somebody last looked. Slow when
    /// there are new listeners: it looks through /proc for who they are.
    pub fn allocations(&self) -> api::AllocationsResponse {
        if !self.look_around().unknown_inodes.is_empty() {
            self.name_listeners();
        }
        let inner = self.lock();
        let now = now();
        let registry = &inner.registry;
        let lock_ids = registry.allocations().map(|allocation| allocation.lock_id);
        api::AllocationsResponse {
            allocations: lock_ids.filter_map(|lock_id| registry.show(lock_id, now)).collect(),
        }
    }
}

impl Inner {
    /// Writes what ended, now or later; the error says why not now.
    fn write_or_defer(&mut self) -> Result<(), String> {
        let changes = self.registry.changes();
        match &mut self.journal {
            Journal::Open(store) if !changes.is_empty() => {
                store.append_or_defer(changes).map_err(|error| error.to_string())
            }
            _ => Ok(()),
        }
    }
}

/// A request with its values checked; the owner is verified separately.
fn checked(request: &AllocateRequest) -> Result<Request, Error> {
    if let Some(name) = &request.service_name {
        validate::name("service_name", name)?;
    }
    if let Some(id) = &request.instance_id {
        validate::name("instance_id", id)?;
    }
    let project = request.project_path.as_deref();
    let lock_id = request.lock_id.as_deref();
    Ok(Request {
        service_type: request.service_type.clone(),
        service_name: request.service_name.clone(),
        project_path: project.map(|path| validate::path("project_path", path)).transpose()?,
        protocol: request.protocol,
        wish: request.preferred_port,
        exact: request.exact,
        owner: None,
        instance_id: request.instance_id.clone(),
        lease: validate::lease(request.lease_seconds)?,
        if_running: request.if_running,
        lock_id: lock_id.map_or_else(|| Ok(Uuid::new_v4()), validate::chosen_lock_id)?,
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

fn show_ended(ended: &[Allocation], now: Moment) -> Vec<api::Allocation> {
    ended.iter().map(|allocation| Registry::show_ended(allocation, now)).collect()
}

fn ports_released(count: usize) -> String {
    match count {
        0 => "nothing released".to_owned(),
        1 => "1 port released".to_owned(),
        count => format!("{count} ports released"),
    }
}

fn check_count(field: &str, count: usize) -> Result<(), Error> {
    if (1..=MAX_BATCH).contains(&count) {
        Ok(())
    } else {
        Err(Error::invalid(field, format!("must have from 1 to {MAX_BATCH} entries, not {count}")))
    }
}

/// Says in which entry of a list a bad value stands.
fn within(error: Error, list: &str, index: usize) -> Error {
    match error {
        Error::InvalidValue { field, reason } => {
            Error::InvalidValue { field: format!("{list}[{index}].{field}"), reason }
        }
        error => error,
    }
}
