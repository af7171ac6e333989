use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::*;
use crate::detect::process::Image;
use crate::detect::testing::{Child, sleeper, until};
use crate::testing::skip;

/// Allocations whose owner is nobody that can be seen.
fn orphans(lock_ids: &[Uuid]) -> Vec<Orphan> {
    let owner = Process { pid: u32::MAX, start_ticks: 0 };
    let orphan = Orphan { lock_id: Uuid::nil(), owner, implicit: false, allocated_at_ms: 0 };
    lock_ids.iter().map(|lock_id| Orphan { lock_id: *lock_id, ..orphan }).collect()
}

/// The allocations of nobody that can be seen, as the inside of this module knows them.
fn estates(lock_ids: &[Uuid]) -> Vec<Estate> {
    orphans(lock_ids).iter().map(|orphan| Estate::of(orphan, &[], None)).collect()
}

#[test]
fn an_heir_is_the_oldest_living_process_with_the_lock_id() {
    let lock_id = Uuid::new_v4();
    assert!(Heirs::default().of(&orphans(&[lock_id]), &[]).is_empty());
    let mut first = sleeper_with(lock_id);
    let second = sleeper_with(lock_id);
    let eldest = &Heirs::default().of(&orphans(&[Uuid::new_v4(), lock_id]), &[])[&lock_id];
    assert!([first.pid(), second.pid()].contains(&eldest.process.pid));
    assert!(eldest.pidfd.is_some());
    first.kill();
    // A zombie has no environment any more.
    until("the second inherits", || {
        Heirs::default()
            .of(&orphans(&[lock_id]), &[])
            .get(&lock_id)
            .is_some_and(|heir| heir.process.pid == second.pid())
    });
    drop(second);
    assert!(Heirs::default().of(&orphans(&[lock_id]), &[]).is_empty());
}

/// A process that was started with that lock id.
fn sleeper_with(lock_id: Uuid) -> Child {
    let mut command = sleeper();
    Child::start(command.env("STYXY_LOCK_ID", lock_id.to_string()), "sleep")
}

/// Held by who sets the number that comes next, and by who relies on higher ones coming later.
static NUMBERS: Mutex<()> = Mutex::new(());

fn numbers() -> MutexGuard<'static, ()> {
    NUMBERS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// As if everybody had been met long ago.
fn settled() -> Heirs {
    let mut heirs = Heirs::default();
    for _ in 0..2 {
        meet(&mut heirs, SETTLING);
    }
    heirs
}

/// Meets everybody `later` than those who are known were seen first. Whether all are seen who had
/// a number at the meeting before.
fn meet(heirs: &mut Heirs, later: Duration) -> bool {
    let since = Instant::now().checked_sub(later).expect("it booted before");
    heirs.seen.iter_mut().for_each(|seen| seen.since = since);
    let before = heirs.last_pid;
    heirs.met = None;
    heirs.meet();
    a_second_later(heirs);
    before.is_some() && heirs.all_up_to == before
}

/// As if the last meeting had been a second ago.
fn a_second_later(heirs: &mut Heirs) {
    heirs.met = Instant::now().checked_sub(MEETING);
}

#[test]
fn who_is_known_is_not_looked_at_again_unless_it_may_inherit() {
    let lock_id = Uuid::new_v4();
    let child = sleeper_with(lock_id);
    let mut heirs = settled();
    let looked_at = |heirs: &Heirs| heirs.seen.iter().filter(|it| it.round == 3).count();

    assert_eq!(heirs.of(&orphans(&[lock_id]), &[])[&lock_id].process.pid, child.pid());

    let all = heirs.seen.len();
    assert!(looked_at(&heirs) < all, "all {all} were looked at again");
    let one = heirs.seen.iter().find(|it| it.listed.pid == child.pid()).expect("it lives");
    assert_eq!((one.round, one.descent.lock_id), (3, Some(lock_id)));
    assert!(heirs.seen.iter().any(|it| it.is_settled && it.round == 2));
    drop(child);
    assert!(heirs.of(&orphans(&[lock_id]), &[]).is_empty());
}

#[test]
fn who_is_known_stays_known_while_nobody_can_be_listed() {
    let lock_id = Uuid::new_v4();
    let child = sleeper_with(lock_id);
    let mut heirs = settled();
    let known = heirs.seen.len();
    assert!(!heirs.walk(Err(Errno::MFILE), &estates(&[lock_id]), &mut Marked::new()));
    assert_eq!(heirs.seen.len(), known);
    assert!(heirs.has_newcomers(), "nobody could tell that there are none");
    assert_eq!(heirs.of(&orphans(&[lock_id]), &[])[&lock_id].process.pid, child.pid());
}

#[test]
fn nobody_is_met_where_nobody_is_new() {
    let mut heirs = settled();
    let round = heirs.round;
    // Two meetings after the last process was made; other tests make them all the time.
    let complete = |heirs: &mut Heirs| {
        heirs.all_up_to = procfs::last_pid().ok();
    };
    until("nobody is new", || {
        complete(&mut heirs);
        heirs.of(&orphans(&[Uuid::new_v4()]), &[]).is_empty() && heirs.round == round
    });
    until("nobody is to be met", || {
        complete(&mut heirs);
        !heirs.has_newcomers()
    });
    let lock_id = Uuid::new_v4();
    let child = sleeper_with(lock_id);
    assert!(heirs.has_newcomers());
    assert_eq!(heirs.of(&orphans(&[lock_id]), &[])[&lock_id].process.pid, child.pid());
    heirs.meet();
    assert!(!heirs.has_newcomers(), "all have been looked at just now");
    a_second_later(&mut heirs);
    assert!(heirs.has_newcomers(), "it is not settled yet, and the number is new");
    complete(&mut heirs);
    assert!(
        heirs.of(&orphans(&[lock_id]), &[]).contains_key(&lock_id),
        "it is known, and may inherit"
    );
}

#[test]
fn all_are_seen_who_had_a_number_at_the_meeting_before() {
    let _rising = numbers();
    let mut heirs = Heirs::default();
    assert!(!meet(&mut heirs, SETTLING), "it is the first meeting");
    // Other tests make processes, and not each can be seen as soon as it has its number.
    until("all are seen", || meet(&mut heirs, SETTLING));
    let child = Child::start(&mut sleeper(), "sleep");
    assert!(heirs.all_up_to < Some(child.pid()) && heirs.has_newcomers());
    meet(&mut heirs, SETTLING);
    assert!(heirs.all_up_to < Some(child.pid()), "it was seen once");
    assert!(!meet(&mut heirs, Duration::ZERO), "it may get another environment");
    until("it is seen for what it is", || meet(&mut heirs, SETTLING));
    assert!(heirs.all_up_to >= Some(child.pid()));

    heirs.last_pid = Some(u32::MAX);
    assert!(!meet(&mut heirs, SETTLING), "the numbers have begun again");
}

#[test]
fn few_newcomers_are_looked_at_without_a_list() {
    let _rising = numbers();
    let lock_id = Uuid::new_v4();
    let mut heirs = settled();
    // Other tests make processes, and end some, all the time.
    until("nobody else is new", || {
        let stranger = Child::start(&mut sleeper(), "sleep");
        heirs.all_up_to = Some(stranger.pid() - 1);
        let round = heirs.round;
        heirs.of(&orphans(&[lock_id]), &[]).is_empty() && heirs.round == round
    });
    let round = heirs.round;
    let child = sleeper_with(lock_id);
    heirs.all_up_to = Some(child.pid() - 1);
    assert_eq!(heirs.of(&orphans(&[lock_id]), &[])[&lock_id].process.pid, child.pid());
    assert_ne!(heirs.round, round, "there is an heir, so all are looked at");

    let round = heirs.round;
    heirs.all_up_to = procfs::last_pid().ok().map(|last| last - FEW - 1);
    assert!(heirs.of(&orphans(&[Uuid::new_v4()]), &[]).is_empty());
    assert_ne!(heirs.round, round, "these are too many");
}

#[test]
fn a_newcomer_is_sure_to_inherit_nothing_once_it_runs_a_program_without_the_lock_id() {
    let lock_id = Uuid::new_v4();
    let estates = estates(&[lock_id]);
    let mut heirs = Heirs::default();
    let stranger = Child::start(&mut sleeper(), "sleep");
    assert!(heirs.inherits_nothing(stranger.pid(), &estates));
    let marked = sleeper_with(lock_id);
    assert!(!heirs.inherits_nothing(marked.pid(), &estates));

    let mut shell = Command::new("sh");
    // What is in the background has /dev/null for its input.
    shell.args(["-c", "exec 3<&0; (read -r line <&3; :) & echo $!; wait"]);
    let mut shell = shell.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("sh");
    let mut line = String::new();
    let mut output = BufReader::new(shell.stdout.take().expect("a pipe"));
    output.read_line(&mut line).expect("a line");
    let forked = line.trim().parse().expect("a pid");
    assert!(!heirs.inherits_nothing(forked, &estates), "it may yet run another program");
    shell.kill().expect("it is ours");
    shell.wait().expect("it is ours");

    let (say, said) = std::sync::mpsc::channel();
    let (done, end) = std::sync::mpsc::channel::<()>();
    let thread = std::thread::spawn(move || {
        say.send(rustix::thread::gettid()).expect("somebody listens");
        end.recv().expect_err("nobody sends");
    });
    let thread_id = said.recv().expect("its number").as_raw_pid().unsigned_abs();
    assert!(heirs.inherits_nothing(thread_id, &estates), "its process has a number of its own");
    drop(done);
    thread.join().expect("it ends");
}

/// What an owner leaves that was named, and got it at that time in Unix milliseconds.
fn orphan_of(owner: Process, allocated_at_ms: u64) -> Orphan {
    Orphan { lock_id: Uuid::new_v4(), owner, implicit: false, allocated_at_ms }
}

fn now_ms() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    u64::try_from(now.expect("it is after 1970").as_millis()).expect("it is not long")
}

/// Who inherits from an owner that ran `image` when it was identified.
fn heir(heirs: &mut Heirs, orphan: &Orphan, image: Option<Image>) -> Option<u32> {
    let dead = Dead { process: orphan.owner, image };
    let heirs = heirs.of(std::slice::from_ref(orphan), &[dead]);
    heirs.get(&orphan.lock_id).map(|heir| heir.process.pid)
}

#[test]
fn a_fork_of_what_the_owner_became_since_it_was_identified_inherits() {
    let mut command = Command::new("sh");
    let becomes = "read -r line; exec bash -c 'exec 3<&0; (read -r line <&3; :) & wait'";
    command.args(["-c", becomes]).stdin(Stdio::piped());
    let mut shell = Child::start(&mut command, "sh");
    let Identified { process, image, .. } = process::identify(shell.pid()).expect("it lives");
    let orphan = orphan_of(process, now_ms());
    shell.tell("now");
    let fork = shell.child_named("bash");
    let mut heirs = settled();
    shell.kill();
    until("the shell is dead", || !process::is_alive(process));

    assert_eq!(heir(&mut Heirs::default(), &orphan, image), None, "nobody has seen it since");
    assert_eq!(heir(&mut heirs, &orphan, image), Some(fork));
    let unnamed = Orphan { implicit: true, ..orphan };
    assert_eq!(heir(&mut heirs, &unnamed, image), None, "the shell may not know of it");
    let before = Process { start_ticks: process.start_ticks - 1, ..process };
    assert_eq!(heir(&mut heirs, &orphan_of(before, 0), image), None, "it had the same number");
}

#[test]
fn the_youngest_fork_of_the_owner_inherits_what_was_allocated_before_it_came() {
    let mut command = Command::new("sh");
    // What is in the background has /dev/null for its input.
    let forks = "exec 3<&0; (read -r line <&3; :) & (read -r line <&3; :) & wait";
    command.args(["-c", forks]).stdin(Stdio::piped());
    let mut shell = Child::start(&mut command, "sh");
    let mut forks = Vec::new();
    until("both are there", || {
        let listed = procfs::processes().expect("/proc is there").into_iter();
        let of_shell = |pid: &u32| {
            procfs::stat(*pid, &mut [0; 1024]).is_ok_and(|stat| stat.parent == shell.pid())
        };
        forks = listed.map(|listed| listed.pid).filter(of_shell).collect();
        forks.len() == 2
    });
    let Identified { process, image, .. } = process::identify(shell.pid()).expect("it lives");
    assert!(image.is_some());
    let fork = process::identify(forks[1]).expect("it lives");
    assert_eq!(fork.image, None, "its brother has the same");
    let now = now_ms();
    let orphan = orphan_of(process, now - 60_000);
    let mut heirs = settled();
    shell.kill();
    until("the shell is dead", || !process::is_alive(process));

    assert_eq!(heir(&mut Heirs::default(), &orphan, image), Some(forks[1]));
    assert_eq!(heir(&mut heirs, &orphan, image), Some(forks[1]), "it is known");
    let later = Orphan { allocated_at_ms: now + 60_000, ..orphan };
    assert_eq!(heir(&mut heirs, &later, image), None, "they came before");
    let unnamed = Orphan { implicit: true, ..orphan };
    assert_eq!(heir(&mut heirs, &unnamed, image), None, "the shell may not know of it");
    assert_eq!(heir(&mut Heirs::default(), &orphan, None), None);
    let other = Child::start(&mut sleeper(), "sleep");
    let other = process::identify(other.pid()).expect("it lives").image;
    assert_eq!(heir(&mut Heirs::default(), &orphan, other), None, "somebody else's");

    let marked = sleeper_with(orphan.lock_id);
    assert_eq!(heir(&mut heirs, &orphan, image), Some(marked.pid()), "it has the lock id");
}

#[test]
fn a_fork_that_becomes_another_program_late_is_a_newcomer_once_more() {
    // It has no environment for ever, as others have none in the middle of execve(2).
    let mut bare = sleeper().env_clear().spawn().expect("it is installed");
    let mut buffer = [0; 1024];
    until("it runs its program", || {
        procfs::stat(bare.id(), &mut buffer).is_ok_and(|stat| stat.own_image().is_some())
    });
    let Identified { process, image, .. } = process::identify(bare.id()).expect("it lives");
    let start_ticks = process.start_ticks;
    let fork = image.map(|image| Run { image, is_fork: true, start_ticks });
    let mut heirs = settled();
    let place = heirs.seen.iter().position(|seen| seen.listed.pid == bare.id());
    let seen = &mut heirs.seen[place.expect("it is met")];
    assert!(seen.is_settled);
    seen.descent.run = fork;
    let orphan = orphans(&[Uuid::new_v4()]).remove(0);
    let begin = Instant::now();
    let heirs_of_it = heirs.of(&[orphan], &[Dead { process: orphan.owner, image }]);
    assert!(heirs_of_it.is_empty() && begin.elapsed() >= EXEC_PATIENCE, "it was waited for");
    let seen = heirs.seen.iter().find(|seen| seen.listed.pid == bare.id());
    let seen = seen.expect("it lives");
    assert!(!seen.is_settled && seen.descent == Descent::default());
    bare.kill().expect("it is ours");
    bare.wait().expect("it is ours");
}

/// Each step of it happens while somebody looks: a process is made, ends, becomes another program.
#[test]
fn whoever_goes_to_the_background_twice_is_found_at_every_step() {
    // Forks of this process would keep the sockets of other tests open for a moment.
    const START: &str = "while read -r id; do \
        STYXY_LOCK_ID=$id sh -c '(sleep 5 & :) & exit' </dev/null >/dev/null 2>&1 & \
        wait $!; echo; done";
    let _rising = numbers();
    let mut command = Command::new("sh");
    command.args(["-c", START]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut starter = command.spawn().expect("sh");
    let mut ids = starter.stdin.take().expect("a pipe");
    let mut deaths = BufReader::new(starter.stdout.take().expect("a pipe")).lines();
    let mut heirs = settled();
    // What is proven is that nobody is overlooked, however long they wait for a processor: all
    // other tests run beside this one.
    heirs.patience = Duration::from_secs(5);
    for round in 0..200 {
        let lock_id = Uuid::new_v4();
        // So all of them are newcomers, and few.
        heirs.all_up_to = procfs::last_pid().ok();
        writeln!(ids, "{lock_id}").expect("it reads");
        deaths.next().expect("the first has ended").expect("a line");
        let mut orphans = orphans(&[lock_id]);
        let last = loop {
            let heir = heirs.of(&orphans, &[]).remove(&lock_id);
            let heir = heir.unwrap_or_else(|| panic!("round {round}: nobody inherits"));
            let pidfd = heir.pidfd.expect("this kernel has pidfds");
            until("it ends or is the last", || {
                let name = std::fs::read(format!("/proc/{}/comm", heir.process.pid));
                process::has_exited(&pidfd) || name.is_ok_and(|name| name == b"sleep\n")
            });
            if !process::has_exited(&pidfd) {
                break pidfd;
            }
            orphans[0].owner = heir.process;
        };
        let killed = rustix::process::pidfd_send_signal(&last, rustix::process::Signal::KILL);
        killed.expect("it is ours");
    }
    drop(ids);
    starter.wait().expect("it ends with its input");
}

#[test]
fn who_has_the_pid_of_one_that_was_known_is_looked_at() {
    if !geteuid().is_root() {
        return skip("only root can choose a pid");
    }
    let _set = numbers();
    let lock_id = Uuid::new_v4();
    let mut first = Child::start(&mut sleeper(), "sleep");
    let mut heirs = settled();
    first.end();
    until("another process has its pid", || {
        heirs.all_up_to = None;
        std::fs::write("/proc/sys/kernel/ns_last_pid", (first.pid() - 1).to_string())
            .expect("root may say which pid comes next");
        let next = sleeper_with(lock_id);
        let heir = heirs.of(&orphans(&[lock_id]), &[])[&lock_id].process;
        assert_eq!(heir.pid, next.pid());
        heir.pid == first.pid()
    });
}

/// What a death costs here while nobody inherits. Run it alone:
/// `cargo test --release --lib heirs::tests::measure -- --ignored --nocapture`
#[test]
#[ignore = "prints times, proves nothing"]
fn measure() {
    let _children: Vec<_> = (0..2000).map(|_| Child::start(&mut sleeper(), "sleep")).collect();
    let time = |heirs: &mut Heirs| {
        let begin = Instant::now();
        assert!(heirs.of(&orphans(&[Uuid::new_v4()]), &[]).is_empty());
        begin.elapsed()
    };
    println!("{} processes", procfs::processes().expect("/proc is there").len());
    println!("nobody is known: {:?}", time(&mut Heirs::default()));
    let mut heirs = settled();
    let mut times: Vec<_> = (0..1000).map(|_| time(&mut heirs)).collect();
    times.sort_unstable();
    println!("all are known: p50 {:?}, p99 {:?}", times[500], times[990]);
}

#[test]
fn a_process_of_another_user_inherits_nothing() {
    if !geteuid().is_root() {
        return skip("only root can start a process of another user");
    }
    let lock_id = Uuid::new_v4();
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "65534", "--clear-groups", "sleep", "600"]);
    let _child = Child::start(command.env("STYXY_LOCK_ID", lock_id.to_string()), "sleep");
    assert!(Heirs::default().of(&orphans(&[lock_id]), &[]).is_empty());
}
