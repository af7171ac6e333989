//! The journal, damaged: the daemon starts, says what it did, and keeps what it could not read.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::support::{
    Daemon, Home, PATIENCE, Running, Tmpfs, eventually, finish, full, owner, port_of, reboot,
    sealed,
};

/// A home whose daemon crashed with four allocations in its journal.
struct Crashed {
    owner: Running,
    lock_ids: Vec<Value>,
    home: Home,
}

impl Crashed {
    fn new() -> Self {
        let home = Home::new();
        let daemon = home.daemon();
        let owner = owner();
        let lock_ids = (0..4).map(|_| home.allocate_for(owner.pid())["lock_id"].clone()).collect();
        daemon.crash();
        Self { owner, lock_ids, home }
    }

    fn bytes(&self) -> Vec<u8> {
        fs::read(self.home.journal()).expect("a journal")
    }

    /// Starts a daemon on these bytes, and shows that it works and can be stopped and started.
    #[track_caller]
    fn restart_on(&self, bytes: &[u8]) -> (Daemon, Vec<Value>) {
        fs::write(self.home.journal(), bytes).expect("a journal");
        let daemon = self.home.daemon();
        let found = self.lock_ids();
        let made = self.home.allocate_for(self.owner.pid());
        daemon.stop();
        let daemon = self.home.daemon();
        let expected = [&found[..], &[made["lock_id"].clone()]].concat();
        let mut again = self.lock_ids();
        again.sort_by_key(|id| expected.iter().position(|known| known == id));
        assert_eq!(again, expected, "another start knows the same\n{}", daemon.log());
        daemon.is_well(&self.home);
        (daemon, found)
    }

    /// The lock ids that the daemon knows, the four of the journal first and in their order.
    fn lock_ids(&self) -> Vec<Value> {
        let mut ids: Vec<_> =
            self.home.allocations().iter().map(|one| one["lock_id"].clone()).collect();
        ids.sort_by_key(|id| {
            self.lock_ids.iter().position(|known| known == id).unwrap_or(usize::MAX)
        });
        ids
    }

    /// The files that were kept beside the journal.
    fn kept(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.home.state_dir().expect("a state directory"));
        let paths = entries.expect("a readable directory").flatten().map(|entry| entry.path());
        paths.filter(|path| path.to_string_lossy().contains("state.jsonl.damaged-")).collect()
    }

    /// Checks that exactly these bytes were kept, and that the log says where.
    #[track_caller]
    fn has_kept(&self, bytes: &[u8], daemon: &Daemon) {
        let kept = self.kept();
        let log = daemon.log();
        assert_eq!(kept.len(), 1, "{kept:?}\n{log}");
        assert!(fs::read(&kept[0]).expect("a file") == bytes, "kept as it was\n{log}");
        let name = kept[0].file_name().expect("a name").to_string_lossy();
        assert!(log.contains(&*name), "the log does not name {name}\n{log}");
    }
}

#[test]
fn a_journal_that_is_whole_brings_everything_back() {
    let crashed = Crashed::new();
    let (daemon, found) = crashed.restart_on(&crashed.bytes());
    assert_eq!(found, crashed.lock_ids, "{}", daemon.log());
    assert!(crashed.kept().is_empty(), "{:?}", crashed.kept());
}

#[test]
fn a_truncated_journal_loses_its_torn_line_and_no_other() {
    let crashed = Crashed::new();
    let bytes = crashed.bytes();
    let (daemon, found) = crashed.restart_on(&bytes[..bytes.len() - 5]);
    let log = daemon.log();
    assert_eq!(found, crashed.lock_ids[..3], "{log}");
    assert!(log.contains("state.jsonl"), "it does not say what it did\n{log}");
}

#[test]
fn a_journal_truncated_anywhere_gives_what_is_before_the_cut() {
    let crashed = Crashed::new();
    let bytes = crashed.bytes();
    let step = if full() { 7 } else { bytes.len() / 8 };
    let mut before = 0;
    for cut in (1..bytes.len()).step_by(step) {
        let (daemon, found) = crashed.restart_on(&bytes[..cut]);
        let log = daemon.log();
        assert_eq!(found, crashed.lock_ids[..found.len()], "cut at {cut}\n{log}");
        assert!(found.len() >= before, "cut at {cut}: more bytes, fewer allocations\n{log}");
        before = found.len();
        daemon.crash();
    }
}

#[test]
fn a_journal_of_zero_bytes() {
    let crashed = Crashed::new();
    let (daemon, found) = crashed.restart_on(b"");
    assert_eq!(found, [Value::Null; 0]);
    let log = daemon.log();
    assert!(log.contains("state.jsonl"), "it does not say what it found\n{log}");
}

#[test]
fn a_journal_of_random_bytes_is_kept() {
    let crashed = Crashed::new();
    let mut bytes = Vec::new();
    while bytes.len() < 8192 {
        bytes.extend_from_slice(uuid::Uuid::new_v4().as_bytes());
    }
    let (daemon, found) = crashed.restart_on(&bytes);
    assert_eq!(found, [Value::Null; 0]);
    crashed.has_kept(&bytes, &daemon);
}

#[test]
fn a_wrong_checksum_in_the_middle_costs_one_line_and_the_file_is_kept() {
    let crashed = Crashed::new();
    let mut bytes = crashed.bytes();
    let lock_id = crashed.lock_ids[1].as_str().expect("a lock id");
    let place = bytes.windows(36).position(|part| part == lock_id.as_bytes());
    bytes[place.expect("the second allocation")] ^= 1;

    let (daemon, found) = crashed.restart_on(&bytes);

    let expected = [0, 2, 3].map(|n| crashed.lock_ids[n].clone());
    assert_eq!(found, expected, "{}", daemon.log());
    crashed.has_kept(&bytes, &daemon);
}

#[test]
fn a_journal_of_a_newer_version_is_kept_and_not_believed() {
    let crashed = Crashed::new();
    let mut bytes = sealed(&json!({ "journal": { "format": 2, "anything": "else" } }));
    bytes.extend(crashed.bytes());
    let (daemon, found) = crashed.restart_on(&bytes);
    assert_eq!(found, [Value::Null; 0]);
    crashed.has_kept(&bytes, &daemon);
}

#[test]
fn another_boot_drops_allocations_and_keeps_assignments() {
    let home = Home::new();
    let daemon = home.daemon();
    let ask = || {
        let body = json!({ "service_type": "dev", "service_name": "web",
            "project_path": home.work(), "process_id": std::process::id() });
        home.post("/allocate", body).expect(201)
    };
    let before = ask();
    home.allocate_for(std::process::id());
    daemon.stop();

    reboot(&home);

    let _daemon = home.daemon();
    assert_eq!(home.allocations(), [Value::Null; 0]);
    assert_eq!(port_of(&ask()), port_of(&before), "its assignment is remembered");
}

/// A home whose state is on a disk of 256 KiB, where that can be.
fn on_a_small_disk() -> Option<(Home, Tmpfs)> {
    let disk = Tmpfs::mount(256)?;
    let home = Home::with_ports(128);
    fs::remove_dir(home.path("state")).expect("an empty directory");
    std::os::unix::fs::symlink(disk.path(), home.path("state")).expect("a link");
    Some((home, disk))
}

/// What `/status` says is wrong.
fn problems(home: &Home) -> String {
    home.get("/status").expect(200)["problems"].to_string()
}

#[test]
fn a_full_disk_refuses_what_could_be_forgotten_and_loses_nothing() {
    let Some((home, disk)) = on_a_small_disk() else { return };
    let daemon = home.daemon();
    let owner = owner();
    let body = json!({ "service_type": "dev", "process_id": owner.pid() });
    let mut known = vec![home.allocate_for(owner.pid())];
    disk.fill(0);

    // The journal's last page has room for some more.
    let refused = loop {
        let reply = home.post("/allocate", body.clone());
        if reply.status != 201 {
            break reply;
        }
        known.push(reply.json());
        assert!(known.len() < 100, "the disk is not full");
    };
    refused.refused(507, "state_not_writable");
    home.post("/allocate", body.clone()).refused(507, "state_not_writable");
    assert!(problems(&home).contains("can't be written"), "{}", problems(&home));
    assert_eq!(daemon.log().matches("can't be written").count(), 1, "{}", daemon.log());
    assert_eq!(home.allocations().len(), known.len(), "a refused one is not there");
    home.styxy(&["allocate", "-s", "dev", "--pid", &owner.pid().to_string()]).exits(74);

    let released = known.pop().expect("one");
    let path = format!("/allocate/{}", released["lock_id"].as_str().expect("a lock id"));
    let reply = home.delete(&path);
    if reply.status != 200 {
        reply.refused(507, "state_not_writable");
    }
    assert!(home.allocation(&released["lock_id"]).is_none(), "it counts all the same");
    daemon.is_well(&home);

    disk.free();
    // Nobody has to ask for a port to learn that.
    eventually(PATIENCE, || match problems(&home) {
        said if said == "[]" => Ok(()),
        said => Err(said),
    });
    assert_eq!(daemon.log().matches("can be written again").count(), 1, "{}", daemon.log());
    let later = home.post("/allocate", body).expect(201);
    known.push(later);
    daemon.crash();

    let daemon = home.daemon();
    let sorted = |list: &[Value]| {
        let mut ids: Vec<_> = list.iter().map(|one| one["lock_id"].to_string()).collect();
        ids.sort();
        ids
    };
    assert_eq!(sorted(&home.allocations()), sorted(&known), "{}", daemon.log());
}

#[test]
fn a_daemon_that_crashed_on_a_full_disk_starts_on_it() {
    let Some((home, disk)) = on_a_small_disk() else { return };
    let daemon = home.daemon();
    let owner = owner();
    let lock_id = home.allocate_for(owner.pid())["lock_id"].clone();
    disk.fill(0);
    let body = json!({ "service_type": "dev" });
    while home.post("/allocate", body.clone()).status == 201 {}
    daemon.crash();

    let said = |log: &str| log.matches("state can't be written").count();
    let log = fs::read_to_string(home.path("daemon.log")).expect("a log");
    let before = said(&log);
    let daemon = home.daemon();
    assert!(home.allocation(&lock_id).is_some(), "{}", daemon.log());
    home.post("/allocate", body.clone()).refused(507, "state_not_writable");
    assert_eq!(said(&daemon.log()), before + 1, "{}", daemon.log());
    assert!(daemon.log().contains("No space left on device"), "{}", daemon.log());

    disk.free();
    eventually(PATIENCE, || {
        let reply = home.post("/allocate", body.clone());
        if reply.status == 201 { Ok(()) } else { Err(format!("{reply:#?}")) }
    });
    daemon.is_well(&home);
}

#[test]
fn on_a_full_disk_run_starts_its_command_on_its_assigned_port_and_warns() {
    let Some((home, disk)) = on_a_small_disk() else { return };
    let _daemon = home.daemon();
    let port = home.spare_port(1);
    home.styxy(&["allocate", "-s", "dev", "-n", "web", "-p", &port.to_string()]).ok();
    home.styxy(&["release", "web"]).ok();
    disk.fill(0);
    while home.post("/allocate", json!({ "service_type": "dev" })).status == 201 {}

    let run = ["run", "-s", "dev", "-n", "web", "--", "sh", "-c", "echo $PORT"];
    let output = home.styxy(&run).ok().complains("warning: not reserved (");
    assert_eq!(output.port(), port, "{}", output.whole());
    let mut required = home.styxy_command(&run);
    let output = finish(required.env("STYXY_REQUIRE", "1")).exits(69);
    assert_eq!(output.stdout, "", "the command was not started\n{}", output.whole());
}
