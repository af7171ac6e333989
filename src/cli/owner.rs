//! The process that an allocation is asked for.

use crate::api::AllocateRequest;
use crate::detect::{namespace, process};

/// A process as a request names it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Owner {
    pid: u32,
    /// Unix seconds; so that the process is not mistaken for one that had the pid before it.
    started_at: Option<u64>,
    implicit: bool,
}

impl Owner {
    /// This process, which `styxy run` turns into its command: execve(2) keeps pid and start time.
    pub(super) fn this_process() -> Self {
        Self::named(std::process::id())
    }

    /// The process that `--pid` names. Whether it can be an owner, the daemon says.
    pub(super) fn named(pid: u32) -> Self {
        let started_at = process::identify(pid).ok().map(|process| process.started_at);
        Self { pid, started_at, implicit: false }
    }

    /// The parent of this process, if it can be an owner.
    pub(super) fn parent() -> Option<Self> {
        let parent = process::parent_owner()?;
        Some(Self { pid: parent.process.pid, started_at: Some(parent.started_at), implicit: true })
    }

    /// Makes it the owner of what `request` asks for.
    pub(super) fn fill(self, request: &mut AllocateRequest) {
        request.process_id = Some(self.pid);
        request.process_start_time = self.started_at;
        request.implicit_owner = self.implicit;
        request.pid_namespace = namespace::own().ok().map(|namespaces| namespaces.pid);
    }
}

/// A lock id that the client chose, so that it may ask again when an answer is lost.
pub(super) fn new_lock_id() -> String {
    uuid::Uuid::new_v4().to_string()
}
