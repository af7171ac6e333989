//! The journal, whatever was written to it and whatever became of its bytes.

use std::fs;
use std::path::Path;
use std::time::Duration;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use serde_json::{Map, Value};
use styxy::api::Protocol;
use styxy::config::Config;
use styxy::registry::{
    Allocation, Assignment, AssignmentKey, Change, Instance, Lease, Owner, Policy, Process, Reason,
    Registry, Service,
};
use styxy::store::{Loaded, LockHolder, Store};
use tempfile::TempDir;
use uuid::Uuid;

const BOOT: &str = "0d1c5f5e-9a51-4d64-8a39-5b2f7f6a3c01";

pub(crate) fn open(dir: &Path) -> (Store, Loaded) {
    let holder = LockHolder {
        pid: 1,
        start_ticks: 1,
        version: String::new(),
        role: "command".to_owned(),
        sockets: Vec::new(),
        systemd: false,
    };
    Store::open(dir, BOOT, &holder, Duration::ZERO).expect("any bytes open")
}

/// Often one of few, so that there are changes to one thing.
fn uuid() -> impl Strategy<Value = Uuid> {
    prop_oneof![any::<u128>(), 0..3_u128].prop_map(Uuid::from_u128)
}

fn process() -> impl Strategy<Value = Process> {
    (any::<u32>(), any::<u64>()).prop_map(|(pid, start_ticks)| Process { pid, start_ticks })
}

fn owner() -> impl Strategy<Value = Owner> {
    (process(), any::<u64>(), any::<bool>()).prop_map(|(process, started_at, implicit)| Owner {
        process,
        started_at,
        implicit,
    })
}

fn lease() -> impl Strategy<Value = Lease> {
    (any::<u64>(), any::<u64>()).prop_map(|(length_ms, until_ms)| Lease { length_ms, until_ms })
}

fn allocation() -> impl Strategy<Value = Allocation> {
    let protocol =
        prop_oneof![Just(Protocol::Tcp), Just(Protocol::Udp), Just(Protocol::Both)].boxed();
    let texts = (any::<String>(), vec(option::of(any::<String>()), 3));
    let holders = (option::of(owner()), option::of(lease()), any::<bool>());
    // Often one of few, so that one port is allocated again.
    let port = prop_oneof![any::<u16>(), 3000..3003_u16];
    let numbers = (port, option::of(any::<u32>()), any::<u64>());
    (uuid(), protocol, texts, holders, numbers).prop_map(
        |(lock_id, protocol, (service_type, mut texts), (owner, lease, taken_over), numbers)| {
            let (port, slot, allocated_at_ms) = numbers;
            Allocation {
                lock_id,
                port,
                protocol,
                service_type,
                service_name: texts.pop().flatten(),
                project_path: texts.pop().flatten(),
                slot,
                owner,
                instance_id: texts.pop().flatten(),
                lease,
                taken_over,
                allocated_at_ms,
            }
        },
    )
}

fn metadata() -> impl Strategy<Value = Map<String, Value>> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    let value = leaf.prop_recursive(4, 16, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            vec((any::<String>(), inner), 0..4)
                .prop_map(|entries| Value::Object(entries.into_iter().collect())),
        ]
    });
    vec((any::<String>(), value), 0..3).prop_map(|entries| entries.into_iter().collect())
}

fn instance() -> impl Strategy<Value = Instance> {
    let texts = (any::<String>(), option::of(any::<String>()));
    (texts, option::of(process()), any::<u64>(), metadata()).prop_map(
        |((instance_id, working_directory), process, registered_at_ms, metadata)| Instance {
            instance_id,
            working_directory,
            process,
            registered_at_ms,
            metadata,
        },
    )
}

fn key() -> impl Strategy<Value = AssignmentKey> {
    let service = prop_oneof![
        any::<String>().prop_map(Service::Named),
        (any::<String>(), any::<u32>()).prop_map(|(service, slot)| Service::Slot(service, slot)),
    ];
    (any::<String>(), service)
        .prop_map(|(project_path, service)| AssignmentKey { project_path, service })
}

fn change() -> impl Strategy<Value = Change> {
    let assignment = (key(), any::<String>(), any::<u16>(), any::<u64>()).prop_map(
        |(key, service_type, port, last_used_ms)| Assignment {
            key,
            service_type,
            port,
            last_used_ms,
        },
    );
    prop_oneof![
        allocation().prop_map(Change::Allocation),
        uuid().prop_map(|lock_id| Change::Released { lock_id, reason: Reason::OwnerDied }),
        instance().prop_map(Change::Instance),
        any::<String>().prop_map(|instance_id| Change::InstanceRemoved { instance_id }),
        assignment.prop_map(Change::Assignment),
        key().prop_map(|key| Change::AssignmentRemoved { key }),
    ]
}

/// What a disk, an editor or a tired person does to a file. Places are fractions of its length.
#[derive(Debug, Clone)]
enum Mutation {
    Flip(f64, u8),
    Insert(f64, Vec<u8>),
    Delete(f64, f64),
    Duplicate(f64, f64),
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let place = || 0.0..1.0;
    prop_oneof![
        (place(), 0..8_u32).prop_map(|(at, bit)| Mutation::Flip(at, 1 << bit)),
        (place(), vec(any::<u8>(), 1..20)).prop_map(|(at, bytes)| Mutation::Insert(at, bytes)),
        (place(), Just(b"\n".to_vec())).prop_map(|(at, bytes)| Mutation::Insert(at, bytes)),
        (place(), 0.0..0.1).prop_map(|(at, length)| Mutation::Delete(at, length)),
        (place(), 0.0..0.5).prop_map(|(at, length)| Mutation::Duplicate(at, length)),
    ]
}

impl Mutation {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a fraction of a small length"
    )]
    fn apply(&self, bytes: &mut Vec<u8>) {
        let place = |fraction: f64| (fraction * bytes.len() as f64) as usize;
        let range = |at: f64, length: f64| {
            let start = place(at);
            start..(start + place(length) + 1).min(bytes.len())
        };
        if bytes.is_empty() {
            return;
        }
        match self {
            Self::Flip(at, bit) => {
                let at = place(*at);
                bytes[at] ^= bit;
            }
            Self::Insert(at, inserted) => {
                let at = place(*at);
                bytes.splice(at..at, inserted.iter().copied());
            }
            Self::Delete(at, length) => drop(bytes.drain(range(*at, *length))),
            Self::Duplicate(at, length) => {
                let range = range(*at, *length);
                let (end, copy) = (range.end, bytes[range].to_vec());
                bytes.splice(end..end, copy);
            }
        }
    }
}

#[derive(serde::Deserialize)]
struct HeaderLine {
    journal: Header,
}

#[derive(serde::Deserialize)]
struct Header {
    format: u32,
    boot_id: Option<String>,
}

/// What a registry holds that has lived through all of these: the same, whichever of them were left
/// out because others say it.
pub(crate) fn outcome(changes: impl IntoIterator<Item = Change>) -> Vec<String> {
    let mut registry = Registry::new(Policy::new(&Config::built_in(), []));
    for change in changes {
        registry.replay(change);
    }
    let json = |change| serde_json::to_string(&change).expect("JSON");
    let mut outcome: Vec<_> = registry.snapshot().map(json).collect();
    outcome.sort_unstable();
    outcome
}

/// What all lines say that are whole and right, as a reader of the format's description finds it.
pub(crate) fn right_lines(bytes: &[u8]) -> Vec<Change> {
    let mut changes = Vec::new();
    // Of the last header; none where none says it.
    let mut boot = None;
    for (number, line) in bytes.split_inclusive(|byte| *byte == b'\n').enumerate() {
        let Some((json, seal)) = line.len().checked_sub(10).map(|length| line.split_at(length))
        else {
            continue;
        };
        if seal != format!(" {:08x}\n", crc32fast::hash(json)).as_bytes() {
            continue;
        }
        // JSON is UTF-8 (RFC 8259, 8.1).
        let Ok(json) = std::str::from_utf8(json) else { continue };
        if let Ok(change) = serde_json::from_str(json) {
            changes.push(change);
            continue;
        }
        let Ok(line) = serde_json::from_str::<HeaderLine>(json) else { continue };
        if line.journal.format != 1 {
            break;
        }
        // In the middle, and of another boot.
        if number > 0 && boot != line.journal.boot_id {
            changes.retain(|change| {
                matches!(change, Change::Assignment(_) | Change::AssignmentRemoved { .. })
            });
        }
        boot = line.journal.boot_id;
    }
    changes
}

fn change_of(port: u16) -> Change {
    let key =
        AssignmentKey { project_path: "/".to_owned(), service: Service::Named(String::new()) };
    Change::Assignment(Assignment { key, service_type: "dev".to_owned(), port, last_used_ms: 0 })
}

proptest! {
    #[test]
    fn what_was_appended_comes_back(batches in vec(vec(change(), 0..5), 0..5)) {
        let dir = TempDir::new()?;
        let (mut store, _) = open(dir.path());
        for batch in &batches {
            store.append(batch)?;
        }
        drop(store);
        let (mut store, loaded) = open(dir.path());
        prop_assert_eq!(outcome(loaded.changes), outcome(batches.concat()));
        prop_assert_eq!(loaded.notices.len(), 0);

        store.compact(batches.concat())?;
        drop(store);
        let (_store, loaded) = open(dir.path());
        prop_assert_eq!(outcome(loaded.changes), outcome(batches.concat()));
    }

    #[test]
    fn a_damaged_journal_says_what_its_right_lines_say(
        changes in vec(change(), 0..12),
        mutations in vec(mutation(), 1..5),
    ) {
        let dir = TempDir::new()?;
        let (mut store, _) = open(dir.path());
        store.append(&changes)?;
        drop(store);
        let path = dir.path().join("state.jsonl");
        let mut bytes = fs::read(&path)?;
        for mutation in &mutations {
            mutation.apply(&mut bytes);
        }
        fs::write(&path, &bytes)?;

        let (mut store, loaded) = open(dir.path());
        let mut expected = right_lines(&bytes);
        prop_assert_eq!(outcome(loaded.changes), outcome(expected.clone()));
        store.append(&[change_of(1)])?;
        drop(store);
        expected.push(change_of(1));
        let (_store, loaded) = open(dir.path());
        prop_assert_eq!(outcome(loaded.changes), outcome(expected));
        prop_assert_eq!(loaded.notices.len(), 0, "it is mended once");
    }

    #[test]
    fn any_bytes_open(bytes in vec(any::<u8>(), 0..2000)) {
        let dir = TempDir::new()?;
        fs::write(dir.path().join("state.jsonl"), &bytes)?;
        let (_store, loaded) = open(dir.path());
        prop_assert_eq!(loaded.changes, []);
        prop_assert_eq!(loaded.notices.len(), 1);
    }
}
