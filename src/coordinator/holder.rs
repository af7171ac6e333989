//! Who has a port, for an answer that names it: its process, the project that this works in, and
//! the container that it is in or serves.

use std::collections::HashMap;
use std::path::Path;

use super::Coordinator;
use crate::api::{Protocol, SystemUsage};
use crate::detect::holders;
use crate::error::Error;
use crate::project::root_of;

impl Coordinator {
    /// Who uses `port`. Slow unless it is known already: it looks through /proc.
    pub(super) fn usage(&self, port: u16, protocol: Protocol) -> Option<SystemUsage> {
        // What the kernel refuses to tell is as good as not seen.
        let usage = holders::usage(&self.finder, port, protocol).ok().flatten();
        let mut usage = self.lock().host.explain(port, protocol, usage)?;
        Projects::default().add_to(&mut usage);
        Some(usage)
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
                self.ask_engines_if_old();
                let system_usage = self.usage(port, Protocol::Both).map(Box::new);
                Error::PortUnavailable { port, reason, allocated_to: None, system_usage, instead }
            }
            error => error,
        }
    }

    /// Sees what containers publish, unless that is known.
    pub(super) fn ask_engines_if_old(&self) {
        if self.lock().host.containers_are_old() {
            self.ask_engines();
        }
    }
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
