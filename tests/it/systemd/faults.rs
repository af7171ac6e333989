//! What is wrong is said, and no reason to leave a client without an answer.

use std::fs;

use serde_json::Value;

use super::machine::Machine;
use super::user::User;
use crate::support::{PATIENCE, eventually, skip};

const ALLOCATE: &str = "curl --silent --max-time 20 127.0.0.1:9876/allocate \
                        --json '{\"service_type\":\"dev\",\"lease_seconds\":600}' \
                        --write-out '\\n%{http_code}'";

/// Asks for a port over HTTP: status and body.
#[track_caller]
fn allocate(ada: &User<'_>) -> (String, Value) {
    let said = ada.shell(ALLOCATE).ok();
    let (body, status) = said.text().rsplit_once('\n').expect("a body and a status");
    (status.to_owned(), serde_json::from_str(body).expect("JSON"))
}

/// The journal, the status line and the status say that the disk is full, the journal once.
#[track_caller]
fn says_that_it_is_full(machine: &Machine, ada: &User<'_>, times: usize) {
    eventually(PATIENCE, || {
        let journal = machine.journal();
        let status_text = ada.show("styxy.service", "StatusText");
        let problems = ada.ask(&["daemon", "status"])["problems"].to_string();
        let is_said = journal.matches("No space left").count() == times
            && status_text.contains("No space left")
            && problems.contains("No space left");
        is_said.then_some(()).ok_or_else(|| format!("{journal}\n{status_text}\n{problems}"))
    });
}

/// Nobody asks for a port, and still it is said that the disk has room again.
#[track_caller]
fn says_that_there_is_room(machine: &Machine, ada: &User<'_>, words: &str) {
    eventually(PATIENCE, || {
        let status_text = ada.show("styxy.service", "StatusText");
        let status = ada.ask(&["daemon", "status"]);
        let problems = status["problems"].as_array().expect("a list");
        let is_over = problems.is_empty() && !status_text.contains("can't");
        is_over.then_some(()).ok_or_else(|| format!("{status_text}\n{status:#}"))
    });
    let journal = machine.journal();
    assert_eq!(journal.matches(words).count(), 1, "{journal}");
}

/// It goes on as the same process, and allocates again.
#[track_caller]
fn recovers(ada: &User<'_>, pid: u32) {
    eventually(PATIENCE, || match allocate(ada) {
        (status, _) if status == "201" => Ok(()),
        other => Err(format!("{other:?}")),
    });
    assert_eq!(ada.service_pid(), pid, "by itself, without a restart");
    assert_eq!(ada.show("styxy.service", "NRestarts"), "0");
    ada.becomes("styxy.service", "StatusText", "1 port for 0 projects");
}

#[test]
fn a_bad_configuration_is_said_and_its_mended_form_is_taken_up() {
    let Some(machine) = Machine::start() else { return };
    let ada = machine.ada();
    ada.configure("[daemon]\nidle_exit = \"soon\"\ndefault_lease = \"7m\"\n[service.dev\n");
    ada.enable();
    assert_eq!(allocate(&ada).0, "201");
    let status = ada.ask(&["daemon", "status"]);
    assert!(status["problems"].to_string().contains("config.toml"), "{status:#}");
    assert!(machine.journal().contains("config.toml"), "{}", machine.journal());
    let doctor = ada.styxy(&["doctor"]);
    assert!(doctor.stdout.contains("config.toml:"), "{}", doctor.whole());
    ada.styxy(&["list"]).ok().complains("config.toml:");
    assert_eq!(ada.show("styxy.service", "ActiveState"), "active");
    let pid = ada.service_pid();

    ada.configure("[daemon]\nidle_exit = \"5s\"\n[service.own]\nport_range = [7310, 7319]\n");
    eventually(PATIENCE, || match &ada.ask(&["daemon", "status"])["problems"] {
        Value::Array(none) if none.is_empty() => Ok(()),
        some => Err(some.to_string()),
    });
    let journal = machine.journal();
    assert_eq!(journal.matches("no errors any more").count(), 1, "{journal}");
    let doctor = ada.styxy(&["doctor"]);
    assert!(!doctor.stdout.contains("config.toml:"), "{}", doctor.whole());
    assert_eq!(ada.styxy(&["list"]).ok().stderr, "");
    let port = ada.ask(&["allocate", "-s", "own"])["port"].as_u64();
    assert!(port.is_some_and(|port| (7310..7320).contains(&port)), "{port:?}");
    assert_eq!(ada.service_pid(), pid, "without a restart");

    ada.styxy(&["cleanup", "--force", "--all"]).ok();
    ada.becomes("styxy.service", "ActiveState", "inactive");
}

#[test]
fn with_an_unreadable_state_directory_it_serves_says_so_and_recovers() {
    let Some(machine) = Machine::start() else { return };
    let ada = machine.ada();
    ada.shell("mkdir -p .local/state/styxy && chmod 0 .local/state/styxy").ok();
    ada.enable();
    let (status, body) = allocate(&ada);
    assert_eq!((status.as_str(), body["code"].as_str()), ("507", Some("state_not_writable")));
    let pid = ada.service_pid();
    let text = ada.ask(&["daemon", "status"])["problems"].to_string();
    assert!(text.contains("Permission denied"), "{text}");
    let refused = ada.styxy(&["allocate", "-s", "dev"]);
    assert_eq!(refused.status.code(), Some(74), "{refused:?}");
    assert!(refused.stderr.contains(".local/state/styxy"), "{refused:?}");
    let doctor = ada.styxy(&["doctor"]).exits(1);
    assert!(doctor.stdout.contains("Permission denied"), "{}", doctor.whole());
    assert!(machine.journal().contains("Permission denied"), "{}", machine.journal());
    eventually(PATIENCE, || {
        let text = ada.show("styxy.service", "StatusText");
        let is_said = text.contains("Permission denied");
        is_said.then_some(()).ok_or(text)
    });

    ada.shell("chmod 700 .local/state/styxy").ok();
    recovers(&ada, pid);
}

#[test]
fn with_a_full_disk_it_serves_says_so_and_recovers() {
    let Some(machine) = Machine::start() else { return };
    let ada = machine.ada();
    ada.shell("mkdir -p .local/state").ok();
    let disk = ada.home(".local/state");
    let disk = disk.to_str().expect("UTF-8");
    let options = format!("size=64k,mode=700,uid={0},gid={0}", ada.id());
    machine.run("mount", &["-t", "tmpfs", "-o", &options, "tmpfs", disk]).ok();
    // The user manager was there before: it sees the same mounts.
    let full = format!("cat /dev/zero >{disk}/filler");
    assert!(!ada.shell(&full).status.success(), "it is full");
    ada.enable();
    let (status, body) = allocate(&ada);
    assert_eq!((status.as_str(), body["code"].as_str()), ("507", Some("state_not_writable")));
    let pid = ada.service_pid();
    assert!(body["error"].as_str().is_some_and(|it| it.contains("space")), "{body:#}");
    ada.styxy(&["allocate", "-s", "dev"]).exits(74).complains("space");
    let doctor = ada.styxy(&["doctor"]);
    assert!(
        doctor.stdout.contains("space") || doctor.stdout.contains("full"),
        "{}",
        doctor.whole()
    );
    says_that_it_is_full(&machine, &ada, 1);

    fs::remove_file(machine.root(&disk[1..]).join("filler")).expect("it is there");
    says_that_there_is_room(&machine, &ada, "the state can be used again");
    recovers(&ada, pid);

    // And again in the middle of its work.
    assert!(!ada.shell(&full).status.success(), "it is full");
    let mut refusals = 0;
    // What is free within the journal's last page is used up first.
    while allocate(&ada).0 == "201" {
        refusals += 1;
        assert!(refusals < 100, "it is full");
    }
    assert_eq!(ada.service_pid(), pid);
    assert!(!ada.lock_ids().is_empty(), "it goes on answering");
    assert_eq!(allocate(&ada).0, "507");
    says_that_it_is_full(&machine, &ada, 2);
    let doctor = ada.styxy(&["doctor"]).exits(1);
    assert!(doctor.stdout.contains("can't be written: No space left"), "{}", doctor.whole());

    fs::remove_file(machine.root(&disk[1..]).join("filler")).expect("it is there");
    says_that_there_is_room(&machine, &ada, "the state can be written again");
    assert_eq!(allocate(&ada).0, "201");
    assert_eq!(ada.show("styxy.service", "NRestarts"), "0");
}

/// The kernel ends it in the middle of its work, as where `MemoryMax=` is reached. A unit's own limit
/// needs the memory controller in the unified hierarchy; this is the same limit in the other one.
#[test]
fn killed_for_its_memory_it_comes_back_with_all_that_it_answered() {
    let Some(machine) = Machine::start() else { return };
    // One that has failed may have left its group.
    let mount = "mkdir /run/memory && mount -t cgroup -o memory none /run/memory && \
                 { rmdir /run/memory/$0 2>/dev/null || :; } && \
                 mkdir /run/memory/$0 && cd /run/memory/$0 && echo 1M >memory.limit_in_bytes";
    let group = machine.cgroup();
    let group = group.file_name().and_then(|name| name.to_str()).expect("a name");
    let limited = machine.run("sh", &["-c", mount, group]);
    if !limited.status.success() {
        return skip(&format!("there is no memory controller to be had: {}", limited.whole()));
    }
    let ada = machine.ada();
    ada.enable();
    let ids = ada.allocate_for_owners(5);
    let pid = ada.service_pid().to_string();
    let limit = format!("echo {pid} >/run/memory/{group}/cgroup.procs");
    machine.run("sh", &["-c", &limit]).ok();

    // What it is to remember takes more than it may have. Where it ends between two requests, its
    // successor answers the next one.
    let crowd = "text=$(head -c 40000 /dev/zero | tr '\\0' x); number=0; while \
                 kill -0 PID 2>/dev/null && \
                 printf '{\"instance_id\":\"i%d\",\"working_directory\":\"/\",\"process_id\":%d,\
                 \"metadata\":{\"text\":\"%s\"}}' $number $$ \"$text\" | \
                 curl --silent --fail --output /dev/null --max-time 20 --json @- \
                 127.0.0.1:9876/instance/register; \
                 do number=$((number + 1)); [ $number -lt 1000 ] || break; done; echo $number";
    let crowd = crowd.replace("PID", &pid);
    let answered: usize = ada.shell(&crowd).ok().text().parse().expect("a number");
    assert!((1..1000).contains(&answered), "{answered} instances are within the limit");
    let killed = machine.run("cat", &[&format!("/run/memory/{group}/memory.oom_control")]).ok();
    assert!(killed.text().lines().any(|line| line == "oom_kill 1"), "{}", killed.whole());

    assert_eq!(ada.lock_ids(), ids);
    assert_ne!(ada.service_pid().to_string(), pid);
    ada.becomes("styxy.service", "NRestarts", "1");
    machine.run("rmdir", &[&format!("/run/memory/{group}")]).ok();
}
