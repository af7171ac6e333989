//! Disks that are full or may not be written, and files that are gone.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use rustix::thread::{Uid, set_thread_res_uid};
use styxy::store::{OpenError, Store};
use tempfile::TempDir;

use super::samples::{assignment, every_kind, removed};
use super::{open, reopened, sample, try_open};
use crate::support::{Tmpfs, said};

fn journal(dir: &Path) -> Vec<u8> {
    fs::read(dir.join("state.jsonl")).expect("a journal")
}

/// More than the few pages that a test leaves on a disk: it stops in the middle of a line.
fn too_much() -> Vec<styxy::registry::Change> {
    (1000..1500).map(removed).collect()
}

/// A disk with a journal of every kind of change and 12 KiB of room.
fn full_disk() -> Option<(Tmpfs, Store)> {
    let disk = Tmpfs::mount(256)?;
    let (mut store, _) = open(disk.path());
    store.append(&every_kind()).expect("room on the disk");
    disk.fill(12 * 1024);
    Some((disk, store))
}

#[test]
fn a_full_disk_takes_all_of_an_append_or_nothing() {
    let Some((disk, mut store)) = full_disk() else { return };
    let before = journal(disk.path());
    for _ in 0..3 {
        let error = store.append(&too_much()).expect_err("the disk is full");
        assert_eq!(error.kind(), ErrorKind::StorageFull);
        assert_eq!(journal(disk.path()), before, "it is cut back at once");
    }
    store.append(&[removed(1)]).expect("there is room for one line");
    disk.free();
    store.append(&too_much()).expect("room on the disk");
    drop(store);
    let all = said(&[every_kind(), vec![removed(1)], too_much()].concat());
    assert_eq!(reopened(disk.path()), all);
}

/// A process that died is dead, whether the disk takes it or not.
#[test]
fn what_was_deferred_is_written_first_when_there_is_room() {
    let Some((disk, mut store)) = full_disk() else { return };
    store.append_or_defer(&too_much()).expect_err("the disk is full");
    store.append_or_defer(&[assignment(3000)]).expect_err("it would overtake what is deferred");
    store.append(&[removed(2)]).expect_err("it would overtake what is deferred");
    store.sync().expect_err("what is deferred is not safe");
    disk.free();
    store.append(&[removed(3)]).expect("room on the disk");
    store.sync().expect("nothing is deferred now");
    drop(store);
    let all = said(&[every_kind(), too_much(), vec![assignment(3000), removed(3)]].concat());
    assert_eq!(reopened(disk.path()), all);
}

#[test]
fn a_sync_writes_what_was_deferred() {
    let Some((disk, mut store)) = full_disk() else { return };
    store.append_or_defer(&too_much()).expect_err("the disk is full");
    // The same things again, as a daemon would find them in days of a full disk.
    store.append_or_defer(&too_much()).expect_err("the disk is full");
    disk.free();
    store.sync().expect("room on the disk");
    drop(store);
    assert_eq!(reopened(disk.path()), said(&[every_kind(), too_much()].concat()));
}

#[test]
fn a_sync_sees_when_there_is_room_again_and_leaves_nothing_behind() {
    let Some((disk, mut store)) = full_disk() else { return };
    store.append(&too_much()).expect_err("the disk is full");
    for _ in 0..3 {
        let error = store.sync().expect_err("what was refused has no room yet");
        assert_eq!(error.kind(), ErrorKind::StorageFull);
        assert!(store.refusal().is_some_and(|reason| reason.contains("space")), "{store:?}");
    }
    store.append(&[removed(1)]).expect("there is room for one line");
    assert_eq!(store.refusal(), None, "the last write was taken");
    store.append(&too_much()).expect_err("the disk is full");
    let before = journal(disk.path());
    disk.free();
    store.sync().expect("room on the disk");
    assert_eq!(store.refusal(), None);
    assert_eq!(journal(disk.path()), before);
    drop(store);
    assert_eq!(reopened(disk.path()), said(&[every_kind(), vec![removed(1)]].concat()));
}

#[test]
fn a_healthy_journal_opens_on_a_full_disk() {
    let Some((disk, store)) = full_disk() else { return };
    drop(store);
    disk.free();
    disk.fill(0);
    let (mut store, loaded) = open(disk.path());
    assert_eq!((loaded.changes, loaded.notices), (said(&every_kind()), Vec::new()));
    drop(store);

    // Not even the lock file can be written.
    fs::remove_file(disk.path().join("daemon.lock")).expect("it was made");
    disk.fill(0);
    let loaded;
    (store, loaded) = open(disk.path());
    assert_eq!(loaded.changes, said(&every_kind()));
    let [notice] = &loaded.notices[..] else { panic!("one notice, not {:?}", loaded.notices) };
    assert!(notice.contains("daemon.lock does not say who holds it"), "{notice}");
    disk.free();
    store.append(&[removed(1)]).expect("room on the disk");
}

#[test]
fn a_compaction_that_finds_no_room_leaves_the_old_journal_in_use() {
    let Some((disk, mut store)) = full_disk() else { return };
    let error = store.compact(too_much()).expect_err("the disk is full");
    assert_eq!(error.kind(), ErrorKind::StorageFull);
    assert!(!disk.path().join("state.jsonl.new").exists());
    store.append(&[removed(1)]).expect("there is room for one line");
    disk.free();
    drop(store);
    assert_eq!(reopened(disk.path()), said(&[every_kind(), vec![removed(1)]].concat()));
}

/// The daemon tries again and again; that must not leave a copy of the damage each time.
#[test]
fn a_damaged_journal_waits_for_room() {
    let Some((disk, store)) = full_disk() else { return };
    drop(store);
    let mut bytes = journal(disk.path());
    bytes.drain(..10);
    fs::write(disk.path().join("state.jsonl"), &bytes).expect("it got shorter");
    disk.free();
    disk.fill(0);
    for _ in 0..3 {
        let error = try_open(disk.path()).expect_err("there is no room for a new journal");
        let OpenError::Io { source, .. } = error else { panic!("not locked: {error}") };
        assert_eq!(source.kind(), ErrorKind::StorageFull);
    }
    assert_eq!(journal(disk.path()), bytes);
    let count = fs::read_dir(disk.path()).expect("a directory").count();
    assert_eq!(count, 3, "the journal, the lock and the filler");
    disk.free();
    assert_eq!(open(disk.path()).1.changes, said(&every_kind()));
}

#[test]
fn a_disk_that_is_read_only_is_said() {
    let Some(disk) = Tmpfs::mount(256) else { return };
    drop(open(disk.path()));
    disk.make_read_only();
    let error = try_open(disk.path()).expect_err("nothing may be written");
    let OpenError::Io { source, .. } = &error else { panic!("not locked: {error}") };
    assert_eq!(source.kind(), ErrorKind::ReadOnlyFilesystem);
    assert!(error.to_string().contains(disk.path().to_str().expect("UTF-8")), "{error}");
}

#[test]
fn a_directory_of_somebody_else_is_said() {
    let dir = sample();
    let below = dir.path().join("state");
    let refused = std::thread::spawn(move || {
        // This thread alone becomes nobody; who is not root can be so already.
        if rustix::process::geteuid().is_root() {
            let nobody = Uid::from_raw(65534);
            set_thread_res_uid(nobody, nobody, nobody).expect("root may");
        } else {
            fs::set_permissions(below.parent().expect("our directory"), no_mode())
                .expect("our directory");
        }
        try_open(&below).expect_err("nothing may be written")
    });
    let error = refused.join().expect("no panic");
    let OpenError::Io { source, .. } = error else { panic!("not locked: {error}") };
    assert_eq!(source.kind(), ErrorKind::PermissionDenied);
}

fn no_mode() -> fs::Permissions {
    use std::os::unix::fs::PermissionsExt;
    fs::Permissions::from_mode(0o500)
}

/// `rm -rf ~/.local/state/styxy` under a running daemon.
#[test]
fn a_deleted_directory_is_noticed_and_made_anew() {
    let home = TempDir::new().expect("a temporary directory");
    let dir = home.path().join("styxy/machine");
    let (mut store, _) = open(&dir);
    store.append(&every_kind()).expect("room on the disk");
    store.sync().expect("all is well");
    fs::remove_dir_all(home.path().join("styxy")).expect("our directory");

    let error = store.append(&[removed(1)]).expect_err("it would be lost");
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(store.wants_compaction(1000));
    store.append_or_defer(&[removed(2)]).expect_err("it would be lost");
    store.sync().expect_err("nothing is there to be synced");

    store.compact(every_kind()).expect("room on the disk");
    store.append(&[removed(3)]).expect("room on the disk");
    store.sync().expect("all is well again");
    assert!(!store.wants_compaction(1000));
    assert!(matches!(try_open(&dir), Err(OpenError::Locked { .. })), "the new lock is held too");
    drop(store);
    assert_eq!(reopened(&dir), said(&[every_kind(), vec![removed(3)]].concat()));
}

#[test]
fn a_journal_that_was_replaced_or_changed_is_kept_beside() {
    type Meddle = fn(&Path);
    let meddles: [Meddle; 2] = [
        |path| {
            fs::remove_file(path).expect("our file");
            fs::write(path, "a backup\n").expect("a new file");
        },
        |path| fs::write(path, "a backup\n").expect("our file"),
    ];
    for meddle in meddles {
        let dir = sample();
        let (mut store, _) = open(dir.path());
        meddle(&dir.path().join("state.jsonl"));
        store.append(&[removed(1)]).expect_err("another program's file");
        store.compact([assignment(3000)]).expect("room on the disk");
        store.append(&[removed(1)]).expect("room on the disk");
        drop(store);
        assert_eq!(reopened(dir.path()), [assignment(3000), removed(1)]);
        let mut entries = fs::read_dir(dir.path()).expect("a directory");
        let kept = entries.find_map(|entry| {
            let path = entry.expect("an entry").path();
            path.to_str().expect("UTF-8").contains("damaged-").then_some(path)
        });
        assert_eq!(fs::read_to_string(kept.expect("it is kept")).expect("text"), "a backup\n");
    }
}
