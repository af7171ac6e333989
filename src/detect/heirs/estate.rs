//! Who inherits what: the ties between an allocation that its owner left and the processes that live.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use uuid::Uuid;

use crate::detect::process::{self, Identified, Image};
use crate::detect::procfs::Stat;
use crate::detect::watch::Dead;
use crate::registry::{Orphan, Process};

/// What a process has from whoever started it; nothing also of other users' processes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Descent {
    /// The lock id in its environment.
    pub(super) lock_id: Option<Uuid>,
    pub(super) run: Option<Run>,
}

/// What runs in a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) image: Image,
    /// It is its parent's image: the process has called no execve(2).
    pub(super) is_fork: bool,
    /// When the process was made, in clock ticks since boot.
    pub(super) start_ticks: u64,
}

impl Descent {
    pub(super) fn is_fork(self) -> bool {
        self.run.is_some_and(|run| run.is_fork)
    }
}

impl Run {
    pub(super) fn of(stat: &Stat<'_>) -> Option<Self> {
        let is_fork = stat.is_forked();
        Some(Self { image: stat.image?, is_fork, start_ticks: stat.start_ticks })
    }
}

/// An allocation that is looked for an heir.
#[derive(Debug)]
pub(super) struct Estate {
    lock_id: Uuid,
    pub(super) owner: Process,
    /// What the owner's forks have in common with it: what it ran when it was identified, and what it
    /// was seen to run later, if it called execve(2) in between.
    images: [Option<Image>; 2],
    /// When it was allocated, in clock ticks since boot.
    since_ticks: u64,
}

/// A process that may inherit.
#[derive(Debug, Clone, Copy)]
pub(super) struct Candidate {
    process: Process,
    pub(super) lock_id: Uuid,
    tie: Tie,
}

/// What ties a process to an allocation; the first is the stronger one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Tie {
    LockId,
    Fork,
}

/// Those that were found so far.
pub(super) type Marked = Vec<Candidate>;

impl Estate {
    /// What became of the owner is among the `dead`, which are in their order; `last_run` is what was
    /// seen last of whoever had its pid.
    pub(super) fn of(orphan: &Orphan, dead: &[Dead], last_run: Option<Run>) -> Self {
        let Orphan { lock_id, owner, implicit, allocated_at_ms } = *orphan;
        let found = dead.binary_search_by_key(&owner, |dead| dead.process);
        let identified = found.ok().and_then(|place| dead[place].image);
        let is_own = |run: &Run| run.start_ticks == owner.start_ticks && !run.is_fork;
        let seen = last_run.filter(is_own).map(|run| run.image);
        let images = if implicit { [None; 2] } else { [identified, seen] };
        // Two clocks were read when that was written down, and rounded.
        let since_ticks = process::tick_at(allocated_at_ms.saturating_sub(2));
        Self { lock_id, owner, images, since_ticks }
    }

    /// Whether anything ties such a process to it.
    pub(super) fn is_tied(&self, descent: Descent) -> bool {
        self.tie(descent).is_some()
    }

    /// `process` as one that may inherit, where anything ties it to the allocation.
    pub(super) fn candidate(&self, process: Process, descent: Descent) -> Option<Candidate> {
        Some(Candidate { process, lock_id: self.lock_id, tie: self.tie(descent)? })
    }

    fn tie(&self, descent: Descent) -> Option<Tie> {
        let Descent { lock_id, run } = descent;
        if lock_id == Some(self.lock_id) {
            return Some(Tie::LockId);
        }
        let Run { image, is_fork, start_ticks } = run?;
        let is_heir =
            is_fork && self.images.contains(&Some(image)) && start_ticks >= self.since_ticks;
        is_heir.then_some(Tie::Fork)
    }
}

/// Whether anything ties such a process to one of them.
pub(super) fn is_tied(descent: Descent, estates: &[Estate]) -> bool {
    estates.iter().any(|estate| estate.is_tied(descent))
}

/// The heir for each lock id, and how many of them have it in their environment: those stay, whoever
/// else may be found.
pub(super) fn first_of(marked: &mut Marked) -> (HashMap<Uuid, Identified>, usize) {
    marked.sort_by(|one, other| {
        let by_age = one.process.start_ticks.cmp(&other.process.start_ticks);
        let by_age = by_age.then(one.process.pid.cmp(&other.process.pid));
        let within = if one.tie == Tie::Fork { by_age.reverse() } else { by_age };
        one.tie.cmp(&other.tie).then(within)
    });
    let (mut heirs, mut surely) = (HashMap::new(), 0);
    for candidate in marked.iter() {
        if let Entry::Vacant(place) = heirs.entry(candidate.lock_id)
            && let Ok(identified) = process::identify(candidate.process.pid)
            && identified.process == candidate.process
        {
            place.insert(identified);
            surely += usize::from(candidate.tie == Tie::LockId);
        }
    }
    (heirs, surely)
}
