//! The journal: what is kept, in which files, for whom.

mod damage;
mod disk;
mod lock;
mod samples;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use styxy::registry::Change;
use styxy::store::{Loaded, LockHolder, OpenError, Store};
use tempfile::TempDir;

use crate::support::said;
use samples::{assignment, every_kind, removed};

const BOOT: &str = "0d1c5f5e-9a51-4d64-8a39-5b2f7f6a3c01";

fn holder() -> LockHolder {
    LockHolder {
        pid: std::process::id(),
        start_ticks: 7,
        version: "0.1.0".to_owned(),
        role: "daemon".to_owned(),
        sockets: Vec::new(),
        systemd: false,
    }
}

fn try_open(dir: &Path) -> Result<(Store, Loaded), OpenError> {
    Store::open(dir, BOOT, &holder(), Duration::ZERO)
}

fn open(dir: &Path) -> (Store, Loaded) {
    open_in(dir, BOOT)
}

fn open_in(dir: &Path, boot_id: &str) -> (Store, Loaded) {
    Store::open(dir, boot_id, &holder(), Duration::ZERO).expect("the state opens")
}

/// The changes that the next one who opens `dir` finds, without anything to remark.
fn reopened(dir: &Path) -> Vec<Change> {
    let (_store, loaded) = open(dir);
    assert_eq!(loaded.notices, [""; 0]);
    loaded.changes
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("it exists").permissions().mode() & 0o777
}

/// A directory with a journal of every kind of change.
fn sample() -> TempDir {
    let dir = TempDir::new().expect("a temporary directory");
    let (mut store, _) = open(dir.path());
    store.append(&every_kind()).expect("room on the disk");
    dir
}

#[test]
fn every_change_comes_back_in_its_order() {
    let dir = TempDir::new().expect("a temporary directory");
    let (mut store, loaded) = open(dir.path());
    assert!(loaded.changes.is_empty() && !loaded.rebooted && loaded.notices.is_empty());
    for changes in every_kind().chunks(3) {
        store.append(changes).expect("room on the disk");
    }
    drop(store);
    assert_eq!(reopened(dir.path()), said(&every_kind()));
}

/// The fixture was written by the first version, and is never written again.
#[test]
fn a_journal_of_format_1_opens_for_ever() {
    let dir = TempDir::new().expect("a temporary directory");
    let journal = include_bytes!("../fixtures/journal-format-1.jsonl");
    fs::write(dir.path().join("state.jsonl"), journal).expect("a new file");
    let (_store, loaded) = open(dir.path());
    assert_eq!(loaded.changes, said(&every_kind()));
    assert!(!loaded.rebooted);
    assert_eq!(loaded.notices, [""; 0]);
}

#[test]
fn state_is_for_its_user_alone() {
    let home = TempDir::new().expect("a temporary directory");
    let dir = home.path().join("state/styxy/machine");
    drop(open(&dir));
    for made in [home.path().join("state").as_path(), &dir.join(".."), &dir] {
        assert_eq!(mode(made), 0o700, "{}", made.display());
    }
    let files = [dir.join("state.jsonl"), dir.join("daemon.lock")];
    for file in &files {
        assert_eq!(mode(file), 0o600, "{}", file.display());
    }

    fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).expect("our directory");
    fs::set_permissions(&files[0], fs::Permissions::from_mode(0o664)).expect("our file");
    drop(open(&dir));
    assert_eq!((mode(&dir), mode(&files[0])), (0o700, 0o600));
}

/// A server that `styxy run` starts must not keep the lock, or write the journal.
#[test]
fn children_inherit_nothing() {
    let dir = TempDir::new().expect("a temporary directory");
    let (_store, _) = open(dir.path());
    let list = Command::new("ls").args(["-l", "/proc/self/fd"]).output().expect("ls runs");
    let list = String::from_utf8_lossy(&list.stdout);
    assert!(list.contains("/proc/"), "{list}");
    assert!(!list.contains(dir.path().to_str().expect("a UTF-8 path")), "{list}");
}

#[test]
fn another_boot_is_said_until_something_is_written() {
    let dir = sample();
    for _ in 0..2 {
        let (_store, loaded) = open_in(dir.path(), "next boot");
        assert!(loaded.rebooted);
        assert_eq!(loaded.changes, said(&every_kind()));
    }
}

/// Whether or not the daemon lived long enough to compact: what it answered in this boot counts,
/// and what is of the boot before does not come back.
#[test]
fn what_is_appended_after_a_boot_is_of_that_boot() {
    let dir = sample();
    let next = || open_in(dir.path(), "next boot");
    let (mut store, _) = next();
    store.append(&[removed(1)]).expect("room on the disk");
    store.append(&[removed(2)]).expect("room on the disk");
    drop(store);

    let mut expected = every_kind();
    expected.retain(|change| {
        matches!(change, Change::Assignment(_) | Change::AssignmentRemoved { .. })
    });
    expected.extend([removed(1), removed(2)]);
    let (mut store, loaded) = next();
    assert!(!loaded.rebooted);
    assert_eq!((loaded.changes, loaded.notices), (expected, Vec::new()));

    store.compact([assignment(3000)]).expect("room on the disk");
    drop(store);
    let (_store, loaded) = next();
    assert_eq!((loaded.changes, loaded.rebooted), (vec![assignment(3000)], false));
}

#[test]
fn compaction_leaves_the_snapshot_alone_and_appends_go_on() {
    let dir = sample();
    let (mut store, _) = open(dir.path());
    store.compact([assignment(3000), assignment(3001)]).expect("room on the disk");
    store.append(&[removed(1)]).expect("room on the disk");
    drop(store);
    assert_eq!(reopened(dir.path()), [assignment(3000), assignment(3001), removed(1)]);
    assert_eq!(mode(&dir.path().join("state.jsonl")), 0o600);
}

#[test]
fn a_journal_wants_compaction_when_little_of_it_lives() {
    let dir = TempDir::new().expect("a temporary directory");
    let (mut store, _) = open(dir.path());
    let many: Vec<_> = (0..5000).map(removed).collect();
    store.append(&many).expect("room on the disk");
    assert!(!store.wants_compaction(1000));
    assert!(store.wants_compaction(1));
    store.compact([assignment(3000)]).expect("room on the disk");
    assert!(!store.wants_compaction(1));

    store.append(&many).expect("room on the disk");
    drop(store);
    assert!(open(dir.path()).0.wants_compaction(1), "a journal that was found counts too");
}

/// A compaction that was killed before its rename.
#[test]
fn an_unfinished_compaction_is_forgotten() {
    let dir = sample();
    fs::write(dir.path().join("state.jsonl.new"), "{\"jour").expect("a new file");
    assert_eq!(reopened(dir.path()), said(&every_kind()));
    let (mut store, _) = open(dir.path());
    store.compact([assignment(3000)]).expect("the leftover is in nobody's way");
    drop(store);
    assert_eq!(reopened(dir.path()), [assignment(3000)]);
}
