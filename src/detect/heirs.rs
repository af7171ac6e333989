//! Heirs: who goes on with what a dead owner began (`npm run dev &`, nohup, a program that goes to
//! the background).
//!
//! A port whose owner died is free once it is known that nobody inherits it, and to read the
//! environment of one process takes 10 µs. So what was read is remembered, and a death costs one
//! list of /proc: a microsecond for each process. The kernel tells which number it gave last, so who
//! came since all were seen is known by number: where there are few, they are looked at without the
//! list, and mostly there is none. A process has its number a moment before it can be seen, so all
//! are seen who had one at the meeting before the last.
//!
//! A process has its environment from its parent until it gets another by execve(2), and who is
//! started calls that at once. So what is read a moment after the first look stays as it is.
//!
//! What a process set in its environment itself, as a shell does with `export`, is in its memory and
//! nowhere in /proc; its forks have it there too, and whatever they start gets it. So where nobody
//! has the lock id for all to see, a fork of the owner inherits, known by the stack that they have in
//! common: the youngest that came after the allocation, because a server is mostly started last.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::geteuid;
use uuid::Uuid;

use super::facts;
use super::process::{self, Identified, Image};
use super::procfs::{self, Listed, ProcDir, Stat};
use super::watch::Dead;
use crate::registry::{Orphan, Process};

/// How long execve(2) may take between the old program and the environment of the new one: some
/// microseconds, but who is in the middle of it may have to wait for a processor. Whoever owns a port
/// waits as long for its end, in the rare case that somebody is.
const EXEC_PATIENCE: Duration = Duration::from_millis(40);

/// How long after the first look at a process its environment may be replaced.
const SETTLING: Duration = Duration::from_millis(250);

/// How often new processes are met.
const MEETING: Duration = Duration::from_secs(1);

/// How often new processes are met although the kernel says that there are none. A program that
/// chooses the number of its child (clone3(2), `set_tid`), as checkpointing does, gives one that is
/// not counted.
const LISTING: Duration = Duration::from_secs(30);

/// How many numbers are looked at one by one, at most. Threads have some, too.
const FEW: u32 = 32;

/// The processes of this machine, with what is known of their environments.
#[derive(Debug)]
pub struct Heirs {
    /// How long execve(2) may take.
    patience: Duration,
    /// By pid.
    seen: Vec<Seen>,
    /// Counts the questions: within one, nobody is looked at twice.
    round: u64,
    met: Option<Instant>,
    /// The number that had been given last before that, where the kernel tells.
    last_pid: Option<u32>,
    /// All have been seen for what they are but those who got a number after this one.
    all_up_to: Option<u32>,
    /// Room to read into.
    text: Vec<u8>,
}

/// A process that was looked at.
#[derive(Debug)]
struct Seen {
    listed: Listed,
    descent: Descent,
    since: Instant,
    /// It was looked at late enough to be sure of it.
    is_settled: bool,
    round: u64,
}

/// What a process has from whoever started it; nothing also of other users' processes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Descent {
    /// The lock id in its environment.
    lock_id: Option<Uuid>,
    fork: Option<Fork>,
}

/// A process that has called no execve(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Fork {
    /// That of its parent.
    image: Image,
    /// When it was made, in clock ticks since boot.
    start_ticks: u64,
}

/// An allocation that is looked for an heir.
#[derive(Debug)]
struct Estate {
    lock_id: Uuid,
    owner: Process,
    /// What the owner's forks have in common with it.
    image: Option<Image>,
    /// When it was allocated, in clock ticks since boot.
    since_ticks: u64,
}

/// What there is to see of a process.
enum Look {
    Descent(Descent),
    /// It has ended, and may have left a child that came after the list.
    Ended,
    /// It has no environment. Few have none; all have none for a moment in execve(2), which drops the
    /// old one first and fills in the new one last, and at their end.
    Bare,
}

/// A process that may inherit.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    process: Process,
    lock_id: Uuid,
    tie: Tie,
}

/// What ties a process to an allocation; the first is the stronger one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Tie {
    LockId,
    Fork,
}

type Marked = Vec<Candidate>;

impl Default for Heirs {
    fn default() -> Self {
        Self {
            patience: EXEC_PATIENCE,
            seen: Vec::new(),
            round: 0,
            met: None,
            last_pid: None,
            all_up_to: None,
            text: Vec::new(),
        }
    }
}

impl Heirs {
    /// For each orphan the living process of this user that was started with its `STYXY_LOCK_ID`, the
    /// oldest of them, or else the youngest fork of its owner: it takes over from the owner that died,
    /// one of the `dead`, which are in their order. Never this process, though a daemon may have been
    /// started by a command that had the lock id.
    ///
    /// A process in the middle of execve(2) is looked at again. Where one has ended that was looked at,
    /// so is everybody who came meanwhile: it may have gone to the background just then, as its child.
    pub fn of(&mut self, orphans: &[Orphan], dead: &[Dead]) -> HashMap<Uuid, Identified> {
        let estates: Vec<_> = orphans.iter().map(|orphan| Estate::of(orphan, dead)).collect();
        let estates = &estates[..];
        // The owner has the lock id, too, if `styxy run` started it.
        let inherits = |seen: &Seen, estate: &Estate| {
            estate.tie(seen.descent).is_some() && seen.listed.pid != estate.owner.pid
        };
        let may_inherit = |seen: &Seen| estates.iter().any(|estate| inherits(seen, estate));
        if !self.seen.iter().any(may_inherit) && self.no_newcomer_inherits(estates) {
            return HashMap::new();
        }
        let deadline = Instant::now() + self.patience;
        let mut marked = Marked::new();
        self.round += 1;
        loop {
            let mut is_complete = self.walk(procfs::processes(), estates, &mut marked);
            let (heirs, surely) = first_of(&mut marked);
            // Who has ended since it was looked at may have left a child that came after the list.
            let count = marked.len();
            marked.retain(|candidate| heirs.contains_key(&candidate.lock_id));
            is_complete &= marked.len() == count;
            if is_complete || surely == estates.len() || Instant::now() >= deadline {
                return heirs;
            }
            std::thread::yield_now();
        }
    }

    /// Looks at who is new, so that whoever dies next leaves nobody to look at. Slow the first time.
    pub fn meet(&mut self) {
        if self.met.is_none_or(|met| met.elapsed() >= MEETING) {
            // Before the list: who comes while it is read is new the next time.
            let last_pid = procfs::last_pid().ok();
            self.round += 1;
            self.walk(procfs::processes(), &[], &mut Marked::new());
            self.met = Some(Instant::now());
            let before = std::mem::replace(&mut self.last_pid, last_pid);
            self.all_up_to = before.filter(|before| self.has_seen_all(*before));
        }
    }

    /// Whether all have been seen for what they are who had a number when `last` was the last one, at
    /// the meeting before this one.
    fn has_seen_all(&self, last: u32) -> bool {
        // Else the numbers have begun again from the bottom.
        self.last_pid.is_some_and(|last_pid| last_pid >= last)
            && self.seen.iter().all(|seen| seen.is_settled || seen.listed.pid > last)
    }

    /// Whether nobody is there who has not been seen for what it is.
    fn knows_everybody(&self) -> bool {
        self.all_up_to.is_some() && procfs::last_pid().ok() == self.all_up_to
    }

    /// Whether so few numbers were given since all were seen that a look at each of them is quicker
    /// than a list, and whoever has one inherits nothing.
    fn no_newcomer_inherits(&mut self, estates: &[Estate]) -> bool {
        // Where nobody has met anybody for long, all numbers may have been given since.
        let Some(all_up_to) = self.all_up_to.filter(|_| self.has_met_lately()) else {
            return false;
        };
        let mut looked_at = all_up_to;
        loop {
            let Ok(last) = procfs::last_pid() else { return false };
            if last < looked_at || last - all_up_to > FEW {
                return false;
            }
            if last == looked_at {
                return true;
            }
            // In their order, and again while there are more: who has ended before it was looked at may
            // have left a child.
            if !(looked_at + 1..=last).all(|pid| self.inherits_nothing(pid, estates)) {
                return false;
            }
            looked_at = last;
        }
    }

    /// Whether it is certain at the first look that whoever has this number is no heir.
    fn inherits_nothing(&mut self, pid: u32, estates: &[Estate]) -> bool {
        let directory = match ProcDir::open(pid) {
            Ok(directory) => directory,
            Err(error) => return error == Errno::NOENT,
        };
        let mut buffer = [0; 1024];
        match directory.stat(&mut buffer) {
            // It may be on its way to execve(2) with another environment than its parent's. That of a
            // thread is its process's, which has a number of its own.
            Ok(stat) if stat.is_forked() => stat.is_kernel_thread() || process::is_thread(pid),
            Ok(_) => match self.look_into(&directory, pid, estates, &mut Marked::new()) {
                Look::Descent(descent) => !is_tied(descent, estates),
                Look::Ended | Look::Bare => false,
            },
            Err(_) => false,
        }
    }

    /// Whether [`Heirs::meet`] would look at anybody. Three system calls, so that an idle second needs
    /// neither a list nor another thread.
    pub fn has_newcomers(&self) -> bool {
        !self.has_met_lately() || !self.knows_everybody()
    }

    fn has_met_lately(&self) -> bool {
        self.met.is_some_and(|met| met.elapsed() < LISTING)
    }

    /// Looks at those of the listed processes of which nothing is sure, and at those that may be
    /// heirs. Whether nobody was between one program and the next.
    fn walk(
        &mut self,
        listed: rustix::io::Result<Vec<Listed>>,
        estates: &[Estate],
        marked: &mut Marked,
    ) -> bool {
        let Ok(processes) = listed else {
            // Out of descriptors: nothing is known of who is there by now, nor sure of who was.
            self.all_up_to = None;
            self.last_pid = None;
            return false;
        };
        let mut before = std::mem::take(&mut self.seen).into_iter().peekable();
        let mut is_complete = true;
        for listed in processes {
            while before.next_if(|seen| seen.listed.pid < listed.pid).is_some() {}
            let known = before.next_if(|seen| seen.listed == listed);
            let known = match known {
                Some(seen) if !seen.is_worth_a_look(estates, self.round) => {
                    self.seen.push(seen);
                    continue;
                }
                known => known,
            };
            let look = self.look(listed.pid, estates, marked);
            // What a fork becomes late, in the middle of execve(2) now, is a newcomer once more.
            let is_bare = matches!(look, Look::Bare);
            let known = known.filter(|seen| !(is_bare && seen.descent.fork.is_some()));
            let since = known.map_or_else(Instant::now, |seen| seen.since);
            let is_settled = since.elapsed() >= SETTLING;
            let mut round = self.round;
            let descent = match look {
                Look::Descent(descent) => descent,
                Look::Ended => {
                    is_complete = false;
                    Descent::default()
                }
                Look::Bare => {
                    if !is_settled {
                        is_complete = false;
                        // To be looked at again in this very round.
                        round -= 1;
                    }
                    Descent::default()
                }
            };
            self.seen.push(Seen { listed, descent, since, is_settled, round });
        }
        is_complete
    }

    fn look(&mut self, pid: u32, estates: &[Estate], marked: &mut Marked) -> Look {
        let Ok(directory) = ProcDir::open(pid) else { return Look::Ended };
        self.look_into(&directory, pid, estates, marked)
    }

    fn look_into(
        &mut self,
        directory: &ProcDir,
        pid: u32,
        estates: &[Estate],
        marked: &mut Marked,
    ) -> Look {
        let Ok(uid) = directory.uid() else { return Look::Ended };
        if uid != geteuid().as_raw() || pid == std::process::id() {
            return Look::Descent(Descent::default());
        }
        let mut buffer = [0; 1024];
        // Before the environment: a fork that becomes another program meanwhile is found by either.
        let Ok(stat) = directory.stat(&mut buffer) else { return Look::Ended };
        let process = Process { pid, start_ticks: stat.start_ticks };
        let mut descent =
            Descent { fork: Fork::of(&stat), lock_id: facts::lock_id(directory, &mut self.text) };
        if self.text.is_empty() {
            let Ok(stat) = directory.stat(&mut buffer) else { return Look::Ended };
            if stat.is_dead() {
                // Of the owners it is known since before the list.
                let is_owner = estates.iter().any(|estate| estate.owner == process);
                let nothing = Look::Descent(Descent::default());
                return if is_owner { nothing } else { Look::Ended };
            }
            // Root sees dozens of them, and has all of them for its own.
            if stat.is_kernel_thread() {
                return Look::Descent(Descent::default());
            }
            if let Some(thread) = directory.other_thread() {
                // The first thread has ended, and its environment is seen no more.
                descent.lock_id = facts::lock_id(&thread, &mut self.text);
            }
            let is_known = Fork::of(&stat).is_some() || is_tied(descent, estates);
            if self.text.is_empty() && !is_known {
                return Look::Bare;
            }
        }
        marked.extend(estates.iter().filter_map(|estate| {
            Some(Candidate { process, lock_id: estate.lock_id, tie: estate.tie(descent)? })
        }));
        Look::Descent(descent)
    }
}

impl Fork {
    fn of(stat: &Stat<'_>) -> Option<Self> {
        Some(Self { image: stat.forked_image()?, start_ticks: stat.start_ticks })
    }
}

impl Estate {
    fn of(orphan: &Orphan, dead: &[Dead]) -> Self {
        let Orphan { lock_id, owner, implicit, allocated_at_ms } = *orphan;
        let found = dead.binary_search_by_key(&owner, |dead| dead.process);
        let image = found.ok().and_then(|place| dead[place].image).filter(|_| !implicit);
        // Two clocks were read when that was written down, and rounded.
        let since_ticks = process::tick_at(allocated_at_ms.saturating_sub(2));
        Self { lock_id, owner, image, since_ticks }
    }

    fn tie(&self, descent: Descent) -> Option<Tie> {
        let Descent { lock_id, fork } = descent;
        if lock_id == Some(self.lock_id) {
            return Some(Tie::LockId);
        }
        let Fork { image, start_ticks } = fork?;
        (Some(image) == self.image && start_ticks >= self.since_ticks).then_some(Tie::Fork)
    }
}

fn is_tied(descent: Descent, estates: &[Estate]) -> bool {
    estates.iter().any(|estate| estate.tie(descent).is_some())
}

impl Seen {
    fn is_worth_a_look(&self, estates: &[Estate], round: u64) -> bool {
        self.round != round && (!self.is_settled || is_tied(self.descent, estates))
    }
}

/// The heir for each lock id, and how many of them have it in their environment: those stay, whoever
/// else may be found.
fn first_of(marked: &mut Marked) -> (HashMap<Uuid, Identified>, usize) {
    marked.sort_by(|one, other| {
        let by_age = one.process.start_ticks.cmp(&other.process.start_ticks);
        let by_age = by_age.then(one.process.pid.cmp(&other.process.pid));
        let within = if one.tie == Tie::Fork { by_age.reverse() } else { by_age };
        one.tie.cmp(&other.tie).then(within)
    });
    let (mut heirs, mut surely) = (HashMap::new(), 0);
    for candidate in marked.iter() {
        if let Entry::Vacant(place) = heirs.entry(candidate.lock_id)
            && let Ok(identified) = process::identify(candidate.process.pid)
            && identified.process == candidate.process
        {
            place.insert(identified);
            surely += usize::from(candidate.tie == Tie::LockId);
        }
    }
    (heirs, surely)
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader, Write as _};
    use std::process::{Command, Stdio};
    use std::sync::{Mutex, MutexGuard, PoisonError};

    use super::*;
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
        orphans(lock_ids).iter().map(|orphan| Estate::of(orphan, &[])).collect()
    }

    #[test]
    fn an_heir_is_the_oldest_living_process_with_the_lock_id() {
        let lock_id = Uuid::new_v4();
        assert!(Heirs::default().of(&orphans(&[lock_id]), &[]).is_empty());
        let marked = || {
            let mut command = sleeper();
            Child::start(command.env("STYXY_LOCK_ID", lock_id.to_string()), "sleep")
        };
        let mut first = marked();
        let second = marked();
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
        before.is_some() && heirs.all_up_to == before
    }

    #[test]
    fn who_is_known_is_not_looked_at_again_unless_it_may_inherit() {
        let lock_id = Uuid::new_v4();
        let mut command = sleeper();
        let child = Child::start(command.env("STYXY_LOCK_ID", lock_id.to_string()), "sleep");
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
        let mut command = sleeper();
        let child = Child::start(command.env("STYXY_LOCK_ID", lock_id.to_string()), "sleep");
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
        let mut command = sleeper();
        let child = Child::start(command.env("STYXY_LOCK_ID", lock_id.to_string()), "sleep");
        assert!(heirs.has_newcomers());
        assert_eq!(heirs.of(&orphans(&[lock_id]), &[])[&lock_id].process.pid, child.pid());
        heirs.met = None;
        heirs.meet();
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
        let mut command = sleeper();
        let child = Child::start(command.env("STYXY_LOCK_ID", lock_id.to_string()), "sleep");
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
        let mut command = sleeper();
        let marked = Child::start(command.env("STYXY_LOCK_ID", lock_id.to_string()), "sleep");
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
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let now =
            u64::try_from(now.expect("it is after 1970").as_millis()).expect("it is not long");
        let orphan = Orphan {
            lock_id: Uuid::new_v4(),
            owner: process,
            implicit: false,
            allocated_at_ms: now - 60_000,
        };
        let heir = |heirs: &mut Heirs, orphan: &Orphan, image| {
            let heirs = heirs.of(std::slice::from_ref(orphan), &[Dead { process, image }]);
            heirs.get(&orphan.lock_id).map(|heir| heir.process.pid)
        };
        let mut heirs = settled();
        shell.kill();
        until("the shell is dead", || !process::is_alive(process));

        assert_eq!(heir(&mut Heirs::default(), &orphan, image), Some(forks[1]));
        assert_eq!(heir(&mut heirs, &orphan, image), Some(forks[1]), "it is known");
        let later = Orphan { allocated_at_ms: now + 60_000, ..orphan };
        assert_eq!(heir(&mut heirs, &later, image), None, "they came before");
        let unnamed = Orphan { implicit: true, ..orphan };
        assert_eq!(heir(&mut heirs, &unnamed, image), None, "the shell may not know of it");
        assert_eq!(heir(&mut heirs, &orphan, None), None);
        let other = process::identify(std::process::id()).expect("it lives").image;
        assert_eq!(heir(&mut heirs, &orphan, other), None, "somebody else's");

        let mut command = sleeper();
        let marked = command.env("STYXY_LOCK_ID", orphan.lock_id.to_string());
        let marked = Child::start(marked, "sleep");
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
        let fork = image.map(|image| Fork { image, start_ticks: process.start_ticks });
        let mut heirs = settled();
        let place = heirs.seen.iter().position(|seen| seen.listed.pid == bare.id());
        let seen = &mut heirs.seen[place.expect("it is met")];
        assert!(seen.is_settled);
        seen.descent.fork = fork;
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
            let mut command = sleeper();
            let next = Child::start(command.env("STYXY_LOCK_ID", lock_id.to_string()), "sleep");
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
}
