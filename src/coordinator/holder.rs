//! Who has a port, for an answer that names it: its process, the project that this works in, and
//! the container that it is in or serves.

use std::collections::HashMap;
use std::path::Path;

use super::{Coordinator, Inner};
use crate::api::{AllocateRequest, AllocateResponse, Protocol, SystemUsage};
use crate::detect::{holders, users};
use crate::error::Error;
use crate::project::root_of;
use crate::text::printable;

impl Coordinator {
    /// Who uses `port`. Slow unless it is known already: it looks through /proc.
    pub(super) fn usage(&self, port: u16, protocol: Protocol) -> Option<SystemUsage> {
        // What the kernel refuses to tell is as good as not seen.
        let usage = holders::usage(&self.finder, port, protocol).ok().flatten();
        let mut usage = self.lock().host.explain(port, protocol, usage)?;
        Projects::default().add_to(&mut usage);
        Some(usage)
    }

    /// Says in an answer who has the port that was asked for, where the registry doesn't know. Slow:
    /// it looks through /proc.
    pub(super) fn name_taker(&self, request: &AllocateRequest, answer: &mut AllocateResponse) {
        let wish = request.preferred_port.filter(|wish| *wish != answer.port && !answer.reused);
        let Some(wish) = wish else { return };
        if self.lock().registry.allocation_at(wish, request.protocol).is_some() {
            return;
        }
        self.want_engines();
        if let Some(usage) = self.usage(wish, request.protocol)
            // Why not the port that was asked for is always said first.
            && let Some(note) = answer.notes.first_mut()
        {
            let place = place_of(&usage).map(|place| format!(" in {}", printable(place)));
            *note = format!(
                "port {wish} is held by {}{}: another program, not an error in this code. Yours: {}",
                user_of_port(&usage),
                place.unwrap_or_default(),
                answer.port
            );
        }
    }

    /// Adds to a refusal who holds the port, where the registry doesn't know. Slow: it looks
    /// through /proc.
    pub fn name_holder(&self, error: Error) -> Error {
        match error {
            Error::PortUnavailable {
                port,
                reason,
                allocated_to: None,
                system_usage: None,
                instead,
            } => {
                self.want_engines();
                let system_usage = self.usage(port, Protocol::Both).map(Box::new);
                Error::PortUnavailable { port, reason, allocated_to: None, system_usage, instead }
            }
            error => error,
        }
    }

    /// Has the container engines asked soon, by the upkeep: what is said now goes by their last
    /// answer, because no allocation waits for an engine.
    fn want_engines(&self) {
        let mut inner = self.lock();
        inner.host.want_containers();
        self.wake_for_engines(&inner);
    }

    /// Wakes the upkeep where it is to ask the container engines sooner than it knows.
    pub(super) fn wake_for_engines(&self, inner: &Inner) {
        if inner.host.is_urgent() {
            self.changed.notify_one();
        }
    }

    /// Sees what containers publish, unless that is known. Slow: it waits for the engines, a quarter
    /// of a second at most, so it is for who asks about ports, and never for an allocation.
    pub(super) fn ask_engines_if_old(&self) {
        if self.lock().host.containers_are_old() {
            self.ask_engines();
        }
    }
}

/// The process or container that uses a port.
pub fn user_of_port(usage: &SystemUsage) -> String {
    match (&usage.container, &usage.process) {
        (Some(container), _) => {
            let (name, engine) = (printable(&container.name), printable(&container.engine));
            format!("container {name} ({engine})")
        }
        (None, Some(process)) => format!("{} (pid {})", printable(&process.name), process.pid),
        (None, None) if usage.uid == rustix::process::geteuid().as_raw() => {
            "a process that cannot be seen".to_owned()
        }
        (None, None) => format!("a process of another user ({})", users::describe(usage.uid)),
    }
}

/// Where the process that uses a port works: in that project, else in that directory.
pub fn place_of(usage: &SystemUsage) -> Option<&str> {
    let process = usage.process.as_ref()?;
    process.project_path.as_deref().or(process.cwd.as_deref())
}

/// The projects of the directories that were asked for.
#[derive(Debug, Default)]
pub(super) struct Projects(HashMap<String, Option<String>>);

impl Projects {
    /// Adds the project of the process, unless that is in a container.
    pub(super) fn add_to(&mut self, usage: &mut SystemUsage) {
        if usage.container.is_none()
            && let Some(process) = &mut usage.process
            && let Some(directory) = &process.cwd
        {
            process.project_path = self.of(directory);
        }
    }

    fn of(&mut self, directory: &str) -> Option<String> {
        if let Some(known) = self.0.get(directory) {
            return known.clone();
        }
        let root = root_of(Path::new(directory));
        let root = root.map(|root| root.to_string_lossy().into_owned());
        self.0.insert(directory.to_owned(), root.clone());
        root
    }
}
