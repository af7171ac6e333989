//! How much there is: for the status line, and for the decision to leave.

use std::collections::HashSet;
use std::fmt;
use std::time::Duration;

use tokio::sync::watch;

use super::{Coordinator, Inner, Journal, now};

/// How much the daemon looks after.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counts {
    /// The allocations.
    pub ports: usize,
    /// The different projects that they belong to.
    pub projects: usize,
    /// Why nothing can be allocated.
    pub trouble: Option<String>,
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = |count| if count == 1 { "" } else { "s" };
        let Self { ports, projects, trouble } = self;
        write!(f, "{ports} port{} for {projects} project{}", plural(*ports), plural(*projects))?;
        match trouble {
            Some(trouble) => write!(f, "; {trouble}"),
            None => Ok(()),
        }
    }
}

/// What is noted on every change, so that nobody has to ask again and again.
#[derive(Debug)]
pub(super) struct Census {
    /// How many allocations there are, and why there can be no more.
    told: watch::Sender<(usize, Option<String>)>,
    /// Since when there is neither allocation nor instance, on CLOCK_MONOTONIC.
    empty_since: Option<Duration>,
}

impl Default for Census {
    fn default() -> Self {
        Self { told: watch::Sender::new((0, None)), empty_since: Some(now().monotonic) }
    }
}

impl Coordinator {
    /// Changes whenever [`Coordinator::counts`] may answer something else.
    pub fn recounted(&self) -> watch::Receiver<(usize, Option<String>)> {
        self.lock().census.told.subscribe()
    }

    /// How much there is. It goes through all allocations: not for every request.
    pub fn counts(&self) -> Counts {
        let inner = self.lock();
        let projects: HashSet<_> =
            inner.registry.allocations().filter_map(|it| it.project_path.as_deref()).collect();
        let ports = inner.registry.allocation_count();
        Counts { ports, projects: projects.len(), trouble: inner.trouble() }
    }

    /// How long nobody has needed a daemon: nothing is allocated, no instance is registered, and
    /// nothing waits for the disk to take it. `None` while somebody does.
    pub fn idle_for(&self) -> Option<Duration> {
        let inner = self.lock();
        if matches!(&inner.journal, Journal::Open(store) if store.has_deferred()) {
            return None;
        }
        Some(now().monotonic.saturating_sub(inner.census.empty_since?))
    }

    /// Whether there is a journal, and the disk took what was written last.
    pub fn is_sound(&self) -> bool {
        self.lock().trouble().is_none()
    }
}

impl Inner {
    /// Notes how much there is now.
    pub(super) fn count(&mut self) {
        let allocations = self.registry.allocation_count();
        let is_empty = allocations == 0 && self.registry.instance_count() == 0;
        let trouble = self.trouble();
        let Census { told, empty_since } = &mut self.census;
        if !is_empty {
            *empty_since = None;
        } else if empty_since.is_none() {
            *empty_since = Some(now().monotonic);
        }
        let counted = (allocations, trouble);
        told.send_if_modified(|told| {
            let is_new = *told != counted;
            *told = counted;
            is_new
        });
    }
}
