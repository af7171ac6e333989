//! Heirs: who goes on with what a dead owner began (`npm run dev &`, nohup, a program that goes to
//! the background).

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::time::{Duration, Instant};

use rustix::process::geteuid;
use uuid::Uuid;

use super::facts;
use super::holders::for_each_process;
use super::process::{self, Identified};
use super::procfs::{self, ProcDir};
use crate::registry::Process;

/// How long execve(2) may take between the old program and the environment of the new one.
const EXEC_PATIENCE: Duration = Duration::from_millis(5);

/// For each lock id the living process of this user that was started with `STYXY_LOCK_ID=LOCK_ID`,
/// the oldest of them: it takes over from an owner that died. Never this process, though a daemon
/// may have been started by a command that had it. One walk for all.
///
/// A process in the middle of execve(2) has no environment to look at. It is looked at again. One
/// that forks and ends while the walk is on its way leaves a child that was not listed: whoever
/// came meanwhile is looked at too.
pub fn heirs(lock_ids: &[Uuid]) -> HashMap<Uuid, Identified> {
    let mut search = Search { lock_ids, marked: Vec::new(), unborn: Vec::new(), text: Vec::new() };
    let me = geteuid().as_raw();
    let own_pid = std::process::id();
    let mut listed = sorted_pids();
    for_each_process(|pid, uid, directory| {
        if pid != own_pid && uid == me {
            search.look(pid, directory);
        }
    });
    let mut heirs = search.heirs();
    let deadline = Instant::now() + EXEC_PATIENCE;
    while heirs.len() < lock_ids.len() && Instant::now() < deadline {
        let now = sorted_pids();
        let mut again = std::mem::take(&mut search.unborn);
        again.extend(now.iter().filter(|pid| listed.binary_search(pid).is_err()));
        if again.is_empty() {
            break;
        }
        listed = now;
        std::thread::yield_now();
        for pid in again.into_iter().filter(|pid| *pid != own_pid) {
            if let Ok(directory) = ProcDir::open(pid)
                && directory.uid().is_ok_and(|uid| uid == me)
            {
                search.look(pid, &directory);
            }
        }
        heirs = search.heirs();
    }
    heirs
}

/// The processes that there are. Without /proc none can be seen.
fn sorted_pids() -> Vec<u32> {
    let mut pids = procfs::pids().unwrap_or_default();
    pids.sort_unstable();
    pids
}

/// What a walk has found so far.
struct Search<'a> {
    lock_ids: &'a [Uuid],
    /// Processes with one of the lock ids in their environment.
    marked: Vec<(Process, Uuid)>,
    /// Processes in the middle of execve(2).
    unborn: Vec<u32>,
    /// Room to read into.
    text: Vec<u8>,
}

impl Search<'_> {
    fn look(&mut self, pid: u32, directory: &ProcDir) {
        let mut started_with = facts::lock_id(directory, &mut self.text);
        let mut buffer = [0; 1024];
        // Root sees dozens of them, and has all of them for its own.
        if self.text.is_empty()
            && directory.stat(&mut buffer).is_ok_and(|stat| stat.is_kernel_thread())
        {
            return;
        }
        if self.text.is_empty()
            && let Some(thread) = directory.other_thread()
        {
            // The first thread has ended, and its environment is seen no more.
            started_with = facts::lock_id(&thread, &mut self.text);
        }
        if self.text.is_empty() && self.is_in_exec(directory) {
            self.unborn.push(pid);
            return;
        }
        let Some(lock_id) = started_with.filter(|lock_id| self.lock_ids.contains(lock_id)) else {
            return;
        };
        if let Ok(stat) = directory.stat(&mut buffer) {
            self.marked.push((Process { pid, start_ticks: stat.start_ticks }, lock_id));
        }
    }

    /// Whether a process has neither arguments nor environment although it has memory: the one
    /// moment of execve(2) in which the new memory is empty. A zombie and a thread of the kernel
    /// have none.
    fn is_in_exec(&mut self, directory: &ProcDir) -> bool {
        let mut begins = |file, with: &[u8]| {
            directory.read(file, 1, &mut self.text).is_ok() && self.text.starts_with(with)
        };
        let has_memory = begins(c"statm", b"") && !begins(c"statm", b"0");
        let is_empty =
            directory.read(c"cmdline", 1, &mut self.text).is_ok() && self.text.is_empty();
        has_memory && is_empty
    }

    /// The oldest living one for each lock id.
    fn heirs(&mut self) -> HashMap<Uuid, Identified> {
        self.marked.sort_by_key(|(process, _)| (process.start_ticks, process.pid));
        let mut heirs = HashMap::new();
        for (process, lock_id) in &self.marked {
            if let Entry::Vacant(place) = heirs.entry(*lock_id)
                && let Ok(identified) = process::identify(process.pid)
                && identified.process == *process
            {
                place.insert(identified);
            }
        }
        heirs
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::detect::testing::{Child, sleeper, until};

    #[test]
    fn an_heir_is_the_oldest_living_process_with_the_lock_id() {
        let lock_id = Uuid::new_v4();
        assert!(heirs(&[lock_id]).is_empty());
        let marked = || {
            let mut command = sleeper();
            Child::start(command.env("STYXY_LOCK_ID", lock_id.to_string()), "sleep")
        };
        let mut first = marked();
        let second = marked();
        let eldest = &heirs(&[Uuid::new_v4(), lock_id])[&lock_id];
        assert!([first.pid(), second.pid()].contains(&eldest.process.pid));
        assert!(eldest.pidfd.is_some());
        first.kill();
        // A zombie has no environment any more.
        until("the second inherits", || {
            heirs(&[lock_id]).get(&lock_id).is_some_and(|heir| heir.process.pid == second.pid())
        });
        drop(second);
        assert!(heirs(&[lock_id]).is_empty());
    }

    #[test]
    fn a_process_of_another_user_inherits_nothing() {
        if !geteuid().is_root() {
            return; // Only root can start one.
        }
        let lock_id = Uuid::new_v4();
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "65534", "--clear-groups", "sleep", "600"]);
        let _child = Child::start(command.env("STYXY_LOCK_ID", lock_id.to_string()), "sleep");
        assert!(heirs(&[lock_id]).is_empty());
    }
}
