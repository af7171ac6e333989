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
//! common: the youngest that came after the allocation, because a server is mostly started last. An
//! owner may have become another program since it was identified (`styxy run -- ./dev.sh`, where the
//! script allocates too), with another stack: that one is known since the last meeting.

mod estate;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::geteuid;
use uuid::Uuid;

use self::estate::{Descent, Estate, Marked, Run, first_of, is_tied};
use super::facts;
use super::process::{self, Identified};
use super::procfs::{self, Listed, ProcDir};
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

/// What there is to see of a process.
enum Look {
    Descent(Descent),
    /// It has ended, and may have left a child that came after the list.
    Ended,
    /// It has no environment. Few have none; all have none for a moment in execve(2), which drops the
    /// old one first and fills in the new one last, and at their end.
    Bare,
}

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
        let estate = |orphan| Estate::of(orphan, dead, self.last_run(orphan.owner.pid));
        let estates: Vec<_> = orphans.iter().map(estate).collect();
        let estates = &estates[..];
        // The owner has the lock id, too, if `styxy run` started it.
        let inherits = |seen: &Seen, estate: &Estate| {
            estate.is_tied(seen.descent) && seen.listed.pid != estate.owner.pid
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

    /// What was seen last of whoever has that number.
    fn last_run(&self, pid: u32) -> Option<Run> {
        let found = self.seen.binary_search_by_key(&pid, |seen| seen.listed.pid);
        found.ok().and_then(|place| self.seen[place].descent.run)
    }

    /// Looks at who is new, so that whoever dies next leaves nobody to look at. Slow the first time.
    pub fn meet(&mut self) {
        if self.is_meeting_due() {
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
    /// neither a list nor another thread, and none sooner than in a second.
    pub fn has_newcomers(&self) -> bool {
        self.is_meeting_due() && (!self.has_met_lately() || !self.knows_everybody())
    }

    fn is_meeting_due(&self) -> bool {
        self.met.is_none_or(|met| met.elapsed() >= MEETING)
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
            let known = known.filter(|seen| !(is_bare && seen.descent.is_fork()));
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
            Descent { run: Run::of(&stat), lock_id: facts::lock_id(directory, &mut self.text) };
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
            // By what it is now: a fork that has just called execve(2) has no environment yet.
            let is_known =
                Run::of(&stat).is_some_and(|run| run.is_fork) || is_tied(descent, estates);
            if self.text.is_empty() && !is_known {
                return Look::Bare;
            }
        }
        marked.extend(estates.iter().filter_map(|estate| estate.candidate(process, descent)));
        Look::Descent(descent)
    }
}

impl Seen {
    fn is_worth_a_look(&self, estates: &[Estate], round: u64) -> bool {
        self.round != round && (!self.is_settled || is_tied(self.descent, estates))
    }
}

#[cfg(test)]
mod tests;
