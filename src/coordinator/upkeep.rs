//! What the coordinator does without being asked: deaths, deadlines, listeners, the disk.

use std::os::fd::OwnedFd;
use std::sync::{PoisonError, TryLockError};
use std::time::Duration;

use super::{Coordinator, Inner, Journal, Planned, now};
use crate::detect::holders::Found;
use crate::detect::sockets::Socket;
use crate::detect::watch::Dead;
use crate::registry::{Moment, Process};
use crate::store::{LockHolder, OpenError};

/// What is to be done next, and when.
#[derive(Debug, Default)]
pub struct Upkeep {
    /// How long until a lease or an instance runs out; `None`: nothing has a deadline.
    pub next_deadline: Option<Duration>,
    /// There are allocations whose ports somebody may begin or cease to listen on.
    pub follow_listeners: bool,
    /// Somebody reads the events, and a listener that is not there yet may be what they wait for.
    pub is_awaited: bool,
    /// Sockets whose processes should be looked for, off the async thread.
    pub unknown_inodes: Vec<u64>,
    /// How long until the container engines are to be asked, off the async thread; `None`: nobody
    /// needs to know.
    pub engines_due: Option<Duration>,
}

impl Coordinator {
    /// A descriptor that is readable when a watched process has died; then [`Coordinator::reap`].
    ///
    /// # Errors
    ///
    /// What `F_DUPFD_CLOEXEC` of fcntl(2) says.
    pub fn death_signal(&self) -> std::io::Result<OwnedFd> {
        use std::os::fd::AsFd;
        self.lock().watch.as_fd().try_clone_to_owned()
    }

    /// Ends what the dead held.
    pub fn reap(&self) {
        let mut inner = self.lock();
        let died = inner.watch.died();
        inner.bury(&died);
    }

    /// The safety net: looks at every owner, whatever was or wasn't reported, and tidies up.
    pub fn safety_net(&self) {
        self.try_again();
        let mut inner = self.lock();
        let died = inner.watch.sweep();
        inner.bury(&died);
        inner.compaction_failed = false;
        if let Journal::Open(store) = &mut inner.journal {
            // An error is told of with all that is refused.
            store.sync().ok();
        }
        inner.tell_trouble();
        let inner = &mut *inner;
        inner.registry.forget_assignments(&mut inner.host, now());
        inner.settle();
        // Listeners and former owners that no life depends on any more.
        inner.watch.retain(|process| inner.registry.involves(process));
    }

    /// Opens the state, if it could not be opened before.
    fn try_again(&self) {
        if matches!(self.lock().journal, Journal::Open(_)) {
            return;
        }
        match self.open_state(Duration::ZERO, true) {
            Ok(()) => {
                let sockets = self.lock().listening.clone();
                self.write_lock_file(&LockHolder { sockets, ..self.state.holder.clone() });
                tracing::info!("the state can be used again");
            }
            Err(error) => self.close_state(&error),
        }
    }

    /// Goes on without a journal, which is said to whoever asks for a change.
    pub(super) fn close_state(&self, error: &OpenError) {
        let mut inner = self.lock();
        inner.journal = Journal::Closed(error.to_string());
        inner.count();
    }

    /// Sees who listens on allocated ports, and ends what has run out.
    pub fn look_around(&self) -> Upkeep {
        let mut inner = self.lock();
        inner.sweep();
        inner.tell_unnamed();
        inner.upkeep()
    }

    /// What is to be done next.
    pub fn upkeep(&self) -> Upkeep {
        self.lock().upkeep()
    }

    /// Does ahead what the next request would take time for, unless somebody is at work.
    pub fn prepare(&self) {
        if let Ok(mut inner) = self.inner.try_lock() {
            inner.host.prepare();
        }
    }

    /// Finds out which processes hold the sockets that are unknown, and looks again. Slow: it looks
    /// through /proc, without holding the lock.
    pub fn name_listeners(&self) {
        self.name_these(&[]);
    }

    /// Finds the processes of these sockets, and of those on allocated ports that are unknown.
    pub(super) fn name_these(&self, sockets: &[Socket]) -> Found {
        let unknown = || self.lock().host.unknown_inodes();
        let found = self.finder.find(sockets, unknown);
        let facts = found.facts(&unknown());
        let mut inner = self.lock();
        if inner.host.learn(facts) {
            inner.sweep();
        }
        inner.tell_unnamed();
        drop(inner);
        found
    }

    /// Whether an owner may die and leave heirs, and there are new processes, one of which may be
    /// one: then [`Coordinator::meet_processes`].
    pub fn has_newcomers(&self) -> bool {
        let inner = self.lock();
        if !inner.registry.awaits_heirs() {
            return false;
        }
        match inner.host.heirs_to_be().try_lock() {
            Ok(heirs) => heirs.has_newcomers(),
            Err(TryLockError::Poisoned(heirs)) => heirs.into_inner().has_newcomers(),
            // Somebody is looking at them.
            Err(TryLockError::WouldBlock) => false,
        }
    }

    /// Looks at the processes that are new, so that an owner's death has nobody to wait for. Slow:
    /// it looks through /proc, without holding the lock.
    pub fn meet_processes(&self) {
        let heirs = self.lock().host.heirs_to_be();
        heirs.lock().unwrap_or_else(PoisonError::into_inner).meet();
    }

    /// Asks the container engines what they publish, and looks again. Slow: engines that hang take a
    /// quarter of a second, however many there are. Nobody else waits for it, and who comes while it
    /// asks goes on with what is known.
    pub fn ask_engines(&self) {
        let mut engines = match self.engines.try_lock() {
            Ok(engines) => engines,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        let answer = engines.ask();
        let mut inner = self.lock();
        if inner.host.learn_containers(answer) {
            inner.sweep();
        }
    }

    /// Waits until an operation may have made something due earlier than planned.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Says where the daemon listens, in `/status` and in the lock file.
    pub fn announce(&self, holder: &LockHolder, problems: Vec<String>) {
        let mut inner = self.lock();
        inner.listening.clone_from(&holder.sockets);
        inner.problems = problems;
        drop(inner);
        self.write_lock_file(holder);
    }

    fn write_lock_file(&self, holder: &LockHolder) {
        if let Journal::Open(store) = &mut self.lock().journal
            && let Err(error) = store.announce(holder)
        {
            tracing::warn!("the lock file can't be written: {error}");
        }
    }

    /// Says in the lock file that this daemon serves nowhere any more: whoever wants to be the next
    /// one waits for the lock.
    pub fn leave(&self) {
        let holder = LockHolder { sockets: Vec::new(), ..self.state.holder.clone() };
        if let Journal::Open(store) = &mut self.lock().journal
            && let Err(error) = store.announce(&holder)
        {
            tracing::debug!("the lock file can't be written: {error}");
        }
    }

    /// Refuses changes from now on, and makes what was answered survive a power failure.
    pub fn shut_down(&self) {
        let mut inner = self.lock();
        inner.shutting_down = true;
        if let Journal::Open(store) = &mut inner.journal
            && let Err(error) = store.sync()
        {
            tracing::error!("the state can't be written: {error}");
        }
    }
}

impl Inner {
    fn bury(&mut self, dead: &[Dead]) {
        if dead.is_empty() {
            return;
        }
        self.host.remember(dead);
        let died: Vec<Process> = dead.iter().map(|dead| dead.process).collect();
        // For one port as for all, the kernel walks through all sockets (sock_diag(7)): so one look is
        // for all who died, and at nothing but what they held.
        let (ports, protocol) = self.registry.held_by(&died);
        match self.host.glance(ports, protocol) {
            Ok(mut glance) => self.registry.processes_died(&died, &mut glance, now()),
            Err(_) => self.registry.processes_died(&died, &mut self.host, now()),
        }
        self.host.remember(&[]);
        self.settle();
    }

    /// One look at all allocations, with one question to the kernel.
    pub(super) fn sweep(&mut self) {
        let now = now();
        let was_blind = self.host.trouble().is_some();
        match self.host.sweep(self.registry.protocol_to_watch()) {
            Ok(mut sweep) => {
                self.registry.expire(&mut sweep, now);
                self.registry.sweep(&mut sweep, now);
            }
            Err(error) => self.expire_blindly(&error, was_blind, now),
        }
        self.settle();
    }

    /// A look at the ports of all allocations and at no others, for an answer that is true now.
    pub(super) fn glance(&mut self) {
        let now = now();
        let was_blind = self.host.trouble().is_some();
        match self.host.glance(self.registry.ports(), self.registry.protocol_to_watch()) {
            Ok(mut sweep) => {
                self.registry.expire(&mut sweep, now);
                self.registry.refresh_all(&mut sweep, now);
            }
            Err(error) => self.expire_blindly(&error, was_blind, now),
        }
        self.settle();
    }

    fn expire_blindly(&mut self, error: &std::io::Error, was_blind: bool, now: Moment) {
        if !was_blind {
            tracing::warn!("can't see who listens: {error}");
        }
        self.registry.expire(&mut self.host, now);
    }

    fn upkeep(&mut self) -> Upkeep {
        let deadline = self.registry.next_deadline();
        let follow_listeners = self.registry.allocation_count() > 0;
        let is_awaited = self.is_awaited();
        self.planned = Planned { deadline, follow_listeners, is_awaited };
        Upkeep {
            next_deadline: deadline.map(|deadline| deadline.saturating_sub(now().monotonic)),
            follow_listeners,
            is_awaited,
            unknown_inodes: self.host.unknown_inodes(),
            engines_due: self.host.plan_engines(),
        }
    }
}
