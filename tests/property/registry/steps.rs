//! What can happen, and a world that it happens to.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;
use styxy::api::{IfRunning, Protocol};
use styxy::config::Config;
use styxy::registry::{
    Allocation, Assignment, Change, Granted, Holder, Listener, Moment, Owner, Policy, Process,
    Registration, Registry, Request, Wanted,
};
use uuid::Uuid;

use super::machine::{Fake, Socket};
use super::model::Model;

/// A small machine, so that things meet: few ports, few names, few processes.
const CONFIG: &str = "
[daemon]
overflow = [20000, 20005]
avoid = [8003]
default_lease = '60s'
[service.dev]
preferred_ports = [3000, 8000]
port_range = [8000, 8005]
[service.test]
preferred_ports = [9000]
port_range = [9000, 9003]
";

#[derive(Debug, Clone)]
pub(crate) enum Step {
    Allocate(Wish),
    /// Somebody asks for what another one has, and says whose it was.
    TakeOver {
        at: prop::sample::Index,
        by: u8,
        previous: u8,
        implicit: bool,
    },
    Release(prop::sample::Index),
    Renew(prop::sample::Index, u64),
    Register {
        id: u8,
        pid: Option<u8>,
    },
    Heartbeat(u8),
    RemoveInstance(u8),
    Born {
        pid: u8,
        /// Whose `STYXY_LOCK_ID` it has in its environment.
        of: Option<prop::sample::Index>,
    },
    Dies(u8),
    Listens {
        at: prop::sample::Index,
        pid: u8,
        own: bool,
    },
    StopsListening(prop::sample::Index),
    StrangerTakes(u16),
    StrangerLeaves(u16),
    Assign {
        project: u8,
        name: u8,
        wish: Option<u16>,
    },
    ProjectGoes(u8),
    Passes(u64),
    /// Somebody sets the wall clock, or the machine was suspended: the monotonic clock stands still.
    ClockIsSet(i64),
    Cleanup {
        force: bool,
        project: Option<u8>,
    },
    Sweep,
    Restart,
}

#[derive(Debug, Clone)]
pub(crate) struct Wish {
    pub(crate) service_type: &'static str,
    pub(crate) name: Option<u8>,
    pub(crate) project: Option<u8>,
    pub(crate) protocol: Protocol,
    pub(crate) port: Option<u16>,
    pub(crate) exact: bool,
    pub(crate) avoid: Vec<u16>,
    pub(crate) pid: Option<u8>,
    pub(crate) implicit: bool,
    pub(crate) instance: Option<u8>,
    pub(crate) lease: Option<u64>,
    pub(crate) if_running: IfRunning,
}

impl Step {
    pub(crate) fn allocate() -> impl Strategy<Value = Self> {
        let what = (
            prop::sample::select(vec!["dev", "test"]),
            prop::option::of(0..2_u8),
            prop::option::of(0..2_u8),
            prop::sample::select(vec![Protocol::Tcp, Protocol::Udp, Protocol::Both]),
            prop::option::of(port()),
            prop::bool::weighted(0.2),
            prop::collection::vec(port(), 0..3),
        );
        let who = (
            prop::option::of(0..4_u8),
            any::<bool>(),
            prop::option::weighted(0.3, 0..2_u8),
            prop::option::weighted(0.3, 1..100_u64),
            prop::sample::select(vec![IfRunning::Another, IfRunning::Refuse, IfRunning::Reuse]),
        );
        (what, who).prop_map(|(what, who)| {
            let (service_type, name, project, protocol, port, exact, avoid) = what;
            let (pid, implicit, instance, lease, if_running) = who;
            Self::Allocate(Wish {
                service_type,
                name,
                project,
                protocol,
                port,
                exact,
                avoid,
                pid,
                implicit,
                instance,
                lease,
                if_running,
            })
        })
    }

    pub(crate) fn any() -> impl Strategy<Value = Self> {
        let index = any::<prop::sample::Index>;
        prop_oneof![
            8 => Self::allocate(),
            2 => (index(), 0..4_u8, 0..4_u8, any::<bool>())
                .prop_map(|(at, by, previous, implicit)| Self::TakeOver { at, by, previous, implicit }),
            1 => index().prop_map(Self::Release),
            1 => (index(), 1..100_u64).prop_map(|(at, seconds)| Self::Renew(at, seconds)),
            1 => (0..2_u8, prop::option::of(0..4_u8))
                .prop_map(|(id, pid)| Self::Register { id, pid }),
            1 => (0..2_u8).prop_map(Self::Heartbeat),
            1 => (0..2_u8).prop_map(Self::RemoveInstance),
            2 => (0..4_u8, prop::option::of(index())).prop_map(|(pid, of)| Self::Born { pid, of }),
            2 => (0..4_u8).prop_map(Self::Dies),
            3 => (index(), 0..4_u8, any::<bool>())
                .prop_map(|(at, pid, own)| Self::Listens { at, pid, own }),
            2 => index().prop_map(Self::StopsListening),
            1 => port().prop_map(Self::StrangerTakes),
            1 => port().prop_map(Self::StrangerLeaves),
            1 => (0..2_u8, 0..2_u8, prop::option::of(port()))
                .prop_map(|(project, name, wish)| Self::Assign { project, name, wish }),
            1 => (0..2_u8).prop_map(Self::ProjectGoes),
            2 => (1..120_u64).prop_map(Self::Passes),
            1 => (-1_000_000..1_000_000_i64).prop_map(Self::ClockIsSet),
            1 => (any::<bool>(), prop::option::of(0..2_u8))
                .prop_map(|(force, project)| Self::Cleanup { force, project }),
            1 => Just(Self::Sweep),
            1 => Just(Self::Restart),
        ]
    }
}

fn port() -> impl Strategy<Value = u16> {
    prop::sample::select(vec![3000, 6000, 8000, 8001, 8002, 8003, 8004, 9000, 9001, 20000, 20001])
}

fn project(number: u8) -> String {
    format!("/home/user/project-{number}")
}

/// Everything the registry keeps, in an order of its own.
#[derive(Debug, PartialEq)]
pub(crate) struct Values {
    pub(crate) allocations: Vec<Allocation>,
    pub(crate) assignments: Vec<Assignment>,
    pub(crate) instances: Vec<String>,
}

pub(crate) struct World {
    pub(crate) registry: Registry,
    pub(crate) machine: Fake,
    pub(crate) now: Moment,
    pub(crate) journal: Vec<Change>,
    /// The allocations before the last step: none of them is probed.
    pub(crate) before: Vec<Allocation>,
    /// What there should be.
    pub(crate) model: Model,
    /// Pids by number, with the start time of their last life.
    births: BTreeMap<u8, u64>,
    made: u128,
}

impl World {
    pub(crate) fn new() -> Self {
        Self {
            registry: registry(),
            machine: Fake::default(),
            now: Moment { monotonic: Duration::from_secs(1000), unix_ms: 1_700_000_000_000 },
            journal: Vec::new(),
            before: Vec::new(),
            model: Model::default(),
            births: BTreeMap::new(),
            made: 0,
        }
    }

    pub(crate) fn values(&self) -> Values {
        Values {
            allocations: self.registry.allocations().cloned().collect(),
            assignments: self.registry.assignments().cloned().collect(),
            instances: self.registry.instances().map(|it| it.instance_id.clone()).collect(),
        }
    }

    /// What the registry has seen of each allocation, which no journal keeps.
    pub(crate) fn seen(&self) -> Vec<(Option<Holder>, Option<Listener>)> {
        let seen = |it: &Allocation| {
            let listener = self.registry.listener(it.lock_id).cloned();
            (self.registry.holder(it.lock_id, self.now), listener)
        };
        self.registry.allocations().map(seen).collect()
    }

    /// The same world with a registry that has replayed the journal.
    pub(crate) fn replayed(&self) -> Self {
        let mut registry = registry();
        for change in &self.journal {
            registry.replay(change.clone());
        }
        Self {
            registry,
            machine: self.machine.clone(),
            now: self.now,
            journal: self.journal.clone(),
            before: Vec::new(),
            model: self.model.clone(),
            births: self.births.clone(),
            made: self.made,
        }
    }

    /// One step, journalled; the machine's events are told at once.
    pub(crate) fn take(&mut self, step: &Step) -> Option<Granted> {
        self.before = self.registry.allocations().cloned().collect();
        self.machine.probed.clear();
        let granted = self.perform(step);
        self.journal.extend_from_slice(self.registry.changes());
        self.registry.commit();
        self.model.settle(&self.machine, self.now.monotonic);
        granted
    }

    pub(crate) fn take_and_roll_back(&mut self, step: &Step) {
        if matches!(step, Step::Restart) {
            return;
        }
        let (now, model) = (self.now, self.model.clone());
        self.perform(step);
        self.registry.rollback();
        self.now = now;
        self.model = model;
    }

    fn perform(&mut self, step: &Step) -> Option<Granted> {
        let now = self.now;
        match step {
            Step::Allocate(wish) => return self.allocate(wish),
            Step::TakeOver { at, by, previous, implicit } => {
                if let Some(lock_id) = self.pick(*at) {
                    let process = self.living(*by);
                    let owner = Owner { process, started_at: 0, implicit: *implicit };
                    self.take_over(lock_id, owner, u32::from(*previous));
                }
            }
            Step::Release(at) => {
                if let Some(lock_id) = self.pick(*at) {
                    self.registry.release(lock_id).expect("it is there");
                    self.model.lives.remove(&lock_id);
                }
            }
            Step::Renew(at, seconds) => {
                if let Some(lock_id) = self.pick(*at) {
                    let length = Duration::from_secs(*seconds);
                    self.registry.renew(lock_id, Some(length), now).expect("it is there");
                    self.model.renewed(lock_id, length, now.monotonic);
                }
            }
            Step::Register { id, pid } => self.register(*id, *pid),
            Step::Heartbeat(id) => {
                let id = format!("instance-{id}");
                self.model.heard(&id, now.monotonic);
                // An unknown one is refused, and that is all.
                let _ = self.registry.heartbeat(&id, now);
            }
            Step::RemoveInstance(id) => {
                let id = format!("instance-{id}");
                // An unknown one is refused, and that is all.
                let _ = self.registry.remove_instance(&id, &mut self.machine, now);
                self.model.instances.remove(&id);
            }
            Step::Born { pid, of } => self.bear(*pid, *of),
            Step::Dies(pid) => self.die(*pid),
            Step::Listens { at, pid, own } => {
                if let Some(port) = self.pick(*at).and_then(|id| self.registry.allocation(id)) {
                    let port = port.port;
                    let process = self.living(*pid);
                    self.machine.sockets.entry(port).or_insert(Socket { process, own: *own });
                    self.registry.sweep(&mut self.machine, now);
                }
            }
            Step::StopsListening(at) => {
                let ports: Vec<u16> = self.machine.sockets.keys().copied().collect();
                if !ports.is_empty() {
                    self.machine.sockets.remove(at.get(&ports));
                    self.registry.sweep(&mut self.machine, now);
                }
            }
            Step::StrangerTakes(port) => {
                self.machine.used.insert(*port);
            }
            Step::StrangerLeaves(port) => {
                self.machine.used.remove(port);
            }
            Step::Assign { project: at, name, wish } => {
                let wanted = Wanted {
                    service_type: "dev".to_owned(),
                    service_name: format!("name-{name}"),
                    wish: *wish,
                    avoid: vec![],
                };
                // A full range is refused, and that is all.
                let _ = self.registry.assign(&project(*at), &wanted, &mut self.machine, now);
            }
            Step::ProjectGoes(number) => {
                self.machine.gone.insert(project(*number));
                self.registry.forget_assignments(&mut self.machine, now);
            }
            Step::Passes(seconds) => {
                self.now.monotonic += Duration::from_secs(*seconds);
                self.now.unix_ms += seconds * 1000;
                self.registry.expire(&mut self.machine, self.now);
            }
            Step::ClockIsSet(seconds) => {
                self.now.unix_ms = self.now.unix_ms.saturating_add_signed(seconds * 1000);
                self.registry.expire(&mut self.machine, self.now);
            }
            Step::Cleanup { force, project: number } => {
                let only = number.map(project);
                let scope = |it: &Allocation| only.is_none() || it.project_path == only;
                self.registry.cleanup(*force, scope, &mut self.machine, now);
                if *force {
                    self.model.lives.retain(|_, it| only.is_some() && it.project_path != only);
                }
            }
            Step::Sweep => self.registry.sweep(&mut self.machine, now),
            Step::Restart => {
                self.registry = self.replayed().registry;
                self.registry.resume(true, &mut self.machine, now);
                self.model.restarted(&self.machine, now.monotonic);
            }
        }
        None
    }

    fn allocate(&mut self, wish: &Wish) -> Option<Granted> {
        let request = self.request(wish);
        let assigned: Vec<u16> = self.registry.assignments().map(|it| it.port).collect();
        let granted = self.registry.allocate(&request, &mut self.machine, self.now).ok()?;
        let port = self.registry.allocation(granted.lock_id).expect("it was granted").port;
        let is_picked = !granted.reused && request.wish != Some(port) && !assigned.contains(&port);
        assert!(!(is_picked && request.avoid.contains(&port)), "{request:?} got {port}");
        let what = (granted.lock_id, port);
        self.model.granted(&request, what, &self.machine, self.now.monotonic);
        Some(granted)
    }

    /// It goes to whoever knows whose it is, or takes it from somebody dead; never while anybody uses
    /// it.
    fn take_over(&mut self, lock_id: Uuid, owner: Owner, previous: u32) {
        let allocation = self.registry.allocation(lock_id).expect("it was picked").clone();
        let request = Request {
            service_type: allocation.service_type,
            service_name: allocation.service_name,
            project_path: allocation.project_path,
            protocol: allocation.protocol,
            wish: None,
            exact: false,
            avoid: Vec::new(),
            owner: Some(owner),
            instance_id: allocation.instance_id,
            lease: None,
            if_running: IfRunning::Another,
            previous: Some(previous),
            lock_id,
        };
        let granted = self.registry.allocate(&request, &mut self.machine, self.now).is_ok();
        let from = allocation.owner.map(|owner| owner.process);
        let is_own = from == Some(owner.process);
        let may_go = |from: Process| from.pid == previous || !self.machine.alive.contains(&from);
        let goes = from.is_some_and(may_go) && !self.machine.sockets.contains_key(&allocation.port);
        assert_eq!(granted, is_own || goes, "{request:?} of {from:?}");
        if goes && !is_own {
            self.model.goes_to(&request, (lock_id, allocation.port), self.now.monotonic);
        }
    }

    fn register(&mut self, id: u8, pid: Option<u8>) {
        let registration = Registration {
            instance_id: format!("instance-{id}"),
            working_directory: None,
            process: pid.map(|pid| self.living(pid)),
            metadata: serde_json::Map::default(),
        };
        let Registration { instance_id, process, .. } = &registration;
        self.model.registered(instance_id, *process, self.now.monotonic);
        self.registry.register(registration, self.now);
    }

    fn pick(&self, at: prop::sample::Index) -> Option<Uuid> {
        let lock_ids: Vec<Uuid> = self.registry.allocations().map(|it| it.lock_id).collect();
        (!lock_ids.is_empty()).then(|| *at.get(&lock_ids))
    }

    /// The process with that pid, born now if there is none.
    fn living(&mut self, pid: u8) -> Process {
        if let Some(process) = self.machine.alive.iter().find(|it| it.pid == u32::from(pid)) {
            return *process;
        }
        let birth = self.births.entry(pid).or_default();
        *birth += 1;
        let process = Process { pid: u32::from(pid), start_ticks: *birth };
        self.machine.alive.insert(process);
        process
    }

    fn bear(&mut self, pid: u8, of: Option<prop::sample::Index>) {
        let before = self.machine.alive.len();
        let process = self.living(pid);
        // Who lives already keeps the environment that it has.
        if self.machine.alive.len() > before
            && let Some(lock_id) = of.and_then(|at| self.pick(at))
        {
            self.machine.marks.insert(process, lock_id);
        }
    }

    fn die(&mut self, pid: u8) {
        let dead = self.machine.alive.iter().find(|it| it.pid == u32::from(pid)).copied();
        if let Some(process) = dead {
            self.machine.alive.remove(&process);
            self.machine.sockets.retain(|_, socket| socket.process != process);
            let (ports, listed) = self.registry.held_by(&[process]);
            self.machine.looked_at.clear();
            self.registry.processes_died(&[process], &mut self.machine, self.now);
            // Whoever lists no more sockets than that answers all that is asked.
            for (port, protocol) in &self.machine.looked_at {
                let is_listed = ports.contains(port)
                    && (listed.has_tcp() || !protocol.has_tcp())
                    && (listed.has_udp() || !protocol.has_udp());
                assert!(is_listed, "{port}/{protocol:?} was looked at, not {ports:?}/{listed:?}");
            }
            self.model.died(process, &self.machine);
        }
    }

    fn request(&mut self, wish: &Wish) -> Request {
        self.made += 1;
        let owner = wish.pid.map(|pid| Owner {
            process: self.living(pid),
            started_at: 0,
            implicit: wish.implicit,
        });
        Request {
            service_type: wish.service_type.to_owned(),
            service_name: wish.name.map(|name| format!("name-{name}")),
            project_path: wish.project.map(project),
            protocol: wish.protocol,
            wish: wish.port,
            exact: wish.exact,
            avoid: wish.avoid.clone(),
            owner,
            instance_id: wish.instance.map(|id| format!("instance-{id}")),
            lease: wish.lease.map(Duration::from_secs),
            if_running: wish.if_running,
            previous: None,
            lock_id: Uuid::from_u128(self.made),
        }
    }
}

fn registry() -> Registry {
    let (config, diagnostics) = Config::parse(Path::new("config.toml"), CONFIG);
    assert_eq!(diagnostics, [], "the configuration of the test is right");
    Registry::new(Policy::new(&config, [9876]))
}
