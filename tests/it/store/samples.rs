//! Changes to keep.

use serde_json::{Map, json};
use styxy::api::Protocol;
use styxy::registry::{
    Allocation, Assignment, AssignmentKey, Change, Instance, Lease, Owner, Process, Reason, Service,
};
use uuid::Uuid;

/// A change that says nothing of any other one here.
pub(super) fn removed(number: u128) -> Change {
    Change::InstanceRemoved { instance_id: Uuid::from_u128(number).to_string() }
}

pub(super) fn assignment(port: u16) -> Change {
    let service = Service::Named(format!("service-{port}"));
    Change::Assignment(Assignment {
        key: AssignmentKey { project_path: "/home/user/project".to_owned(), service },
        service_type: "dev".to_owned(),
        port,
        last_used_ms: 1_795_468_500_123,
    })
}

/// Every kind of change, and every kind of value in them.
pub(super) fn every_kind() -> Vec<Change> {
    let bare = Allocation {
        lock_id: Uuid::from_u128(1),
        port: 8000,
        protocol: Protocol::Tcp,
        service_type: "dev".to_owned(),
        service_name: None,
        project_path: None,
        slot: None,
        owner: None,
        instance_id: None,
        lease: None,
        taken_over: false,
        allocated_at_ms: 1_795_468_500_123,
    };
    let process = Process { pid: 4_194_304, start_ticks: u64::MAX };
    let full = Allocation {
        lock_id: Uuid::from_u128(u128::MAX),
        port: 65535,
        protocol: Protocol::Both,
        service_name: Some("Ünïcode \"quoted\"\n\u{1b}[31m\u{0}".to_owned()),
        project_path: Some("/home/user/a project".to_owned()),
        slot: Some(3),
        owner: Some(Owner { process, started_at: 1_795_468_499, implicit: true }),
        instance_id: Some("editor_a".to_owned()),
        lease: Some(Lease { length_ms: 600_000, until_ms: 1_234_567 }),
        taken_over: true,
        ..bare.clone()
    };
    let udp = Allocation { lock_id: Uuid::from_u128(2), protocol: Protocol::Udp, ..bare.clone() };
    let instance = Instance {
        instance_id: "editor_a".to_owned(),
        working_directory: Some("/home/user".to_owned()),
        process: Some(process),
        registered_at_ms: 1_795_468_500_123,
        metadata: metadata(),
    };
    let plain = Instance {
        instance_id: "b".to_owned(),
        working_directory: None,
        process: None,
        metadata: Map::new(),
        ..instance.clone()
    };
    let slot = AssignmentKey {
        project_path: "/home/user/project".to_owned(),
        service: Service::Slot("storybook".to_owned(), 1),
    };
    let unnamed = Assignment {
        key: slot.clone(),
        service_type: "storybook".to_owned(),
        port: 6006,
        last_used_ms: 0,
    };
    let mut changes = vec![
        Change::Allocation(bare),
        Change::Allocation(full),
        Change::Allocation(udp),
        Change::Instance(instance),
        Change::Instance(plain),
        Change::InstanceRemoved { instance_id: "b".to_owned() },
        assignment(5173),
        Change::Assignment(unnamed),
        Change::AssignmentRemoved { key: slot },
    ];
    let reasons = [
        Reason::Released,
        Reason::Forced,
        Reason::OwnerDied,
        Reason::ListenerGone,
        Reason::LeaseExpired,
        Reason::InstanceLost,
        Reason::Rebooted,
        Reason::RolledBack,
    ];
    let released = |(number, reason)| Change::Released { lock_id: Uuid::from_u128(number), reason };
    changes.extend((2..).zip(reasons).map(released));
    changes
}

fn metadata() -> Map<String, serde_json::Value> {
    let metadata = json!({
        "editor": "vim", "tabs": [1, -2, 2.5, null, true], "nested": { "z": {}, "a": "first" },
    });
    metadata.as_object().expect("an object").clone()
}
