//! Lives of allocations that a property test would meet too seldom.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::time::Duration;

use uuid::Uuid;

use super::policy::MAX_ASSIGNMENTS;
use super::*;
use crate::api::{self, IfRunning};
use crate::config::Config;
use crate::error::Error;

const NOW: Moment = Moment { monotonic: Duration::from_secs(1000), unix_ms: 1_700_000_000_000 };

/// A machine that is made up.
#[derive(Default)]
struct Made {
    dead: BTreeSet<u32>,
    /// By port: the process, where it is known, and whether it is own.
    listeners: BTreeMap<u16, (Option<u32>, bool)>,
    heirs: HashMap<Uuid, u32>,
    /// By port: whether the container that publishes it runs.
    published: BTreeMap<u16, bool>,
    /// How often somebody looked for heirs.
    walks: usize,
}

impl Machine for Made {
    fn probe(&mut self, _: u16, _: Protocol) -> Probe {
        Probe::Free
    }

    fn publisher(&mut self, port: u16, protocol: Protocol) -> Option<Publisher> {
        let running = *self.published.get(&port)?;
        let container = api::ContainerInfo {
            engine: "docker".to_owned(),
            id: "1f".to_owned(),
            name: "db".to_owned(),
            container_port: 80,
        };
        let usage = api::SystemUsage {
            protocol,
            local_address: format!("*:{port}"),
            uid: 0,
            process: None,
            container: Some(container),
        };
        Some(Publisher { usage, running })
    }

    fn listener(&mut self, allocation: &Allocation) -> Option<Listener> {
        let (pid, own) = *self.listeners.get(&allocation.port)?;
        let local_address = format!("[::]:{}", allocation.port);
        Some(Listener { process: pid.map(process), name: None, local_address, own })
    }

    fn is_alive(&mut self, process: Process) -> bool {
        !self.dead.contains(&process.pid)
    }

    fn heirs(&mut self, orphans: &[Orphan]) -> HashMap<Uuid, Owner> {
        self.walks += 1;
        let heir =
            |Orphan { lock_id, .. }: &Orphan| Some((*lock_id, owner(*self.heirs.get(lock_id)?)));
        orphans.iter().filter_map(heir).collect()
    }

    fn directory_exists(&mut self, _: &str) -> bool {
        true
    }
}

fn process(pid: u32) -> Process {
    Process { pid, start_ticks: u64::from(pid) }
}

fn owner(pid: u32) -> Owner {
    Owner { process: process(pid), started_at: 0, implicit: false }
}

fn implicit(pid: u32) -> Owner {
    Owner { implicit: true, ..owner(pid) }
}

fn registry() -> Registry {
    let (config, _) = Config::parse(Path::new("config.toml"), "");
    Registry::new(Policy::new(&config, []))
}

/// A request of nobody for the dev server `web` of a project.
fn request(number: u128) -> Request {
    Request {
        service_type: "dev".to_owned(),
        service_name: Some("web".to_owned()),
        project_path: Some("/shop".to_owned()),
        protocol: Protocol::Tcp,
        wish: None,
        exact: false,
        avoid: Vec::new(),
        owner: None,
        instance_id: None,
        lease: None,
        if_running: IfRunning::Another,
        previous: None,
        lock_id: Uuid::from_u128(number),
    }
}

fn registration() -> Registration {
    Registration {
        instance_id: "agent".to_owned(),
        working_directory: None,
        process: None,
        metadata: serde_json::Map::default(),
    }
}

/// Makes an allocation and answers its lock id and port.
fn made(registry: &mut Registry, machine: &mut Made, request: &Request) -> (Uuid, u16) {
    let granted = registry.allocate(request, machine, NOW).expect("a port is free");
    registry.commit();
    let port = registry.allocation(granted.lock_id).expect("it was made").port;
    (granted.lock_id, port)
}

fn later(seconds: u64) -> Moment {
    Moment { monotonic: NOW.monotonic + Duration::from_secs(seconds), ..NOW }
}

/// The reason of the one release since the last commit.
fn reason(registry: &mut Registry) -> Reason {
    let events = registry.commit();
    let mut reasons = events.iter().filter_map(|event| match event {
        Event::Released(_, reason) => Some(*reason),
        _ => None,
    });
    let reason = reasons.next().expect("something was released");
    assert_eq!(reasons.next(), None, "only one was released");
    reason
}

#[test]
fn sockets_of_udp_say_something_only_while_a_port_is_allocated_for_it() {
    let (mut registry, mut machine) = (registry(), Made::default());
    assert_eq!(registry.protocol_to_watch(), Protocol::Tcp);
    made(&mut registry, &mut machine, &request(1));
    assert_eq!(registry.protocol_to_watch(), Protocol::Tcp);
    for (number, protocol) in [(2, Protocol::Udp), (3, Protocol::Both)] {
        let (lock_id, _) =
            made(&mut registry, &mut machine, &Request { protocol, ..request(number) });
        assert_eq!(registry.protocol_to_watch(), Protocol::Both);
        registry.release(lock_id).expect("it is there");
        assert_eq!(registry.protocol_to_watch(), Protocol::Tcp);
    }
}

#[test]
fn a_rolled_back_handover_brings_no_dead_owner_back_to_life() {
    let (mut registry, mut machine) = (registry(), Made::default());
    let first = Request { owner: Some(implicit(7)), ..request(1) };
    let (lock_id, _) = made(&mut registry, &mut machine, &first);
    machine.dead.insert(7);
    registry.processes_died(&[process(7)], &mut machine, NOW);
    registry.commit();
    assert_eq!(registry.holder(lock_id, NOW), Some(Holder::Lease));

    let second = Request { owner: Some(implicit(8)), ..request(2) };
    let granted = registry.allocate(&second, &mut machine, NOW).expect("it is handed over");
    assert_eq!(granted.lock_id, lock_id);
    registry.rollback();
    assert_eq!(registry.holder(lock_id, NOW), Some(Holder::Lease), "its owner is still dead");
    registry.expire(&mut machine, later(601));
    assert_eq!(reason(&mut registry), Reason::LeaseExpired);
}

#[test]
fn a_rolled_back_cleanup_forgets_neither_listeners_nor_deaths() {
    let (mut registry, mut machine) = (registry(), Made::default());
    let explicit = Request { owner: Some(owner(7)), ..request(1) };
    let (lock_id, port) = made(&mut registry, &mut machine, &explicit);
    machine.listeners.insert(port, (Some(8), true));
    machine.dead.insert(7);
    registry.processes_died(&[process(7)], &mut machine, NOW);
    registry.commit();
    let before = registry.listener(lock_id).cloned();
    assert!(before.is_some());

    registry.cleanup(true, |_| true, &mut machine, NOW);
    assert_eq!(registry.allocation_count(), 0);
    registry.rollback();
    assert_eq!(registry.listener(lock_id).cloned(), before);
    assert!(registry.involves(process(8)));
    machine.listeners.clear();
    registry.processes_died(&[process(8)], &mut machine, NOW);
    assert_eq!(reason(&mut registry), Reason::ListenerGone);
}

#[test]
fn a_listener_that_becomes_known_is_told() {
    let (mut registry, mut machine) = (registry(), Made::default());
    let (lock_id, port) = made(&mut registry, &mut machine, &request(1));
    machine.listeners.insert(port, (None, true));
    registry.sweep(&mut machine, NOW);
    assert_eq!(registry.commit(), [Event::Listening(lock_id)]);
    machine.listeners.insert(port, (Some(8), true));
    registry.sweep(&mut machine, NOW);
    assert_eq!(registry.commit(), [Event::Identified(lock_id)]);
    registry.sweep(&mut machine, NOW);
    assert_eq!(registry.commit(), []);
}

#[test]
fn an_unknown_listener_keeps_what_its_lease_no_longer_does() {
    let (mut registry, mut machine) = (registry(), Made::default());
    let (lock_id, port) = made(&mut registry, &mut machine, &request(1));
    machine.listeners.insert(port, (None, true));
    registry.expire(&mut machine, later(601));
    registry.commit();
    assert_eq!(registry.holder(lock_id, later(601)), Some(Holder::Listener));
    machine.listeners.insert(port, (Some(8), false));
    registry.sweep(&mut machine, later(602));
    assert_eq!(reason(&mut registry), Reason::ListenerGone);
}

#[test]
fn the_reason_is_the_last_holder_that_went() {
    // The owner, when the allocation has served before.
    let (mut registry, mut machine) = (registry(), Made::default());
    let explicit = Request { owner: Some(owner(7)), ..request(1) };
    let (_, port) = made(&mut registry, &mut machine, &explicit);
    machine.listeners.insert(port, (Some(7), true));
    registry.sweep(&mut machine, NOW);
    machine.listeners.clear();
    registry.sweep(&mut machine, NOW);
    registry.commit();
    registry.processes_died(&[process(7)], &mut machine, NOW);
    assert_eq!(reason(&mut registry), Reason::OwnerDied);

    // The instance, when a listener came and went before.
    registry.register(registration(), NOW);
    let of_instance = Request { instance_id: Some("agent".to_owned()), ..request(2) };
    let (_, port) = made(&mut registry, &mut machine, &of_instance);
    machine.listeners.insert(port, (Some(8), true));
    registry.sweep(&mut machine, NOW);
    machine.listeners.clear();
    registry.sweep(&mut machine, NOW);
    registry.commit();
    registry.remove_instance("agent", &mut machine, NOW).expect("it is registered");
    assert_eq!(reason(&mut registry), Reason::InstanceLost);

    // The lease, when somebody looks before it is told to end, and the owner died long ago.
    let leased = Request { owner: Some(implicit(9)), ..request(3) };
    let (lock_id, _) = made(&mut registry, &mut machine, &leased);
    registry.processes_died(&[process(9)], &mut machine, NOW);
    registry.commit();
    registry.refresh(lock_id, &mut machine, later(601));
    assert_eq!(reason(&mut registry), Reason::LeaseExpired);
}

/// Ends what has passed its deadline at `seconds`, and answers whether `agent` is still there.
fn agent_lives_at(registry: &mut Registry, machine: &mut Made, seconds: u64) -> bool {
    registry.expire(machine, later(seconds));
    registry.instance_count() == 1
}

#[test]
fn an_instance_without_a_process_is_lost_after_three_missed_heartbeats() {
    let (mut registry, mut machine) = (registry(), Made::default());
    registry.register(registration(), NOW);
    let of_instance = Request { instance_id: Some("agent".to_owned()), ..request(1) };
    let (lock_id, _) = made(&mut registry, &mut machine, &of_instance);
    assert_eq!(registry.next_deadline(), Some(later(90).monotonic));
    assert!(agent_lives_at(&mut registry, &mut machine, 60));
    registry.heartbeat("agent", later(60)).expect("it is registered");
    assert!(agent_lives_at(&mut registry, &mut machine, 89));
    assert!(agent_lives_at(&mut registry, &mut machine, 149));
    assert_eq!(registry.holder(lock_id, later(149)), Some(Holder::Instance));
    assert_eq!(registry.commit(), []);

    assert!(!agent_lives_at(&mut registry, &mut machine, 150));
    let events = registry.commit();
    assert_eq!(events[0], Event::InstanceLost("agent".to_owned()));
    assert!(
        matches!(&events[1..], [Event::Released(it, Reason::InstanceLost)] if it.lock_id == lock_id),
        "{events:?}"
    );
    assert_eq!(registry.next_deadline(), None);
}

#[test]
fn an_instance_has_a_full_period_after_a_restart() {
    let (mut registry, mut machine) = (registry(), Made::default());
    registry.register(registration(), NOW);
    assert!(agent_lives_at(&mut registry, &mut machine, 89));
    registry.resume(true, &mut machine, later(1000));
    assert_eq!(registry.next_deadline(), Some(later(1090).monotonic));
    assert!(agent_lives_at(&mut registry, &mut machine, 1089));
    assert!(!agent_lives_at(&mut registry, &mut machine, 1090));
}

#[test]
fn the_process_of_an_instance_needs_no_heartbeat() {
    let (mut registry, mut machine) = (registry(), Made::default());
    registry.register(Registration { process: Some(process(7)), ..registration() }, NOW);
    assert!(agent_lives_at(&mut registry, &mut machine, 1000));
    registry.processes_died(&[process(7)], &mut machine, later(1000));
    assert_eq!(registry.commit(), [Event::InstanceLost("agent".to_owned())]);
}

#[test]
fn heirs_are_looked_for_once_for_all_that_died_together() {
    let (mut registry, mut machine) = (registry(), Made::default());
    for number in 1..=3 {
        let name = Some(format!("service-{number}"));
        let pid = u32::try_from(number).expect("it is small");
        let each = Request { service_name: name, owner: Some(owner(pid)), ..request(number) };
        made(&mut registry, &mut machine, &each);
    }
    machine.heirs.insert(Uuid::from_u128(2), 20);
    registry.processes_died(&[1, 2, 3].map(process), &mut machine, NOW);
    assert_eq!(machine.walks, 1);
    let left: Vec<_> = registry.allocations().map(|it| (it.lock_id, it.owner)).collect();
    assert_eq!(left, [(Uuid::from_u128(2), Some(owner(20)))]);
    machine.heirs.insert(Uuid::from_u128(2), 21);
    registry.processes_died(&[process(20)], &mut machine, NOW);
    assert_eq!(registry.holder(Uuid::from_u128(2), NOW), Some(Holder::Owner), "an heir's heir");
}

#[test]
fn what_has_served_has_no_heirs() {
    let (mut registry, mut machine) = (registry(), Made::default());
    let explicit = Request { owner: Some(owner(7)), ..request(1) };
    let (lock_id, port) = made(&mut registry, &mut machine, &explicit);
    machine.listeners.insert(port, (Some(7), true));
    registry.sweep(&mut machine, NOW);
    machine.listeners.clear();
    machine.heirs.insert(lock_id, 20);
    registry.processes_died(&[process(7)], &mut machine, NOW);
    assert_eq!(machine.walks, 0);
    assert_eq!(reason(&mut registry), Reason::OwnerDied);
}

#[test]
fn a_new_assignment_is_not_the_one_that_is_forgotten() {
    let (mut registry, mut machine) = (registry(), Made::default());
    for number in 0..MAX_ASSIGNMENTS {
        let name = format!("service-{number}");
        let wanted = Wanted {
            service_type: "dev".to_owned(),
            service_name: name,
            wish: None,
            avoid: vec![],
        };
        registry.assign("/shop", &wanted, &mut machine, NOW).expect("a port is free");
    }
    let before = Moment { unix_ms: 1, ..NOW };
    let (lock_id, port) = {
        let granted = registry.allocate(&request(1), &mut machine, before).expect("free");
        (granted.lock_id, registry.allocation(granted.lock_id).expect("it was made").port)
    };
    registry.release(lock_id).expect("it is there");
    let again = registry.assignments().find(|it| it.key.name() == Some("web"));
    assert_eq!(again.map(|it| it.port), Some(port));
    assert_eq!(registry.assignments().count(), MAX_ASSIGNMENTS);
}

#[test]
fn a_service_that_is_handed_over_is_what_its_new_owner_says() {
    let (mut registry, mut machine) = (registry(), Made::default());
    let (lock_id, port) = made(&mut registry, &mut machine, &request(1));
    let other = port + 1;
    let api = Request { service_type: "api".to_owned(), wish: Some(other), ..request(2) };
    let granted = registry.allocate(&api, &mut machine, NOW).expect("it is handed over");
    assert_eq!(granted.lock_id, lock_id);
    assert!(granted.notes[0].starts_with(&format!("not {other}")), "{:?}", granted.notes);
    assert_eq!(registry.allocation(lock_id).expect("it is there").service_type, "api");
}

#[test]
fn a_journal_may_say_odd_things() {
    let (mut registry, mut machine) = (registry(), Made::default());
    made(&mut registry, &mut machine, &request(1));
    let mut odd = registry.allocation(Uuid::from_u128(1)).expect("it was made").clone();
    odd.lock_id = Uuid::from_u128(2);
    odd.slot = Some(u32::MAX);
    odd.lease = Some(Lease { length_ms: u64::MAX, until_ms: u64::MAX });
    registry.replay(Change::Allocation(odd));
    assert_eq!(registry.allocation_count(), 1, "the later line has the port");
    registry.resume(true, &mut machine, NOW);
    assert!(registry.show(Uuid::from_u128(2), NOW).is_some_and(|it| it.expires_at.is_some()));
    assert!(registry.next_deadline().is_some_and(|deadline| deadline > NOW.monotonic));
}

#[test]
fn a_reason_of_a_later_version_is_a_release_all_the_same() {
    let line =
        r#"{"released":{"lock_id":"00000000-0000-0000-0000-000000000007","reason":"eaten"}}"#;
    let change: Change = serde_json::from_str(line).expect("it can be read");
    let lock_id = Uuid::from_u128(7);
    assert_eq!(change, Change::Released { lock_id, reason: Reason::Unknown });
}

#[test]
fn a_published_port_is_taken_and_a_stopped_containers_is_avoided() {
    let mut machine = Made { published: [(3000, false), (8000, true)].into(), ..Made::default() };
    let mut registry = registry();
    let granted = registry.allocate(&request(1), &mut machine, NOW).expect("there are others");
    let port = registry.allocation(granted.lock_id).map(|allocation| allocation.port);
    assert_eq!(port, Some(8080), "the first of dev's preferred ports that no container wants");

    let wish = |number, wish| {
        let service_name = Some(format!("service-{number}"));
        Request { wish: Some(wish), exact: true, service_name, ..request(number) }
    };
    registry.allocate(&wish(2, 3000), &mut machine, NOW).expect("it was asked for by number");
    match registry.allocate(&wish(3, 8000), &mut machine, NOW) {
        Err(Error::PortUnavailable { system_usage: Some(usage), instead, .. }) => {
            assert_eq!(usage.container.map(|container| container.name).as_deref(), Some("db"));
            assert!(instead.is_some());
        }
        other => panic!("{other:?}"),
    }
    let request = Request { exact: false, ..wish(4, 8000) };
    let granted = registry.allocate(&request, &mut machine, NOW).expect("there are others");
    assert!(granted.notes[0].contains("by the container db (docker)"), "{:?}", granted.notes);
}
