//! The coordinator with a real journal and real processes.

use std::process::{Child, Command};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;
use crate::api::{AllocateRequest, RegisterRequest};

struct Fixture {
    coordinator: Coordinator,
    directory: TempDir,
}

impl Fixture {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let paths = Paths {
            state_dir: directory.path().join("state"),
            socket: directory.path().join("socket"),
            config_files: Vec::new(),
        };
        let (config, _) = Config::parse(Path::new("config.toml"), "");
        let holder = lock_holder("daemon", Vec::new(), false);
        let coordinator = Coordinator::for_daemon(&paths, config, holder, []);
        Self { coordinator: coordinator.expect("the state can be opened"), directory }
    }

    fn watched(&self) -> usize {
        self.coordinator.lock().watch.len()
    }

    /// Whether the upkeep was woken since the last call.
    fn woken(&self) -> bool {
        let mut changed = std::pin::pin!(self.coordinator.changed.notified());
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        changed.as_mut().poll(&mut context).is_ready()
    }
}

/// A child that is killed and reaped when dropped.
pub(super) struct Sleeper(pub(super) Child);

impl Sleeper {
    pub(super) fn new() -> Self {
        Self(Command::new("sleep").arg("600").spawn().expect("sleep can be started"))
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn request(owner: &Sleeper) -> AllocateRequest {
    AllocateRequest {
        service_type: "test".to_owned(),
        process_id: Some(owner.0.id()),
        ..AllocateRequest::default()
    }
}

#[test]
fn only_who_got_something_stays_watched() {
    let (fixture, owner) = (Fixture::new(), Sleeper::new());
    let peer = Peer::default();
    let dry = AllocateRequest { dry_run: true, ..request(&owner) };
    fixture.coordinator.allocate(&dry, peer).expect("a port is free");
    assert_eq!(fixture.watched(), 1, "it may ask again at once");
    fixture.coordinator.safety_net();
    assert_eq!(fixture.watched(), 0, "after a dry run");

    let late = AllocateRequest { process_start_time: Some(1), ..request(&owner) };
    fixture.coordinator.allocate(&late, peer).expect_err("it started later");
    fixture.coordinator.safety_net();
    assert_eq!(fixture.watched(), 0, "after a refusal");

    let made = fixture.coordinator.allocate(&request(&owner), peer).expect("a port is free");
    fixture.coordinator.safety_net();
    assert_eq!(fixture.watched(), 1);
    fixture.coordinator.release(&made.lock_id).expect("it is there");
    fixture.coordinator.safety_net();
    assert_eq!(fixture.watched(), 0, "after the release");
}

#[test]
fn a_process_whose_service_went_to_another_is_let_go() {
    let (fixture, first, second) = (Fixture::new(), Sleeper::new(), Sleeper::new());
    let named = |owner: &Sleeper| AllocateRequest {
        service_name: Some("web".to_owned()),
        implicit_owner: true,
        ..request(owner)
    };
    let peer = Peer::default();
    let one = fixture.coordinator.allocate(&named(&first), peer).expect("a port is free");
    let two = fixture.coordinator.allocate(&named(&second), peer).expect("it is handed over");
    assert_eq!(one.lock_id, two.lock_id);
    fixture.coordinator.safety_net();
    assert_eq!(fixture.watched(), 1);
}

#[test]
fn the_upkeep_is_woken_only_for_what_is_due_earlier() {
    let (fixture, owner) = (Fixture::new(), Sleeper::new());
    fixture.coordinator.upkeep();
    let allocate = |lease_seconds| {
        let request = AllocateRequest { lease_seconds, ..request(&owner) };
        fixture.coordinator.allocate(&request, Peer::default()).expect("a port is free");
    };
    allocate(None);
    assert!(fixture.woken(), "there are listeners to follow");
    fixture.coordinator.upkeep();
    allocate(None);
    assert!(!fixture.woken());
    allocate(Some(60));
    assert!(fixture.woken(), "a lease will end");
    fixture.coordinator.upkeep();
    allocate(Some(90));
    assert!(!fixture.woken());
    let register = RegisterRequest::default();
    fixture.coordinator.register(&register, Peer::default()).expect("it is registered");
    assert!(!fixture.woken(), "the lease ends before it can fall silent");
    allocate(Some(10));
    assert!(fixture.woken());
}

#[test]
fn nothing_is_unknown_while_the_state_cannot_be_read() {
    let fixture = Fixture::new();
    fixture.coordinator.lock().journal = Journal::Closed("the disk is gone".to_owned());
    let lock_id = "0e0b8c9e-3f0a-4a52-9d2c-6a3a4a1f8e11";
    let codes = [
        fixture.coordinator.release(lock_id).expect_err("nobody knows").code(),
        fixture.coordinator.renew(lock_id, &api_renew()).expect_err("nobody knows").code(),
        fixture.coordinator.heartbeat("agent").expect_err("nobody knows").code(),
        fixture.coordinator.remove_instance("agent").expect_err("nobody knows").code(),
    ];
    assert_eq!(codes, ["state_not_writable"; 4]);
}

fn api_renew() -> crate::api::RenewRequest {
    crate::api::RenewRequest::default()
}

#[test]
fn what_is_registered_can_be_addressed_and_read_again() {
    let fixture = Fixture::new();
    let register = |id: &str, metadata: Value| {
        let request = json!({ "instance_id": id, "metadata": metadata });
        let request = serde_json::from_value(request).expect("a request");
        let answer = fixture.coordinator.register(&request, Peer::default());
        answer.map_err(|error| error.to_string())
    };
    for id in ["list", "register", "heartbeat", ".", ".."] {
        let error = register(id, json!({})).expect_err("it is a route");
        assert!(error.starts_with("instance_id: "), "{error}");
    }
    let nested = |levels| (0..levels).fold(json!(1), |inner, _| json!([inner]));
    let error = register("deep", json!({ "deep": nested(33) })).expect_err("too deep");
    assert!(error.starts_with("metadata: "), "{error}");
    register("deep", json!({ "deep": nested(32) })).expect("deep, but not too deep");
}

#[test]
fn a_state_that_can_be_used_again_says_who_uses_it() {
    let fixture = Fixture::new();
    let state = fixture.directory.path().join("state");
    let sockets = vec!["127.0.0.1:1".to_owned()];
    fixture.coordinator.lock().journal = Journal::Closed("it was locked".to_owned());
    let holder = LockHolder { sockets: sockets.clone(), ..lock_holder("daemon", vec![], false) };
    fixture.coordinator.announce(&holder, Vec::new());
    fixture.coordinator.safety_net();
    let holder = store::lock_holder(&state).expect("the state is open");
    assert_eq!(holder.sockets, sockets);
}

fn unnamed(owner: &Sleeper) -> Call {
    Call::Allocate(request(owner))
}

fn lock_id(answer: &Answer) -> String {
    let answer: Value = serde_json::from_str(&answer.body).expect("JSON");
    answer["lock_id"].as_str().expect("a lock id").to_owned()
}

impl Fixture {
    fn begin(&self, call: &Call) -> Decided<Answer> {
        self.coordinator.begin(call, Peer::default()).expect("it is granted")
    }

    fn journal(&self) -> String {
        let directory = self.directory.path().join("state");
        std::fs::read_to_string(directory.join("state.jsonl")).expect("there is a journal")
    }

    /// The lock ids of all that is allocated.
    fn allocated(&self) -> Vec<String> {
        let all = self.coordinator.allocations().allocations;
        all.into_iter().map(|allocation| allocation.lock_id).collect()
    }
}

#[test]
fn what_is_decided_together_is_written_together_and_before_it_is_seen() {
    let (fixture, owner) = (Fixture::new(), Sleeper::new());
    let before = fixture.journal();
    let first = fixture.begin(&unnamed(&owner));
    let second = fixture.begin(&unnamed(&owner));
    assert!(first.is_waiting());
    assert_eq!(fixture.journal(), before, "nobody was told, so nothing need be written");
    let first = lock_id(&fixture.coordinator.written(first).expect("it can be written"));
    let after = fixture.journal();
    assert!(after.contains(&first));
    let second = lock_id(&fixture.coordinator.written(second).expect("it is written"));
    assert!(after.contains(&second), "one append has both");
    assert_eq!(fixture.journal(), after);

    let release = fixture.begin(&Call::Release(first.clone()));
    assert_eq!(fixture.allocated(), std::slice::from_ref(&second));
    assert!(fixture.journal().contains("released"), "what is seen is written");
    fixture.coordinator.written(release).expect("it is written");

    // A client that has gone: the next one writes it.
    let _nobody_asks = fixture.begin(&Call::Release(second));
    fixture.coordinator.allocate(&request(&owner), Peer::default()).expect("a port is free");
    assert_eq!(fixture.journal().matches("released\"}}").count(), 2);
}

#[test]
fn what_could_not_be_written_never_was_but_releases_count() {
    let (fixture, owner) = (Fixture::new(), Sleeper::new());
    let made = fixture.begin(&unnamed(&owner));
    let made = lock_id(&fixture.coordinator.written(made).expect("it can be written"));
    let release = fixture.begin(&Call::Release(made));
    let allocate = fixture.begin(&unnamed(&owner));
    let closed = Journal::Closed("the disk is gone".to_owned());
    let journal = std::mem::replace(&mut fixture.coordinator.lock_unwritten().journal, closed);
    for decided in [release, allocate] {
        let error = fixture.coordinator.written(decided).expect_err("nothing can be written");
        assert_eq!(error.code(), "state_not_writable");
        assert!(error.to_string().contains("the disk is gone"), "{error}");
    }
    fixture.coordinator.lock().journal = journal;
    assert!(fixture.allocated().is_empty());
}

#[test]
fn who_is_refused_or_panics_takes_nothing_from_those_beside_it() {
    let (fixture, owner) = (Fixture::new(), Sleeper::new());
    let granted = fixture.begin(&unnamed(&owner));
    let allocate = |inner: &mut Inner, now| {
        let answer = fixture.coordinator.allocate_in(inner, &request(&owner), Peer::default(), now);
        answer.expect("a port is free");
    };
    let refused = fixture.coordinator.decide(|inner, now| {
        allocate(inner, now);
        Err::<(), _>(Error::ShuttingDown)
    });
    refused.expect_err("it is refused");
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        fixture.coordinator.decide(|inner, now| -> Result<(), Error> {
            allocate(inner, now);
            panic!("on purpose");
        })
    }));
    panicked.expect_err("it panics");
    let granted = fixture.coordinator.written(granted).expect("it can be written");
    assert_eq!(fixture.allocated(), [lock_id(&granted)]);
    assert_eq!(fixture.journal().matches("{\"allocation\":").count(), 1);
}

#[test]
fn an_allocation_has_the_engines_asked_and_does_not_wait_for_them() {
    use std::net::TcpListener;
    use std::os::unix::net::UnixListener;
    let (fixture, owner) = (Fixture::new(), Sleeper::new());
    let socket = fixture.directory.path().join("engine.sock");
    // It accepts nothing: who asks it waits for as long as anybody does.
    let silent = UnixListener::bind(&socket).expect("a new socket");
    silent.set_nonblocking(true).expect("a socket");
    let is_asked = || silent.accept().is_ok();
    *fixture.coordinator.engines.lock().expect("no panic") = Engines::at(vec![socket]);
    // Nothing was ever said: that is as old as can be.
    fixture.coordinator.upkeep();
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    let taken = listener.local_addr().expect("it is bound").port();
    let wish = AllocateRequest { preferred_port: Some(taken), ..request(&owner) };

    let call = |request: AllocateRequest| {
        let answer = fixture.coordinator.call(&Call::Allocate(request), Peer::default());
        answer.map_err(|error| fixture.coordinator.name_holder(error))
    };
    call(AllocateRequest { dry_run: true, ..wish.clone() }).expect("there are others");
    assert!(fixture.woken(), "somebody was told of a port by what is known");
    call(wish.clone()).expect("there are others");
    call(AllocateRequest { exact: true, ..wish }).expect_err("it is taken");
    assert!(!is_asked());
    assert!(fixture.coordinator.upkeep().engines_due.is_some(), "it will be");

    fixture.coordinator.ask_engines();
    assert!(is_asked());
}
