//! The last resort: a port that is free but not reserved, where there is neither a daemon nor a
//! journal. Styxy must never be the reason that a server can't start.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use uuid::Uuid;

use crate::api::{self, AllocateRequest, IfRunning, Protocol};
use crate::config::Config;
use crate::detect::ports;
use crate::error::Error;
use crate::registry::{
    Allocation, Assignment, Change, Listener, Machine, Moment, Orphan, Owner, Policy, Probe,
    Process, Registry, Request, Wanted,
};
use crate::store;

/// Picks ports as a daemon would that has nothing to go by: the same rules, a registry without
/// allocations, and only what this process sees in its own network namespace.
#[derive(Debug)]
pub struct Fallback {
    registry: Registry,
}

/// A port that nobody had.
#[derive(Debug)]
pub struct Picked {
    /// The port.
    pub port: u16,
    /// Its sockets. As long as they are open, nobody else gets it; they are closed by `execve`.
    pub held: Vec<OwnedFd>,
    /// Sentences a person wants to know besides: why not the port asked for.
    pub notes: Vec<String>,
}

impl Fallback {
    /// Begins with nothing but the configuration.
    pub fn new(config: &Config) -> Self {
        let policy = Policy::new(config, [config.daemon.listen.port()]);
        Self { registry: Registry::new(policy) }
    }

    /// Takes up which port each service gets, from the journal in `state_dir` as it stands: nobody
    /// is locked out, and nothing is written. Where it can't be read, nothing is known.
    #[must_use]
    pub fn with_assignments(mut self, state_dir: &Path) -> Self {
        let changes = store::peek(state_dir).unwrap_or_default().into_iter();
        for change in changes.filter(Change::is_durable) {
            self.registry.replay(change);
        }
        self
    }

    /// Picks a port for `request` and binds it: the port asked for, the one assigned, those of the
    /// service type, the overflow. What was picked before is not picked again.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownServiceType`], [`Error::RangeExhausted`], and with `exact`
    /// [`Error::PortUnavailable`].
    pub fn pick(&mut self, request: &AllocateRequest) -> Result<Picked, Error> {
        let lock_id = Uuid::new_v4();
        let mut machine = Holding(Vec::new());
        let granted = self.registry.allocate(&bare(request, lock_id), &mut machine, NEVER)?;
        self.registry.commit();
        let port = self.registry.allocation(lock_id).map(|allocation| allocation.port);
        // The registry takes the first port that the probe said is free, and asks no more.
        match (port, machine.0.pop()) {
            (Some(port), Some((held_port, held))) if port == held_port => {
                Ok(Picked { port, held, notes: granted.notes })
            }
            _ => Err(Error::invalid("port", "was granted without a probe")),
        }
    }

    /// The assignments of a project, as far as they are known.
    pub fn assignments(&self, project: &str) -> Vec<api::Assignment> {
        let all = self.registry.assignments();
        all.filter(|it| it.key.project_path == project).map(Assignment::to_wire).collect()
    }

    /// Which port each of a project's services gets: the one that it has, or a new one that nobody
    /// had at that moment.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownServiceType`], [`Error::RangeExhausted`].
    pub fn assign(
        &mut self,
        project: &str,
        services: &[api::AssignService],
        avoid: &[u16],
    ) -> Result<Vec<api::Assignment>, Error> {
        let mut machine = Holding(Vec::new());
        let one = |service: &api::AssignService| {
            let wanted = Wanted {
                service_type: service.service_type.clone(),
                service_name: service.service_name.clone(),
                wish: service.preferred_port,
                avoid: avoid.to_owned(),
            };
            let assigned = self.registry.assign(project, &wanted, &mut machine, NEVER)?;
            Ok(assigned.0.to_wire())
        };
        let assignments = services.iter().map(one).collect::<Result<_, Error>>();
        self.registry.commit();
        assignments
    }
}

/// Leases mean nothing to a registry that ends with the command.
const NEVER: Moment = Moment { monotonic: Duration::ZERO, unix_ms: 0 };

/// What of a request decides the port.
fn bare(request: &AllocateRequest, lock_id: Uuid) -> Request {
    Request {
        service_type: request.service_type.clone(),
        service_name: request.service_name.clone(),
        project_path: request.project_path.clone(),
        protocol: request.protocol,
        wish: request.preferred_port,
        exact: request.exact,
        avoid: request.avoid_ports.clone(),
        owner: None,
        instance_id: None,
        lease: None,
        if_running: IfRunning::Another,
        previous: None,
        lock_id,
    }
}

/// The machine as it is seen without any knowledge, where a probe that succeeds keeps the port.
struct Holding(Vec<(u16, Vec<OwnedFd>)>);

impl Machine for Holding {
    fn probe(&mut self, port: u16, protocol: Protocol) -> Probe {
        match ports::hold(port, protocol) {
            Ok(sockets) => {
                self.0.push((port, sockets));
                Probe::Free
            }
            Err(probe) => probe,
        }
    }

    /// What was picked before is held by this process, so nobody else may have it, not even the
    /// same service a second time.
    fn listener(&mut self, allocation: &Allocation) -> Option<Listener> {
        let local_address = format!("[::]:{}", allocation.port);
        Some(Listener { process: None, name: None, local_address, own: true })
    }

    fn is_alive(&mut self, _process: Process) -> bool {
        false
    }

    fn heirs(&mut self, _orphans: &[Orphan]) -> HashMap<Uuid, Owner> {
        HashMap::new()
    }

    fn directory_exists(&mut self, path: &str) -> bool {
        Path::new(path).exists()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ServiceType;
    use crate::registry::{AssignmentKey, Service};
    use std::net::TcpListener;
    use std::sync::atomic::{AtomicU16, Ordering};

    static NEXT: AtomicU16 = AtomicU16::new(0);

    /// Four ports in a row that nobody has, and a configuration that picks from them.
    fn config() -> (u16, Config) {
        let is_free =
            |port: &u16| (0..4).all(|step| ports::probe(port + step, Protocol::Tcp) == Probe::Free);
        // Tests that run at the same time have different ones, in this process and in others; below
        // 32768, from where the kernel takes those of outgoing connections.
        let start = 12_000 + u16::try_from(std::process::id() % 400).unwrap_or_default() * 20;
        let mut steps = std::iter::repeat_with(|| start + NEXT.fetch_add(4, Ordering::Relaxed));
        let first = steps.find(is_free).expect("four free ports");
        let mut config = Config::built_in();
        let port_range = Some(first..=first + 3);
        let own = ServiceType { port_range, ..ServiceType::default() };
        config.services.insert("own".to_owned(), own);
        (first, config)
    }

    fn request(name: &str, wish: Option<u16>) -> AllocateRequest {
        AllocateRequest {
            service_type: "own".to_owned(),
            service_name: Some(name.to_owned()),
            project_path: Some("/project".to_owned()),
            preferred_port: wish,
            ..AllocateRequest::default()
        }
    }

    /// Has the journal in `state` say which port a service gets.
    fn keep_assignment(state: &Path, project_path: &str, name: &str, port: u16) {
        let service = Service::Named(name.to_owned());
        let key = AssignmentKey { project_path: project_path.to_owned(), service };
        let service_type = "own".to_owned();
        let assignment = Assignment { key, service_type, port, last_used_ms: 0 };
        let holder = crate::coordinator::lock_holder("command", Vec::new(), false);
        let (mut store, _) = store::Store::open(state, "boot", &holder, Duration::ZERO)
            .expect("nobody else works on it");
        store.append(&[Change::Assignment(assignment)]).expect("there is room");
    }

    #[test]
    fn a_port_that_is_to_be_avoided_goes_to_nobody_who_does_not_wish_for_it() {
        let (first, config) = config();
        let folder = tempfile::tempdir().expect("a folder");
        let project = folder.path().to_str().expect("UTF-8");
        let service = |name: &str, preferred_port| api::AssignService {
            service_type: "own".to_owned(),
            service_name: name.to_owned(),
            preferred_port,
        };
        let services = [service("docs", None), service("web", Some(first))];
        let avoid = [first, first + 1, first + 2];
        let mut fallback = Fallback::new(&config);
        let assigned = fallback.assign(project, &services, &avoid).expect("ports are free");
        let ports: Vec<u16> = assigned.iter().map(|it| it.port).collect();
        assert_eq!(ports, [first + 3, first]);
    }

    #[test]
    fn a_port_is_held_until_its_sockets_are_closed() -> Result<(), Error> {
        let (first, config) = config();
        let picked = Fallback::new(&config).pick(&request("web", Some(first)))?;
        assert_eq!(picked.port, first);
        assert!(picked.notes.is_empty(), "{:?}", picked.notes);
        assert!(TcpListener::bind(("127.0.0.1", first)).is_err(), "it is held");

        let other = Fallback::new(&config).pick(&request("web", Some(first)))?;
        assert_ne!(other.port, first);
        assert!(other.notes[0].contains(&first.to_string()), "{:?}", other.notes);

        drop(picked);
        assert!(TcpListener::bind(("127.0.0.1", first)).is_ok(), "it is free again");
        Ok(())
    }

    #[test]
    fn a_service_gets_its_assigned_port_and_nobody_gets_one_twice() -> Result<(), Error> {
        let (first, config) = config();
        let state = tempfile::tempdir().expect("a temporary directory");
        let project = state.path().join("project");
        std::fs::create_dir(&project).expect("there is room");
        let project = project.display().to_string();
        keep_assignment(state.path(), &project, "web", first + 2);
        let request = |name, wish| AllocateRequest {
            project_path: Some(project.clone()),
            ..request(name, wish)
        };
        let mut fallback = Fallback::new(&config).with_assignments(state.path());
        let picks: Vec<Picked> = ["api", "web", "web"]
            .into_iter()
            .map(|name| fallback.pick(&request(name, None)))
            .collect::<Result<_, _>>()?;
        assert_eq!(picks[1].port, first + 2);
        let ports: std::collections::BTreeSet<u16> = picks.iter().map(|one| one.port).collect();
        assert_eq!(ports.len(), 3, "{picks:?}");
        assert!(ports.iter().all(|port| (first..first + 4).contains(port)), "{picks:?}");
        Ok(())
    }

    #[test]
    fn a_journal_that_is_no_file_keeps_nobody_waiting() -> Result<(), Box<dyn std::error::Error>> {
        let (first, config) = config();
        let state = tempfile::tempdir()?;
        let fifo = state.path().join("state.jsonl");
        rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RWXU)?;
        let (done, picked) = std::sync::mpsc::channel();
        // Whoever opened the FIFO would wait for ever, so not on this thread.
        std::thread::spawn(move || {
            let fallback = Fallback::new(&config).with_assignments(state.path());
            let picked = { fallback }.pick(&request("web", None)).map(|picked| picked.port);
            done.send((picked, state))
        });
        let (port, _state) = picked.recv_timeout(Duration::from_secs(10))?;
        assert!((first..first + 4).contains(&port?));
        Ok(())
    }

    #[test]
    fn exact_means_that_port_or_none() {
        let (first, config) = config();
        let _taken = TcpListener::bind(("127.0.0.1", first)).expect("a free port");
        let request = AllocateRequest { exact: true, ..request("web", Some(first)) };
        let refused = Fallback::new(&config).pick(&request).expect_err("it is taken");
        assert_eq!(refused.code(), "port_unavailable");
    }
}
