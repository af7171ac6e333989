//! The registry, its journal and the machine, held together under one lock.
//!
//! Every operation of the wire is one method here. The daemon's handlers call them, and so does a
//! client that works on the journal itself because no daemon can be had.
//!
//! A std `Mutex` is right: nothing is awaited while it is held, and what is done under it takes
//! microseconds. A request is: lock, decide, probe the candidate, append to the journal, unlock,
//! answer. What is ready at once shares the append (see `batch`).

mod allocate;
mod assignments;
mod batch;
mod call;
mod census;
mod events;
mod holder;
mod instances;
mod lock_ids;
mod log;
mod operations;
mod owner;
mod scan;
#[cfg(test)]
mod tests;
mod trouble;
mod upkeep;
mod validate;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};
use tokio::sync::{Notify, watch};

pub use batch::Decided;
pub use call::{Answer, Call};
pub use census::Counts;
pub use events::Happening;
pub use holder::{place_of, user_of_port};
pub use upkeep::Upkeep;

use self::batch::Batch;
use self::census::Census;
use self::lock_ids::LockIds;
use crate::config::Config;
use crate::detect::containers::Engines;
use crate::detect::holders::Finder;
use crate::detect::namespace::{self, Namespaces};
use crate::detect::terminate::{Termination, terminate};
use crate::detect::watch::Watch;
use crate::detect::{Host, process};
use crate::error::Error;
use crate::paths::Paths;
use crate::registry::{Event, Moment, Policy, Process, Registry, milliseconds};
use crate::store::{self, LockHolder, OpenError, Store};

/// How long a daemon waits for a command that works on the journal to be done.
const DAEMON_PATIENCE: Duration = Duration::from_secs(5);

/// How long a command that works on the journal itself waits for another one to be done.
const COMMAND_PATIENCE: Duration = Duration::from_secs(5);

/// Who asks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Peer {
    /// The client's own process, as the kernel says it (SO_PEERCRED, unix(7)).
    pub pid: Option<u32>,
    /// The inode of its pid namespace, where it can be seen. A process never changes its own
    /// (pid_namespaces(7)), so it is looked up once for a connection.
    pub pid_namespace: Option<u64>,
}

/// The registry, its journal and the machine.
#[derive(Debug)]
pub struct Coordinator {
    inner: Mutex<Inner>,
    finder: Finder,
    /// Held while somebody asks the container engines.
    engines: Mutex<Engines>,
    config: watch::Sender<Arc<Config>>,
    /// The ports that the daemon itself serves.
    own_ports: Vec<u16>,
    state: State,
    started: Moment,
    /// Told when there may be something to do earlier than planned.
    changed: Notify,
}

/// Where the state is, and who works on it.
#[derive(Debug)]
struct State {
    directory: PathBuf,
    boot_id: String,
    holder: LockHolder,
}

#[derive(Debug)]
struct Inner {
    registry: Registry,
    journal: Journal,
    batch: Batch,
    host: Host,
    watch: Watch,
    uid: u32,
    namespaces: Option<Namespaces>,
    listening: Vec<String>,
    problems: Vec<String>,
    shutting_down: bool,
    feed: events::Feed,
    lock_ids: LockIds,
    /// Processes that a request named and that were not watched before.
    newcomers: Vec<Process>,
    /// What the upkeep waits for.
    planned: Planned,
    /// The disk refused the last compaction: the safety net tries again.
    compaction_failed: bool,
    /// What of the disk the log was told last.
    told_refusal: Option<String>,
    census: Census,
}

/// What the upkeep waits for, as it was told last.
#[derive(Debug, Default)]
struct Planned {
    /// On the monotonic clock.
    deadline: Option<Duration>,
    follow_listeners: bool,
    is_awaited: bool,
}

/// The journal, or why there is none.
#[derive(Debug)]
enum Journal {
    Open(Box<Store>),
    Closed(String),
}

/// What time it is, for the registry.
fn now() -> Moment {
    let monotonic = clock_gettime(ClockId::Monotonic);
    // The monotonic clock counts from boot: neither part is ever negative.
    let monotonic = Duration::new(
        u64::try_from(monotonic.tv_sec).unwrap_or_default(),
        u32::try_from(monotonic.tv_nsec).unwrap_or_default(),
    );
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    // Both in the same milliseconds: else the end of one lease would be shown now here, now there.
    let boot_ms = milliseconds(unix.saturating_sub(monotonic) + Duration::from_micros(500));
    Moment { monotonic, unix_ms: boot_ms + milliseconds(monotonic) }
}

impl Coordinator {
    /// Opens the state for the daemon. `ports` are those that the daemon itself serves.
    ///
    /// A daemon that systemd started serves also without its state, because a client of its socket
    /// is waiting: it says what is wrong, refuses changes, and tries again ([`Self::safety_net`]).
    ///
    /// # Errors
    ///
    /// [`OpenError`]; what the machine refuses besides comes as [`OpenError::Io`].
    pub fn for_daemon(
        paths: &Paths,
        config: Config,
        holder: LockHolder,
        ports: impl IntoIterator<Item = u16>,
    ) -> Result<Self, OpenError> {
        let must_serve = holder.systemd;
        let coordinator = Self::new(paths, config, holder, ports)?;
        match coordinator.open_state(DAEMON_PATIENCE, true) {
            Err(error) if must_serve => {
                tracing::error!("{error}");
                coordinator.close_state(&error);
            }
            opened => opened?,
        }
        Ok(coordinator)
    }

    /// Opens the state for one command: no daemon is there, and none can be started.
    ///
    /// # Errors
    ///
    /// [`OpenError`].
    pub fn for_command(paths: &Paths, config: Config) -> Result<Self, OpenError> {
        let holder = lock_holder("command", Vec::new(), false);
        let port = config.daemon.listen.port();
        let coordinator = Self::new(paths, config, holder, [port])?;
        // Leases go on: a command is no daemon that comes back.
        coordinator.open_state(COMMAND_PATIENCE, false)?;
        Ok(coordinator)
    }

    fn new(
        paths: &Paths,
        config: Config,
        holder: LockHolder,
        ports: impl IntoIterator<Item = u16>,
    ) -> Result<Self, OpenError> {
        let own_ports: Vec<u16> = ports.into_iter().collect();
        let refused = |source| OpenError::Io { path: PathBuf::from("/proc"), source };
        let inner = Inner {
            registry: Registry::new(Policy::new(&config, own_ports.iter().copied())),
            journal: Journal::Closed("it is not open yet".to_owned()),
            batch: Batch::default(),
            host: Host::default(),
            watch: Watch::new().map_err(refused)?,
            uid: rustix::process::geteuid().as_raw(),
            namespaces: namespace::own().ok(),
            listening: Vec::new(),
            problems: Vec::new(),
            shutting_down: false,
            feed: events::Feed::default(),
            lock_ids: LockIds::default(),
            newcomers: Vec::new(),
            planned: Planned::default(),
            compaction_failed: false,
            told_refusal: None,
            census: Census::default(),
        };
        let directory = paths.state_dir.clone();
        let boot_id = process::boot_id().map_err(refused)?;
        Ok(Self {
            inner: Mutex::new(inner),
            finder: Finder::default(),
            engines: Mutex::new(Engines::from_env()),
            config: watch::Sender::new(Arc::new(config)),
            own_ports,
            state: State { directory, boot_id, holder },
            started: now(),
            changed: Notify::new(),
        })
    }

    /// Opens the journal, replays it, and sees what became of what it says.
    fn open_state(&self, patience: Duration, renew_leases: bool) -> Result<(), OpenError> {
        let State { directory, boot_id, holder } = &self.state;
        // Whoever did not end in that time is not waited for twice: the client of a socket waits too.
        let lingers = holder.systemd && end_background(directory, patience);
        let patience = if lingers { Duration::ZERO } else { patience };
        let (store, loaded) = Store::open(directory, boot_id, holder, patience)?;
        for notice in &loaded.notices {
            tracing::warn!("{notice}");
        }
        let mut inner = self.lock();
        let inner = &mut *inner;
        for change in loaded.changes {
            // After a boot every process is another one; which port a service gets is not.
            if change.is_durable() || !loaded.rebooted {
                inner.registry.replay(change);
            }
        }
        inner.journal = Journal::Open(Box::new(store));
        // With nothing allocated no socket says anything.
        let protocol = inner.registry.protocol_to_watch();
        let sweep = (inner.registry.allocation_count() > 0).then(|| inner.host.sweep(protocol));
        match sweep {
            Some(Ok(mut sweep)) => inner.registry.resume(renew_leases, &mut sweep, now()),
            None | Some(Err(_)) => inner.registry.resume(renew_leases, &mut inner.host, now()),
        }
        inner.watch_everybody();
        inner.settle();
        if loaded.rebooted {
            inner.compact();
        }
        Ok(())
    }

    /// The configuration in force.
    pub fn config(&self) -> Arc<Config> {
        self.config.borrow().clone()
    }

    /// The configuration in force, and whenever it is another one.
    pub fn configured(&self) -> watch::Receiver<Arc<Config>> {
        self.config.subscribe()
    }

    /// Puts another configuration in force, and says what is wrong now. What was handed out stays.
    pub fn reconfigure(&self, config: Config, problems: Vec<String>) {
        let mut inner = self.lock();
        inner.registry.set_policy(Policy::new(&config, self.own_ports.iter().copied()));
        inner.problems = problems;
        drop(inner);
        self.config.send_replace(Arc::new(config));
    }

    /// Everything, as it is in the journal.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        let mut inner = self.lock_unwritten();
        self.write_batch(&mut inner);
        inner
    }

    /// Everything, with what was decided and is not in the journal yet.
    fn lock_unwritten(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(|poisoned| {
            // A panic came in the middle of an operation: what it had not finished never was.
            let mut inner = PoisonError::into_inner(poisoned);
            inner.registry.rollback();
            self.inner.clear_poison();
            inner
        })
    }

    /// Keeps everybody else waiting, as a deadlock would.
    #[cfg(test)]
    pub(crate) fn hold(&self) -> impl Drop {
        self.lock()
    }

    /// Carries out an operation that must be in the journal before it is answered.
    fn change<T>(
        &self,
        operation: impl FnOnce(&mut Inner, Moment) -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.written(self.decide(operation)?)
    }

    /// What was changed is written. Wakes the upkeep only when something is due earlier than it
    /// knows: it would have to look at everything after each of thousands of requests a second.
    fn commit(&self, inner: &mut Inner) {
        inner.commit();
        let Planned { deadline, follow_listeners, is_awaited } = inner.planned;
        let next = inner.registry.next_deadline();
        let is_earlier = next.is_some_and(|next| deadline.is_none_or(|known| next < known));
        if is_earlier
            || !follow_listeners && inner.registry.allocation_count() > 0
            || !is_awaited && inner.is_awaited()
        {
            self.changed.notify_one();
        }
    }
}

impl Journal {
    /// Whether changes can be written at all. Without a journal nobody knows what there is, so
    /// nothing may be called unknown either.
    fn is_usable(&self) -> Result<(), Error> {
        match self {
            Self::Open(_) => Ok(()),
            Self::Closed(reason) => Err(Error::StateNotWritable(reason.clone())),
        }
    }
}

impl Inner {
    /// Writes what the registry has changed, all or none; the error says why not.
    fn write(&mut self) -> Result<(), String> {
        let changes = self.registry.changes();
        if changes.is_empty() {
            return Ok(());
        }
        match &mut self.journal {
            Journal::Open(store) => store
                .append(changes)
                .or_else(|error| {
                    // The journal was deleted or replaced under us: a new one keeps everything.
                    let is_lost = store.wants_compaction(self.registry.len());
                    if is_lost { store.compact(self.registry.snapshot()) } else { Err(error) }
                })
                .map_err(|error| error.to_string()),
            Journal::Closed(reason) => Err(reason.clone()),
        }
    }

    /// Writes what has happened whether or not it can be written: deaths and releases count in
    /// memory, and are written when the disk takes them again.
    fn settle(&mut self) {
        let changes = self.registry.changes();
        if let Journal::Open(store) = &mut self.journal
            && !changes.is_empty()
            && let Err(error) = store.append_or_defer(changes)
            // What the disk refused is kept, and said with all that it refuses.
            && store.refusal().is_none()
        {
            tracing::warn!("a change can't be written: {error}");
        }
        self.commit();
    }

    /// What was changed is written: tells the log, watches who is new, lets go of who is not.
    fn commit(&mut self) {
        let events = self.registry.commit();
        for event in &events {
            log::event(event, &self.registry);
            self.feed.tell(event, &self.registry);
            self.follow(event);
        }
        self.tell_trouble();
        self.count();
        self.compact_if_worth_it();
    }

    fn follow(&mut self, event: &Event) {
        match event {
            Event::Listening(lock_id) | Event::Identified(lock_id) => {
                let listener = self.registry.listener(*lock_id);
                if let Some(process) = listener.and_then(|listener| listener.process) {
                    self.watch_known(process);
                }
            }
            Event::Inherited(lock_id) => {
                let owner = self.registry.allocation(*lock_id).and_then(|it| it.owner);
                if let Some(owner) = owner {
                    self.watch_known(owner.process);
                }
            }
            Event::Released(allocation, _) => {
                if let Some(owner) = &allocation.owner {
                    self.let_go(owner.process);
                }
            }
            Event::Allocated(_)
            | Event::Conflict(_)
            | Event::Elsewhere(_)
            | Event::Silent(_)
            | Event::InstanceLost(_)
            | Event::Moved(_) => {}
        }
    }

    /// Watches every process that a life depends on: for after a replay.
    fn watch_everybody(&mut self) {
        let owners = self.registry.allocations().filter_map(|allocation| allocation.owner);
        let owners = owners.map(|owner| owner.process);
        let instances = self.registry.instances().filter_map(|instance| instance.process);
        let listeners = self.registry.allocations().filter_map(|allocation| {
            self.registry.listener(allocation.lock_id).and_then(|listener| listener.process)
        });
        let known: Vec<_> = owners.chain(instances).chain(listeners).collect();
        for process in known {
            self.watch_known(process);
        }
    }

    /// Watches a process no more, in a while, that no life depends on.
    fn let_go(&mut self, process: Process) {
        if !self.registry.involves(process) {
            self.watch.idle(process, |process| self.registry.involves(process));
        }
    }

    /// Lets go of the processes that a request named and that got nothing by it.
    fn dismiss_bystanders(&mut self) {
        while let Some(process) = self.newcomers.pop() {
            self.let_go(process);
        }
    }

    fn compact_if_worth_it(&mut self) {
        if let Journal::Open(store) = &self.journal
            && !self.compaction_failed
            && store.wants_compaction(self.registry.len())
        {
            self.compact();
        }
    }

    fn compact(&mut self) {
        let Journal::Open(store) = &mut self.journal else { return };
        let compacted = store.compact(self.registry.snapshot());
        self.compaction_failed = compacted.is_err();
        if let Err(error) = compacted {
            tracing::warn!("the journal can't be compacted now: {error}");
        }
        self.tell_trouble();
    }
}

/// Ends a daemon that systemd did not start, so that its allocations can be taken over: systemd
/// has its sockets now, and nobody would reach it any more. True when it was told to and has not ended.
fn end_background(directory: &Path, patience: Duration) -> bool {
    let is_background = |holder: &LockHolder| holder.role == "daemon" && !holder.systemd;
    let Some(holder) = store::lock_holder(directory).filter(is_background) else { return false };
    let process = Process { pid: holder.pid, start_ticks: holder.start_ticks };
    let outcome = terminate(process, patience);
    match &outcome {
        Ok(Termination::Ended) => {
            tracing::info!("ended the daemon in the background (pid {})", process.pid);
        }
        Ok(Termination::Absent) => {}
        Ok(Termination::Lingers) => {
            tracing::warn!("the daemon in the background (pid {}) does not end", process.pid);
        }
        Err(error) => {
            tracing::warn!("can't end the background daemon (pid {}): {error}", process.pid);
        }
    }
    matches!(outcome, Ok(Termination::Lingers))
}

/// What this process says of itself in the lock file.
pub fn lock_holder(role: &str, sockets: Vec<String>, systemd: bool) -> LockHolder {
    // Without /proc nobody can tell this process from a later one of the same pid.
    let start_ticks = process::own().map_or(0, |own| own.process.start_ticks);
    LockHolder {
        pid: std::process::id(),
        start_ticks,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        role: role.to_owned(),
        sockets,
        systemd,
    }
}
