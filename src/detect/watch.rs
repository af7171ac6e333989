//! Watching processes die: pidfds in one epoll set.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::io::{fcntl_dupfd_cloexec, retry_on_intr};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::process::{self, Image};
use crate::registry::Process;

const AT_ONCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };

/// How many processes are watched at most that nobody needs just now. With 1,000 owners that ask
/// and release in turn, none is identified twice.
const MAX_IDLE: usize = 2048;

/// As many descriptors as there are with 2,048 idle processes, 1,000 owners and 512 connections.
const WIDTH: RawFd = 4096;

/// Raises the soft limit of open descriptors to the hard one, and says what it is now, none for no
/// limit. 1,000 watched processes need more than the usual 1,024.
///
/// # Errors
///
/// What setrlimit(2) says.
pub fn raise_descriptor_limit() -> io::Result<Option<u64>> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum {
        setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?;
    }
    Ok(maximum)
}

/// Makes the kernel's table of descriptors as large as it will be with many owners and connections.
///
/// Later, when there are threads, it waits at each doubling of the table until every processor has let
/// go of the old one (`expand_fdtable` in Linux's fs/file.c): 14 ms, in which nobody is answered. For
/// a process of one thread it takes a microsecond, so this comes before any other starts.
///
/// # Errors
///
/// What fcntl(2) says of F_DUPFD_CLOEXEC.
pub fn widen_descriptor_table() -> io::Result<()> {
    let any = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let limit = getrlimit(Resource::Nofile).current.and_then(|limit| RawFd::try_from(limit).ok());
    // Closed at once: the table stays.
    fcntl_dupfd_cloexec(&any, limit.unwrap_or(WIDTH).min(WIDTH) - 1)?;
    Ok(())
}

/// The processes whose death is waited for.
///
/// It is a descriptor itself: readable when one of them has died. A copy of the descriptor
/// (`watch.as_fd().try_clone_to_owned()`) can be waited on elsewhere while this is locked away.
#[derive(Debug)]
pub struct Watch {
    epoll: OwnedFd,
    /// By pid first, so that those of one pid are neighbours: a dead one and the one that got its
    /// pid may be here together.
    watched: BTreeMap<Process, Watched>,
    /// Those that were not needed any more when somebody looked last.
    idle: BTreeSet<Process>,
    max_idle: usize,
    /// How many there are whose death epoll does not tell.
    untold: usize,
}

/// What there is of a process that is watched.
#[derive(Debug)]
struct Watched {
    pidfd: Option<OwnedFd>,
    /// Epoll tells its death.
    is_told: bool,
    image: Option<Image>,
}

/// A process that has died.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dead {
    /// Who it was.
    pub process: Process,
    /// What its forks have in common with it: of a dead process nobody could see that.
    pub image: Option<Image>,
}

impl Watch {
    /// An empty watch.
    ///
    /// # Errors
    ///
    /// What epoll_create1(2) says.
    pub fn new() -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        // Their descriptors are no loss to those who connect.
        let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let max_idle = usize::try_from(limit / 8).unwrap_or(MAX_IDLE).min(MAX_IDLE);
        Ok(Self { epoll, watched: BTreeMap::new(), idle: BTreeSet::new(), max_idle, untold: 0 })
    }

    /// Watches `process`. Without a pidfd only [`Watch::sweep`] finds its death, and so it is where
    /// epoll refuses the pidfd.
    pub fn add(&mut self, process: Process, pidfd: Option<OwnedFd>, image: Option<Image>) {
        if self.watched.get(&process).is_some_and(|known| known.pidfd.is_some()) {
            return;
        }
        let is_told = pidfd.as_ref().is_some_and(|pidfd| {
            let pid = epoll::EventData::new_u64(process.pid.into());
            // The sweep polls what epoll would not take, for want of memory or of
            // /proc/sys/fs/epoll/max_user_watches (epoll(7)).
            epoll::add(&self.epoll, pidfd, pid, epoll::EventFlags::IN).is_ok()
        });
        self.untold += usize::from(!is_told);
        let before = self.watched.insert(process, Watched { pidfd, is_told, image });
        self.untold -= usize::from(before.is_some_and(|before| !before.is_told));
    }

    /// Watches it no more.
    pub fn remove(&mut self, process: Process) {
        let Some(Watched { pidfd, is_told, .. }) = self.watched.remove(&process) else { return };
        self.untold -= usize::from(!is_told);
        if let Some(pidfd) = pidfd
            && is_told
        {
            // Closing it would do, unless a child that was just forked has a copy of it.
            let _refused = epoll::delete(&self.epoll, &pidfd);
        }
    }

    /// Nobody needs `process` just now. It is watched for a while yet: who has asked once asks
    /// again, and identifying it takes eight system calls, [`Watch::living`] one. `needed` says who
    /// is needed after all when there are too many.
    pub fn idle(&mut self, process: Process, mut needed: impl FnMut(Process) -> bool) {
        self.idle.insert(process);
        if self.idle.len() > self.max_idle {
            for idle in std::mem::take(&mut self.idle) {
                if !needed(idle) {
                    self.remove(idle);
                }
            }
        }
    }

    /// Watches only those any more for which `needed` says so.
    pub fn retain(&mut self, mut needed: impl FnMut(Process) -> bool) {
        self.idle.clear();
        let idle: Vec<_> = self.watched.keys().filter(|it| !needed(**it)).copied().collect();
        for process in idle {
            self.remove(process);
        }
    }

    /// How many are watched.
    pub fn len(&self) -> usize {
        self.watched.len()
    }

    /// Whether none is watched.
    pub fn is_empty(&self) -> bool {
        self.watched.is_empty()
    }

    /// Whether a process with this pid is watched and lives: then there is no need to identify it
    /// again. Costs one poll(2).
    pub fn living(&self, pid: u32) -> Option<Process> {
        self.with_pid(pid).find(|watched| !is_dead(watched)).map(|(process, _)| *process)
    }

    /// Whether all that are watched live. Costs one epoll_wait(2).
    pub fn all_live(&self) -> bool {
        let mut events = [const { MaybeUninit::uninit() }; 1];
        let waited = epoll::wait(&self.epoll, &mut events, Some(&AT_ONCE));
        self.untold == 0 && waited.is_ok_and(|(dead, _)| dead.is_empty())
    }

    /// The process with this pid, if it is watched: it may have died.
    pub fn watched(&self, pid: u32) -> Option<Process> {
        self.with_pid(pid).map(|(process, _)| *process).next_back()
    }

    /// The processes that have died since the last call, by pid; they are watched no more.
    pub fn died(&mut self) -> Vec<Dead> {
        let mut dead = Vec::new();
        let mut events: Vec<epoll::Event> = Vec::with_capacity(64);
        loop {
            events.clear();
            let waited = retry_on_intr(|| {
                epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&AT_ONCE))
            });
            let before = dead.len();
            for event in &events {
                let pid = u32::try_from({ event.data }.u64()).unwrap_or(0);
                dead.extend(self.with_pid(pid).filter(is_dead).map(farewell));
            }
            for dead in &dead[before..] {
                self.remove(dead.process);
            }
            // What is ready but not dead to poll(2) would be ready again and again.
            if waited.is_err() || dead.len() == before {
                break;
            }
        }
        dead.sort_unstable_by_key(|dead| dead.process);
        dead
    }

    /// The safety net: looks at every process, whatever epoll said. Says which are dead, by pid;
    /// they are watched no more.
    pub fn sweep(&mut self) -> Vec<Dead> {
        let dead: Vec<_> = self.watched.iter().filter(is_dead).map(farewell).collect();
        for dead in &dead {
            self.remove(dead.process);
        }
        dead
    }

    fn with_pid(&self, pid: u32) -> impl DoubleEndedIterator<Item = (&Process, &Watched)> {
        let first = Process { pid, start_ticks: 0 };
        self.watched.range(first..=Process { start_ticks: u64::MAX, ..first })
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}

fn is_dead((process, watched): &(&Process, &Watched)) -> bool {
    match &watched.pidfd {
        Some(pidfd) => process::has_exited(pidfd),
        None => !process::is_alive(**process),
    }
}

fn farewell((process, watched): (&Process, &Watched)) -> Dead {
    Dead { process: *process, image: watched.image }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use rustix::event::{PollFd, PollFlags, poll};

    use super::*;
    use crate::detect::process::{Identified, identify};
    use crate::detect::testing::{Child, leaderless, sleeper, until};

    fn watched(watch: &mut Watch) -> (Child, Process) {
        let child = Child::start(&mut sleeper(), "sleep");
        let identified = identify(child.pid()).expect("the child lives");
        watch.add(identified.process, identified.pidfd, identified.image);
        (child, identified.process)
    }

    fn who(dead: Vec<Dead>) -> Vec<Process> {
        dead.into_iter().map(|dead| dead.process).collect()
    }

    /// Waits on the descriptor alone, and says whether it became readable.
    fn readable(watch: &Watch, within: Duration) -> bool {
        let mut fds = [PollFd::new(watch, PollFlags::IN)];
        let timeout = Timespec::try_from(within).expect("it is short");
        poll(&mut fds, Some(&timeout)).expect("poll works") == 1
    }

    #[test]
    fn a_death_is_told_within_50_ms_and_once() {
        let mut watch = Watch::new().expect("epoll works");
        let (mut child, process) = watched(&mut watch);
        let (_other, _) = watched(&mut watch);
        assert!(watch.died().is_empty());
        let killed = Instant::now();
        child.kill();
        assert!(readable(&watch, Duration::from_secs(20)));
        assert_eq!(who(watch.died()), [process]);
        assert!(killed.elapsed() < Duration::from_millis(50), "{:?}", killed.elapsed());
        assert!(watch.died().is_empty());
        assert!(!readable(&watch, Duration::ZERO));
        assert_eq!(watch.len(), 1);
    }

    #[test]
    fn a_death_tells_what_forks_have_in_common_with_the_dead() {
        type Look = fn(&mut Watch) -> Vec<Dead>;
        let looks: [Look; 2] = [Watch::died, Watch::sweep];
        for look in looks {
            let mut watch = Watch::new().expect("epoll works");
            let mut child = Child::start(&mut sleeper(), "sleep");
            let Identified { process, pidfd, image, .. } =
                identify(child.pid()).expect("the child lives");
            assert!(image.is_some());
            watch.add(process, pidfd, image);
            child.kill();
            until("it is told", || {
                let dead = look(&mut watch);
                assert!(dead.is_empty() || dead == [Dead { process, image }], "{dead:?}");
                !dead.is_empty()
            });
        }
    }

    #[test]
    fn all_live_until_one_has_died_and_only_where_every_death_is_told() {
        let mut watch = Watch::new().expect("epoll works");
        let (mut child, process) = watched(&mut watch);
        let (_other, _) = watched(&mut watch);
        assert!(watch.all_live());
        assert_eq!(watch.watched(process.pid), Some(process));
        child.kill();
        assert!(readable(&watch, Duration::from_secs(20)));
        assert!(!watch.all_live(), "one has died");
        assert_eq!(watch.living(process.pid), None);
        assert_eq!(who(watch.died()), [process]);
        assert!(watch.all_live());
        assert_eq!(watch.watched(process.pid), None);
        let third = Child::start(&mut sleeper(), "sleep");
        let before = Process { start_ticks: 1, pid: third.pid() };
        let found = identify(third.pid()).expect("the child lives");
        watch.add(found.process, None, None);
        watch.add(found.process, None, None);
        assert!(!watch.all_live(), "nobody would tell");
        watch.add(found.process, found.pidfd, None);
        assert!(watch.all_live(), "it is told of now");
        watch.add(before, None, None);
        assert!(!watch.all_live());
        watch.remove(before);
        assert!(watch.all_live(), "it is not watched any more");
    }

    #[test]
    fn a_hundred_deaths_at_once_are_all_told() {
        let mut watch = Watch::new().expect("epoll works");
        let mut children: Vec<_> = (0..100).map(|_| watched(&mut watch)).collect();
        for (child, _) in &mut children {
            child.kill();
        }
        let mut told = Vec::new();
        until("all have died", || {
            told.append(&mut who(watch.died()));
            watch.is_empty()
        });
        let mut expected: Vec<_> = children.iter().map(|(_, process)| *process).collect();
        expected.sort_unstable();
        told.sort_unstable();
        assert_eq!(told, expected);
    }

    #[test]
    fn who_is_idle_is_let_go_when_there_are_too_many() {
        let mut watch = Watch::new().expect("epoll works");
        watch.max_idle = 2;
        let members: Vec<_> = (0..3).map(|_| watched(&mut watch)).collect();
        let processes: Vec<_> = members.iter().map(|(_, process)| *process).collect();
        for process in &processes[..2] {
            watch.idle(*process, |_| unreachable!("there is room for both"));
        }
        assert_eq!(watch.len(), 3);
        watch.idle(processes[0], |_| unreachable!("it is one of them"));
        watch.idle(processes[2], |process| process == processes[1]);
        assert_eq!(watch.len(), 1);
        assert_eq!(watch.living(processes[1].pid), Some(processes[1]));
    }

    #[test]
    fn a_process_without_a_pidfd_is_found_by_the_sweep() {
        let mut watch = Watch::new().expect("epoll works");
        let mut child = Child::start(&mut sleeper(), "sleep");
        let process = identify(child.pid()).expect("the child lives").process;
        watch.add(process, None, None);
        assert_eq!(watch.living(child.pid()), Some(process));
        assert!(watch.sweep().is_empty());
        child.kill();
        until("the zombie is seen", || who(watch.sweep()) == [process]);
        assert!(watch.is_empty());
    }

    #[test]
    fn the_sweep_also_finds_what_epoll_was_not_asked_for() {
        let mut watch = Watch::new().expect("epoll works");
        let (mut child, process) = watched(&mut watch);
        child.end();
        assert_eq!(who(watch.sweep()), [process]);
        assert!(!readable(&watch, Duration::ZERO));
    }

    #[test]
    fn only_the_living_are_living() {
        let mut watch = Watch::new().expect("epoll works");
        let (mut child, process) = watched(&mut watch);
        assert_eq!(watch.living(child.pid()), Some(process));
        assert_eq!(watch.living(std::process::id()), None, "it is not watched");
        child.end();
        assert_eq!(watch.living(child.pid()), None);
    }

    #[test]
    fn a_recycled_pid_is_another_process() {
        let mut watch = Watch::new().expect("epoll works");
        let child = Child::start(&mut sleeper(), "sleep");
        let identified = identify(child.pid()).expect("the child lives");
        let before = Process { start_ticks: 1, ..identified.process };
        watch.add(before, None, None);
        watch.add(identified.process, identified.pidfd, identified.image);
        assert_eq!(watch.living(child.pid()), Some(identified.process));
        assert_eq!(who(watch.sweep()), [before]);
        assert_eq!(watch.len(), 1);
    }

    #[test]
    fn adding_again_changes_nothing_but_a_missing_pidfd() {
        let mut watch = Watch::new().expect("epoll works");
        let (mut child, process) = watched(&mut watch);
        watch.add(process, None, None);
        watch.add(process, identify(child.pid()).expect("it lives").pidfd, None);
        assert_eq!(watch.len(), 1);
        let mut late = Child::start(&mut sleeper(), "sleep");
        let second = identify(late.pid()).expect("it lives");
        watch.add(second.process, None, None);
        watch.add(second.process, second.pidfd, second.image);
        child.end();
        late.end();
        let mut expected = [process, second.process];
        expected.sort_unstable();
        assert_eq!(who(watch.died()), expected);
    }

    #[test]
    fn what_is_removed_is_not_told() {
        let mut watch = Watch::new().expect("epoll works");
        let (mut child, process) = watched(&mut watch);
        watch.remove(process);
        child.end();
        assert!(!readable(&watch, Duration::ZERO));
        assert!(watch.died().is_empty());
        watch.remove(process);
    }

    #[test]
    fn a_process_without_its_first_thread_is_not_told() {
        let mut watch = Watch::new().expect("epoll works");
        let mut child = leaderless(|_| ());
        let identified = identify(child.pid()).expect("its other thread lives");
        let process = identified.process;
        watch.add(process, identified.pidfd, identified.image);
        assert!(watch.died().is_empty());
        assert!(watch.sweep().is_empty());
        assert_eq!(watch.living(child.pid()), Some(process));
        child.end();
        assert_eq!(who(watch.died()), [process]);
    }

    /// `FDSize` of /proc/PID/status (proc(5)) is the length of the table.
    #[test]
    fn the_table_of_descriptors_is_wide_before_they_are_needed() {
        raise_descriptor_limit().expect("it may be raised");
        widen_descriptor_table().expect("the limit is higher");
        let status = std::fs::read_to_string("/proc/self/status").expect("/proc is there");
        let size = status.lines().find_map(|line| line.strip_prefix("FDSize:"));
        let size: RawFd = size.and_then(|size| size.trim().parse().ok()).expect("a number");
        let limit = getrlimit(Resource::Nofile).current.and_then(|it| RawFd::try_from(it).ok());
        assert!(size >= WIDTH.min(limit.unwrap_or(WIDTH)), "{size}");
    }

    #[test]
    fn the_descriptor_limit_is_raised_to_the_hard_one() {
        let raised = raise_descriptor_limit().expect("it may be raised");
        let now = getrlimit(Resource::Nofile);
        assert_eq!((now.current, now.maximum), (raised, raised));
    }
}
