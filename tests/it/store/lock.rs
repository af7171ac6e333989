//! `daemon.lock`: one process at a time works on the state.

use std::fs;
use std::io::{BufRead, BufReader, ErrorKind};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Barrier, mpsc};
use std::thread;
use std::time::Duration;

use styxy::store::{LockHolder, OpenError, Store, lock_holder};
use tempfile::TempDir;

use super::samples::{assignment, every_kind, removed};
use super::{BOOT, holder, open, reopened, sample, try_open};
use crate::support::said;

/// Another process that has the lock of `dir`. It has it when this returns.
fn other_process(dir: &Path) -> Child {
    let mut flock = Command::new("flock");
    flock.arg("--no-fork").arg(dir.join("daemon.lock")).args(["sh", "-c", "echo locked; exec cat"]);
    let mut other =
        flock.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("flock(1) runs");
    let mut said = String::new();
    let stdout = other.stdout.take().expect("a pipe");
    BufReader::new(stdout).read_line(&mut said).expect("it says so");
    assert_eq!(said, "locked\n");
    other
}

#[test]
fn the_holder_is_known_while_it_holds_and_no_longer() {
    let dir = TempDir::new().expect("a temporary directory");
    assert_eq!(lock_holder(dir.path()), None, "there is no file");
    let (mut store, _) = open(dir.path());
    assert_eq!(lock_holder(dir.path()), Some(holder()));

    let long = LockHolder { sockets: vec!["127.0.0.1:9876".to_owned(); 9], ..holder() };
    store.announce(&long).expect("room on the disk");
    assert_eq!(lock_holder(dir.path()), Some(long));
    let short = LockHolder { systemd: true, ..holder() };
    store.announce(&short).expect("room on the disk");
    assert_eq!(lock_holder(dir.path()), Some(short.clone()));

    let Err(OpenError::Locked { holder: Some(named), .. }) = try_open(dir.path()) else {
        panic!("it is locked, and by whom is known");
    };
    assert_eq!(named, short);
    drop(store);
    assert_eq!(lock_holder(dir.path()), None);
    assert!(dir.path().join("daemon.lock").exists(), "the file stays");
}

#[test]
fn a_killed_holder_is_nobody() {
    let dir = sample();
    let mut other = other_process(dir.path());
    assert_eq!(lock_holder(dir.path()), Some(holder()), "the contents that it found");
    assert!(matches!(try_open(dir.path()), Err(OpenError::Locked { .. })));

    other.kill().expect("our child");
    other.wait().expect("our child");
    assert_eq!(lock_holder(dir.path()), None);
    assert_eq!(reopened(dir.path()), said(&every_kind()));
}

#[test]
fn of_many_who_come_at_once_one_gets_it() {
    let dir = TempDir::new().expect("a temporary directory");
    for _ in 0..50 {
        let (start, end) = (Barrier::new(8), Barrier::new(8));
        let come = || {
            start.wait();
            let opened = try_open(dir.path());
            end.wait();
            match opened {
                Ok(_) => 1,
                Err(OpenError::Locked { .. }) => 0,
                Err(error) => panic!("{error}"),
            }
        };
        let winners: u32 = thread::scope(|scope| {
            let all: Vec<_> = (0..8).map(|_| scope.spawn(come)).collect();
            all.into_iter().map(|one| one.join().expect("no panic")).sum()
        });
        assert_eq!(winners, 1);
    }
}

#[test]
fn who_waits_gets_it_when_the_holder_goes() {
    let dir = sample();
    let mut other = other_process(dir.path());
    let (waits, is_waiting) = mpsc::channel();
    let path = dir.path();
    thread::scope(|scope| {
        let next = scope.spawn(move || {
            try_open(path).expect_err("it is held");
            waits.send(()).expect("somebody listens");
            Store::open(path, BOOT, &holder(), Duration::from_secs(60))
        });
        is_waiting.recv().expect("it waits");
        other.kill().expect("our child");
        let (_store, loaded) = next.join().expect("no panic").expect("it was let go");
        assert_eq!(loaded.changes, said(&every_kind()));
    });
    other.wait().expect("our child");
}

/// Whoever only looks is not in the way of who comes to work.
#[test]
fn looking_takes_nothing_from_anybody() {
    let dir = sample();
    let (stop, stopped) = mpsc::channel::<()>();
    let path = dir.path();
    thread::scope(|scope| {
        scope.spawn(move || {
            while stopped.try_recv() == Err(mpsc::TryRecvError::Empty) {
                let seen = lock_holder(path);
                assert!(seen.is_none_or(|seen| seen.pid == std::process::id()));
            }
        });
        for _ in 0..200 {
            let opened = Store::open(dir.path(), BOOT, &holder(), Duration::from_secs(10));
            let (mut store, _) = opened.expect("nobody holds it");
            let sockets = vec!["unix:/run/user/1000/styxy/styxy.sock".to_owned()];
            store.announce(&LockHolder { sockets, ..holder() }).expect("room on the disk");
        }
        drop(stop);
    });
}

#[test]
fn a_deleted_lock_file_is_taken_anew() {
    let dir = sample();
    let (mut store, _) = open(dir.path());
    fs::remove_file(dir.path().join("daemon.lock")).expect("our file");
    let error = store.sync().expect_err("another process could take the lock");
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(store.wants_compaction(1000));
    store.compact([assignment(3000)]).expect("nobody has the new one");
    store.sync().expect("all is well again");
    assert_eq!(lock_holder(dir.path()), Some(holder()));
    assert!(matches!(try_open(dir.path()), Err(OpenError::Locked { .. })));
}

/// The first holder has lost the state to the second, and must not write over its journal.
#[test]
fn a_lock_that_another_took_is_respected() {
    let dir = sample();
    let (mut first, _) = open(dir.path());
    fs::remove_file(dir.path().join("daemon.lock")).expect("our file");
    let (mut second, _) = open(dir.path());
    second.append(&[removed(1)]).expect("room on the disk");
    let error = first.append(&[removed(2)]).expect_err("the journal has grown");
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let error = first.compact([assignment(3000)]).expect_err("another has the lock");
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    drop((first, second));
    assert_eq!(reopened(dir.path()), said(&[every_kind(), vec![removed(1)]].concat()));
}

#[test]
fn what_is_no_file_cannot_be_the_lock() {
    let dir = TempDir::new().expect("a temporary directory");
    fs::create_dir(dir.path().join("daemon.lock")).expect("a directory");
    assert_eq!(lock_holder(dir.path()), None);
    let error = try_open(dir.path()).expect_err("it cannot be locked");
    assert!(matches!(&error, OpenError::Io { path, .. } if path.ends_with("daemon.lock")));
}
