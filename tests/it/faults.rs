//! Faults of the machine: each is said as the interface has it, and when it goes, service goes on, in
//! the same process. Full and unreadable disks are in `journal` and `systemd::faults`, what a
//! filter or /proc hides in `systemd::hidden`.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{
    Connection, Daemon, Home, PATIENCE, Running, Tmpfs, eventually, finish, has_program, is_root,
    owner, skip,
};

/// A daemon that is started by way of `words`.
fn daemon_behind(home: &Home, words: &[&str]) -> Daemon {
    let mut command = home.command(words[0]);
    command.args(&words[1..]).arg(home.styxy_command(&[]).get_program()).args(["daemon", "run"]);
    Daemon::spawn(home, &mut command)
}

/// One that systemd starts serves and says so ([`crate::systemd`]); one that a person starts ends and
/// says so to them.
#[test]
fn on_a_read_only_disk_a_daemon_ends_and_run_goes_on_without() {
    let Some(disk) = Tmpfs::mount(1024) else { return };
    let home = Home::new();
    fs::remove_dir(home.path("state")).expect("an empty directory");
    std::os::unix::fs::symlink(disk.path(), home.path("state")).expect("a link");
    disk.make_read_only();

    home.styxy(&["daemon", "run"]).exits(74).complains("ead-only file system");
    home.styxy(&["allocate", "-s", "dev"]).exits(74).complains("ead-only file system");
    let run = ["run", "--", "sh", "-c", "echo $PORT"];
    home.styxy(&run).ok().complains("warning: not reserved (").port();

    disk.make_writable();
    let daemon = home.daemon();
    home.styxy(&["allocate", "-s", "dev"]).ok().port();
    daemon.is_well(&home);
}

#[test]
fn without_descriptors_it_waits_and_goes_on() {
    let home = Home::new();
    // The hard limit, which it cannot raise.
    let daemon = daemon_behind(&home, &["prlimit", "--nofile=48:48"]);
    let owner = owner();
    let first = home.allocate_for(owner.pid());
    let crowd: Vec<_> =
        (0..100).map(|_| Connection::open(&home.unix()).expect("a place in the queue")).collect();
    eventually(PATIENCE, || {
        let log = daemon.log();
        if log.contains("can't accept") { Ok(()) } else { Err(log) }
    });
    drop(crowd);
    assert!(home.allocation(&first["lock_id"]).is_some());

    // An owner that cannot be watched by a descriptor is looked at every 10 s.
    let mut owners: Vec<_> = (0..19).map(|_| crate::support::owner()).collect();
    let made: Vec<_> = owners
        .iter()
        .map(|it| {
            home.post(
                "/allocate",
                json!({
                    "service_type": "dev", "process_id": it.pid(),
                }),
            )
        })
        .collect();
    assert!(made.iter().all(|it| matches!(it.status, 201 | 422 | 503)), "{made:#?}");
    owners.clear();
    eventually(PATIENCE, || match home.allocations().len() {
        1 => Ok(()),
        count => Err(format!("{count} allocations")),
    });
    daemon.is_well(&home);
}

const FAKETIME: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1";

#[test]
fn leases_do_not_care_when_the_wall_clock_is_set() {
    if !Path::new(FAKETIME).exists() {
        return skip("libfaketime is missing");
    }
    let home = Home::new();
    let clock = home.path("clock");
    fs::write(&clock, "+0").expect("a file");
    let clock_is = format!("FAKETIME_TIMESTAMP_FILE={}", clock.display());
    let preload = format!("LD_PRELOAD={FAKETIME}");
    let words = ["env", &preload, &clock_is, "FAKETIME_NO_CACHE=1", "DONT_FAKE_MONOTONIC=1"];
    let daemon = daemon_behind(&home, &words);
    let allocate = |seconds: u64| {
        let body = json!({ "service_type": "dev", "lease_seconds": seconds });
        home.post("/allocate", body).expect(201)
    };
    let owner = owner();
    let held = home.allocate_for(owner.pid());
    let started = held["allocation"]["process_start_time"].clone();
    let (short, long) = (allocate(2), allocate(600));
    let begun = Instant::now();
    let day = |answer: &Value| {
        let text = answer["allocation"]["allocated_at"].as_str().expect("a time").to_owned();
        humantime::parse_rfc3339(&text).expect("RFC 3339")
    };

    for (setting, ahead) in [("+1d", true), ("-1d", false)] {
        fs::write(&clock, setting).expect("a file");
        let later = allocate(600);
        assert_eq!(day(&later) > day(&long), ahead, "the clock was set: {later:#}");
        assert!(home.allocation(&long["lock_id"]).is_some(), "{setting}");
        let held = home.allocation(&held["lock_id"]).expect("its owner lives");
        assert_eq!(held["process_start_time"], started);
        let body = json!({ "service_type": "dev", "process_id": owner.pid(),
            "process_start_time": started });
        home.post("/allocate", body).expect(201);
    }
    home.ends_within(PATIENCE, &short["lock_id"]);
    let lived = begun.elapsed();
    assert!(lived > Duration::from_millis(1500) && lived < Duration::from_secs(8), "{lived:?}");
    assert!(home.allocation(&long["lock_id"]).is_some());
    daemon.is_well(&home);
    // The library leaves its shared memory behind where it is killed.
    daemon.stop();
}

#[test]
fn when_the_runtime_directory_is_gone_it_is_found_over_tcp() {
    let home = Home::new();
    let daemon = home.daemon();
    let owner = owner();
    let pid = owner.pid().to_string();
    let port = home.styxy(&["allocate", "-s", "dev", "-n", "web", "--pid", &pid]).ok().port();
    fs::remove_dir_all(home.path("run")).expect("ours");

    assert_eq!(home.styxy(&["get", "web"]).ok().port(), port);
    let mut without = home.styxy_command(&["get", "web"]);
    assert_eq!(finish(without.env_remove("XDG_RUNTIME_DIR")).ok().port(), port);
    let next = home.styxy(&["allocate", "-s", "dev"]).ok().port();
    assert_ne!(next, port);
    let pid = daemon.is_well(&home)["pid"].clone();
    assert_eq!(pid, daemon.pid());
    daemon.stop();

    // It makes the directory again, where it may.
    let daemon = home.daemon();
    assert!(home.socket().exists());
    assert_eq!(home.styxy(&["get", "web"]).ok().port(), port);
    daemon.is_well(&home);
}

/// A FUSE file system whose program is stopped: whoever looks into it waits in the kernel.
#[test]
fn a_file_system_that_hangs_keeps_nobody_waiting() {
    if !is_root() || !has_program("bindfs") || !Path::new("/dev/fuse").exists() {
        return skip("a FUSE file system needs root, bindfs and /dev/fuse");
    }
    let home = Home::new();
    home.configure("reap_interval = \"1s\"");
    let (below, mounted) = (home.path("below"), home.path("mounted"));
    fs::create_dir_all(below.join("project")).expect("a directory");
    fs::create_dir(&mounted).expect("a directory");
    let mut bindfs = home.command("bindfs");
    bindfs.args(["-f", "-o", "attr_timeout=0,entry_timeout=0"]).args([&below, &mounted]);
    let bindfs = Running::spawn(&mut bindfs);
    let project = mounted.join("project");
    eventually(PATIENCE, || project.exists().then_some(()).ok_or("not mounted".to_owned()));
    let daemon = home.daemon();
    let assign = |project: &Path, count: usize| {
        let service = |n: usize| json!({ "service_type": "dev", "service_name": format!("s{n}") });
        let services: Vec<_> = (0..count).map(service).collect();
        let body = json!({ "project_path": project, "services": services });
        home.post("/assign", body).expect(200)
    };
    // All ports but one of the range: whoever wants one asks whether that project is there yet.
    let (first, last) = home.dev_range();
    assign(&project, usize::from(last - first));

    bindfs.signal(Signal::STOP);
    let start = Instant::now();
    for _ in 0..5 {
        let body = json!({ "service_type": "dev", "lease_seconds": 60 });
        let reply = home.post("/allocate", body);
        assert!(matches!(reply.status, 201), "{reply:#?}");
    }
    assert!(start.elapsed() < Duration::from_millis(500), "{:?}", start.elapsed());
    assert!(daemon.log().contains("does not answer"), "{}", daemon.log());
    let kept = home.get("/assignments").expect(200);
    let kept = kept["assignments"].as_array().expect("a list").len();
    assert_eq!(kept, usize::from(last - first), "a project that hangs is not gone");

    bindfs.signal(Signal::CONT);
    fs::remove_dir(below.join("project")).expect("an empty directory");
    let body = json!({ "service_type": "dev", "lease_seconds": 60 });
    eventually(PATIENCE, || {
        home.post("/allocate", body.clone());
        let left = home.get("/assignments").expect(200);
        let left = left["assignments"].as_array().expect("a list").len();
        if left < kept { Ok(()) } else { Err(format!("{left} assignments")) }
    });
    daemon.is_well(&home);
    finish(home.command("umount").arg(&mounted)).ok();
}
