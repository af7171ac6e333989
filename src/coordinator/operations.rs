//! The other operations of the wire, one method each.

use super::{Coordinator, Decided, Inner, Journal, now, validate};
use crate::api::{self, Protocol};
use crate::error::Error;
use crate::registry::{Allocation, Moment, Registry, Suggestions};

impl Coordinator {
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
        self.written(self.begin_release(lock_id)?)
    }

    pub(super) fn begin_release(
        &self,
        lock_id: &str,
    ) -> Result<Decided<api::ReleaseResponse>, Error> {
        let id = validate::lock_id(lock_id)?;
        self.decide(|inner, _| {
            let Allocation { port, lock_id, .. } = inner.registry.release(id)?;
            inner.batch.released.push(id);
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
    pub(super) fn end<T>(
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
        self.ask_engines_if_old();
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
            let free = allocated_to.is_none() && inner.host.is_free(port, protocol);
            (allocated_to, free)
        };
        let system_usage = if free { None } else { self.usage(port, protocol) };
        api::CheckResponse { port, available: free, allocated_to, system_usage }
    }

    /// `GET /suggest/{serviceType}`.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownServiceType`], [`Error::InvalidValue`].
    pub fn suggest(
        &self,
        service_type: &str,
        wish: Option<u16>,
        count: usize,
    ) -> Result<api::SuggestResponse, Error> {
        let count = validate::count(count)?;
        let mut inner = self.lock();
        let inner = &mut *inner;
        let found = inner.registry.suggest(service_type, wish, count, &mut inner.host);
        let Suggestions { ports, note } = found.map_err(|error| self.with_nearest(error))?;
        let count = ports.len();
        let ports_are = if count == 1 { "port is" } else { "ports are" };
        let mut message =
            format!("{count} {ports_are} free for {service_type}; nothing is reserved");
        if let Some(note) = note {
            message = format!("{note}: {message}");
        }
        Ok(api::SuggestResponse {
            service_type: service_type.to_owned(),
            suggestions: ports.iter().map(|it| it.port).collect(),
            count,
            reasons: ports,
            message,
        })
    }

    /// `GET /status`.
    pub fn status(&self) -> api::StatusResponse {
        let inner = self.lock();
        let uptime = now().monotonic.saturating_sub(self.started.monotonic);
        let mut problems = inner.problems.clone();
        problems.extend(inner.trouble());
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

    /// `GET /allocations`: as they are now, not as they were when somebody last looked. Slow when
    /// there are new listeners: it looks through /proc for who they are.
    pub fn allocations(&self) -> api::AllocationsResponse {
        let mut inner = self.lock();
        inner.glance();
        if !inner.host.unknown_inodes().is_empty() {
            drop(inner);
            self.name_listeners();
            inner = self.lock();
        }
        api::AllocationsResponse { allocations: inner.registry.show_all(now()) }
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

pub(super) fn show_ended(ended: &[Allocation], now: Moment) -> Vec<api::Allocation> {
    ended.iter().map(|allocation| Registry::show_ended(allocation, now)).collect()
}

pub(super) fn ports_released(count: usize) -> String {
    match count {
        0 => "nothing released".to_owned(),
        1 => "1 port released".to_owned(),
        count => format!("{count} ports released"),
    }
}
