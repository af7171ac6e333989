//! Processes: who they are, whether they live, what they run.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Once;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{Errno, retry_on_intr};
use rustix::process::{Pid, PidfdFlags, geteuid, pidfd_open, test_kill_process};
use rustix::time::{ClockId, Timespec, clock_gettime};

pub use super::parent::parent_owner;
pub use super::procfs::Image;
use super::procfs::{self, ProcDir, Stat};
use crate::api::ProcessInfo;
use crate::registry::Process;

const ABSENT: &str = "does not exist";
const HIDDEN: &str = "cannot be seen";

/// A command line is shown up to here, in bytes.
const COMMAND_LIMIT: usize = 4096;

/// The kernel's name for a process is shorter, in bytes: TASK_COMM_LEN, or 64 of a kernel thread.
const NAME_LIMIT: usize = 128;

/// A living process, and a descriptor that tells when it dies.
#[derive(Debug)]
pub struct Identified {
    /// Who it is.
    pub process: Process,
    /// Its effective user: whose it is to the kernel, and whose the sockets are that it opens. The
    /// real user of a set-user-ID program is the one who typed it, who may not look into it.
    pub uid: u32,
    /// When it started, in Unix seconds; see [`Identified::started_at_or_about`].
    pub started_at: u64,
    /// pidfd_open(2), where the kernel has it and lets us.
    pub pidfd: Option<OwnedFd>,
    /// What its forks have in common with it, where it may be looked into and is none itself. It has
    /// another one once it has called execve(2) again.
    pub image: Option<Image>,
}

impl Identified {
    /// Whether somebody else, who says that it started at `unix_seconds`, means this process.
    ///
    /// The kernel knows the start in ticks since boot, and when that was only as whole seconds that
    /// move when the clock is set. So two who work out the same start may be one second apart.
    pub fn started_at_or_about(&self, unix_seconds: u64) -> bool {
        self.started_at.abs_diff(unix_seconds) <= 1
    }
}

/// Identifies the process that has `pid` now: opens the pidfd, reads the start time, then sees
/// that the pidfd is still unreadable, so that the two belong together.
///
/// The id of a thread is no process id. Eight system calls.
///
/// # Errors
///
/// One clause: `does not exist`, `cannot be seen`.
pub fn identify(pid: u32) -> Result<Identified, &'static str> {
    identify_by(pid, open_pidfd(pid)?)
}

/// The pidfd of a process that exists, or none where this kernel, its limits or a filter refuse it.
/// That is said the first time: most often it stays so.
fn open_pidfd(pid: u32) -> Result<Option<OwnedFd>, &'static str> {
    let raw = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(ABSENT)?;
    match pidfd_open(raw, PidfdFlags::empty()) {
        Ok(pidfd) => Ok(Some(pidfd)),
        // EINVAL, and ENOENT since Linux 6.15: the id of a thread that is not its process's first.
        Err(Errno::SRCH | Errno::INVAL | Errno::NOENT) => Err(ABSENT),
        Err(refused) => {
            static SAID: Once = Once::new();
            SAID.call_once(|| {
                tracing::warn!(
                    "pidfd_open(2) is refused ({refused}): ends of processes are seen within reap_interval"
                );
            });
            Ok(None)
        }
    }
}

fn identify_by(pid: u32, pidfd: Option<OwnedFd>) -> Result<Identified, &'static str> {
    let seen = look(pid);
    let died = match &pidfd {
        Some(pidfd) => has_exited(pidfd),
        // With nothing that names the process itself, what /proc says must do.
        None => matches!(seen, Err(Errno::NOENT | Errno::SRCH)) || is_thread(pid),
    };
    if died {
        return Err(ABSENT);
    }
    let Sight { process, uid, image, is_dead } = seen.map_err(|_| HIDDEN)?;
    if is_dead {
        return Err(ABSENT);
    }
    Ok(Identified { process, uid, started_at: unix_seconds(process.start_ticks), pidfd, image })
}

/// What /proc shows of a process.
struct Sight {
    process: Process,
    /// The effective user.
    uid: u32,
    image: Option<Image>,
    is_dead: bool,
}

fn look(pid: u32) -> rustix::io::Result<Sight> {
    let mut buffer = [0; 1024];
    let directory = ProcDir::open(pid)?;
    let stat = directory.stat(&mut buffer)?;
    let process = Process { pid, start_ticks: stat.start_ticks };
    Ok(Sight { process, uid: directory.uid()?, image: stat.own_image(), is_dead: stat.is_dead() })
}

/// Whether `pid` is the id of a thread that is not its process's first: /proc shows it, though it
/// does not list it.
pub(super) fn is_thread(pid: u32) -> bool {
    let mut status = Vec::new();
    let read =
        ProcDir::open(pid).and_then(|directory| directory.read(c"status", 4096, &mut status));
    let process = status.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"Tgid:"));
    let process = process.and_then(|id| std::str::from_utf8(id).ok()?.trim().parse().ok());
    read.is_ok() && process.is_some_and(|process: u32| process != pid)
}

/// Whether the process of `pidfd` has exited, all its threads with it. One poll(2); where even that
/// fails, it is not called dead.
pub(super) fn has_exited(pidfd: impl AsFd) -> bool {
    let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
    let polled = retry_on_intr(|| poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })));
    polled.is_ok() && !fds[0].revents().is_empty()
}

/// Whether that very process lives. A zombie is dead, unless other threads of it live.
///
/// Three system calls.
pub fn is_alive(process: Process) -> bool {
    living(process).is_some()
}

/// What the ownership rule asks of a living process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Living {
    /// Its session, where it can be seen: no leader in an outer pid namespace.
    pub(super) session: Option<u32>,
}

/// That very process, if it lives.
pub(super) fn living(process: Process) -> Option<Living> {
    let mut buffer = [0; 1024];
    match procfs::stat(process.pid, &mut buffer) {
        Ok(stat) => (stat.start_ticks == process.start_ticks && !stat.is_dead())
            .then(|| Living { session: session_of(&stat) }),
        Err(Errno::NOENT | Errno::SRCH) => None,
        // Out of descriptors or memory: nobody may be called dead for that, as long as the pid is
        // in use.
        Err(_) => pid_in_use(process.pid).then_some(Living { session: None }),
    }
}

/// The session of a process, if it is one that can be told from others.
pub(super) fn session_of(stat: &Stat<'_>) -> Option<u32> {
    (stat.session != 0).then_some(stat.session)
}

fn pid_in_use(pid: u32) -> bool {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    pid.is_some_and(|pid| test_kill_process(pid) != Err(Errno::SRCH))
}

/// This process, without a pidfd.
///
/// # Errors
///
/// When /proc is not there.
pub fn own() -> io::Result<Identified> {
    let mut buffer = [0; 1024];
    let pid = std::process::id();
    let stat = procfs::stat(pid, &mut buffer)?;
    let start_ticks = stat.start_ticks;
    Ok(Identified {
        process: Process { pid, start_ticks },
        uid: geteuid().as_raw(),
        started_at: unix_seconds(start_ticks),
        pidfd: None,
        image: stat.own_image(),
    })
}

/// Clock ticks since boot as Unix seconds, by whole seconds of boot time as `btime` of /proc/stat
/// has them. Taken from the clocks each time: they cost less than that file, and stay right when
/// the clock is set.
pub fn unix_seconds(start_ticks: u64) -> u64 {
    let boot = u64::try_from(boot_time().tv_sec).unwrap_or(0);
    boot + start_ticks / rustix::param::clock_ticks_per_second()
}

/// The clock tick since boot in which a time was, in Unix milliseconds, as the clock is set now.
pub(super) fn tick_at(unix_ms: u64) -> u64 {
    let boot = boot_time();
    let boot_ms = boot.tv_sec * 1000 + boot.tv_nsec / 1_000_000;
    let since_boot = unix_ms.saturating_sub(u64::try_from(boot_ms).unwrap_or(0));
    since_boot * rustix::param::clock_ticks_per_second() / 1000
}

/// When this machine booted, by the clock as it is set now.
fn boot_time() -> Timespec {
    let now = clock_gettime(ClockId::Realtime);
    let since_boot = clock_gettime(ClockId::Boottime);
    let borrow = i64::from(now.tv_nsec < since_boot.tv_nsec);
    Timespec {
        tv_sec: now.tv_sec - since_boot.tv_sec - borrow,
        tv_nsec: now.tv_nsec - since_boot.tv_nsec + borrow * 1_000_000_000,
    }
}

/// Name, command line and working directory, as far as they can be seen; none when there is no
/// such process.
pub fn describe(pid: u32) -> Option<ProcessInfo> {
    describe_in(pid, &ProcDir::open(pid).ok()?)
}

/// The same of a process whose directory is open.
pub(super) fn describe_in(pid: u32, directory: &ProcDir) -> Option<ProcessInfo> {
    let mut text = Vec::new();
    // Half as slow as `stat`, which also has the name.
    directory.read(c"comm", NAME_LIMIT, &mut text).ok()?;
    let name = name(text.strip_suffix(b"\n").unwrap_or(&text), directory);
    let read = directory.read(c"cmdline", COMMAND_LIMIT, &mut text);
    let command = read.is_ok().then(|| command_line(&text)).filter(|line| !line.is_empty());
    let cwd = directory.link(c"cwd").ok().map(|path| path.to_string_lossy().into_owned());
    Some(ProcessInfo { pid, name, command, cwd, project_path: None })
}

/// How much memory the process has now, in bytes: `VmRSS` of proc_pid_status(5). `None` when it
/// cannot be seen.
pub fn resident_bytes(pid: u32) -> Option<u64> {
    let mut status = Vec::new();
    ProcDir::open(pid).ok()?.read(c"status", 4096, &mut status).ok()?;
    let status = String::from_utf8_lossy(&status);
    let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.strip_suffix(" kB"));
    kib?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// A control group file is read up to here, in bytes.
const CGROUP_LIMIT: usize = 16 * 1024;

/// The container that a process is in: its engine and its id, as the path of its control group
/// tells (cgroups(7)): `…/docker-ID.scope`, `…/docker/ID`, `…/libpod-ID.scope/container`.
pub(super) fn container(directory: &ProcDir) -> Option<(&'static str, String)> {
    let mut text = Vec::new();
    directory.read(c"cgroup", CGROUP_LIMIT, &mut text).ok()?;
    container_of(std::str::from_utf8(&text).ok()?)
}

fn container_of(cgroups: &str) -> Option<(&'static str, String)> {
    let mut last = "";
    let paths = cgroups.lines().filter_map(|line| line.splitn(3, ':').nth(2));
    paths.flat_map(|path| path.split('/')).find_map(|part| {
        let before = std::mem::replace(&mut last, part);
        let part = part.strip_suffix(".scope").unwrap_or(part);
        let (engine, id) = match part.split_once('-') {
            Some(("docker", id)) => ("docker", id),
            Some(("libpod", id)) => ("podman", id),
            None if before == "docker" => ("docker", part),
            _ => return None,
        };
        let is_id = id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_id.then(|| (engine, id.to_owned()))
    })
}

/// The arguments, separated by spaces.
fn command_line(arguments: &[u8]) -> String {
    let end = arguments.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    String::from_utf8_lossy(&arguments[..end]).replace('\0', " ")
}

/// What people call the process: the kernel's name for it (`comm`), cut off after 15 bytes.
///
/// Node.js 24 and later name their first thread for what it is, and with it the process
/// (nodejs/node#61307); then it is the file name of the program.
pub(super) fn name(kernels: &[u8], directory: &ProcDir) -> String {
    let program = if kernels.ends_with(b"MainThread") { directory.link(c"exe").ok() } else { None };
    let program = program.as_deref().and_then(Path::file_name);
    let name = program.map_or(String::from_utf8_lossy(kernels), |name| name.to_string_lossy());
    name.into_owned()
}

/// The id of this boot (`/proc/sys/kernel/random/boot_id`).
///
/// # Errors
///
/// When /proc is not there.
pub fn boot_id() -> io::Result<String> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    Ok(text.trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::detect::testing::{Child, leaderless, sleeper, until};
    use crate::testing::skip;

    #[test]
    fn a_process_that_can_be_seen_has_memory() {
        let own = resident_bytes(std::process::id()).expect("this process has memory");
        assert!((1 << 16..1 << 40).contains(&own), "{own}");
        assert_eq!(resident_bytes(u32::MAX), None);
    }

    #[test]
    fn a_living_child_is_identified_and_alive() {
        let child = Child::start(&mut sleeper(), "sleep");
        let identified = identify(child.pid()).expect("the child lives");
        assert_eq!(identified.process.pid, child.pid());
        assert_eq!(identified.uid, geteuid().as_raw());
        assert!(!has_exited(identified.pidfd.as_ref().expect("this kernel has pidfds")));
        assert!(is_alive(identified.process));
        // The same pid with another start is another process.
        let Process { pid, start_ticks } = identified.process;
        assert!(!is_alive(Process { pid, start_ticks: start_ticks + 1 }));
        assert!(!is_alive(Process { pid, start_ticks: start_ticks - 1 }));
    }

    #[test]
    fn a_start_time_is_told_in_unix_seconds() {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let now = now.expect("it is after 1970").as_secs();
        let child = Child::start(&mut sleeper(), "sleep");
        let identified = identify(child.pid()).expect("the child lives");
        assert!(identified.started_at.abs_diff(now) <= 2, "{} at {now}", identified.started_at);
        let about = [-2, -1, 0, 1, 2].map(|off| identified.started_at.saturating_add_signed(off));
        let accepted = about.map(|seconds| identified.started_at_or_about(seconds));
        assert_eq!(accepted, [false, true, true, true, false]);
    }

    #[test]
    fn a_control_group_names_the_container() {
        let id = "6318928caad68cfbe08a1efdec7f5d608129d691dba37c8ebcfbcc40cea10eec";
        let table = [
            (format!("0::/system.slice/docker-{id}.scope"), Some("docker")),
            (format!("12:pids:/docker/{id}\n1:name=systemd:/docker/{id}"), Some("docker")),
            (format!("0::/user.slice/user@7.service/libpod-{id}.scope/container"), Some("podman")),
            (format!("0::/machine.slice/libpod-conmon-{id}.scope"), None),
            (format!("0::/{id}"), None),
            ("0::/docker/short".to_owned(), None),
        ];
        for (text, engine) in table {
            let expected = engine.map(|engine| (engine, id.to_owned()));
            assert_eq!(container_of(&text), expected, "{text}");
        }
    }

    #[test]
    fn the_boot_time_is_that_of_the_kernel() {
        let stat = std::fs::read_to_string("/proc/stat").expect("/proc is there");
        let boot = stat.lines().find_map(|line| line.strip_prefix("btime "));
        let boot: u64 = boot.expect("it has a btime").parse().expect("it is a number");
        assert!(unix_seconds(0).abs_diff(boot) <= 1, "{} and {boot}", unix_seconds(0));
    }

    #[test]
    fn what_is_no_process_does_not_exist() {
        let mut child = Child::start(&mut sleeper(), "sleep");
        child.end();
        for pid in [0, child.pid(), 4_194_305, u32::MAX] {
            assert_eq!(identify(pid).expect_err("nothing has that pid"), ABSENT, "{pid}");
        }
    }

    #[test]
    fn the_id_of_a_thread_is_no_process_id() {
        let (send, receive) = std::sync::mpsc::channel();
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            send.send(rustix::thread::gettid()).expect("the test waits for it");
            // Until the test drops the other end.
            ended.recv()
        });
        let id = receive.recv().expect("the thread says it").as_raw_pid().unsigned_abs();
        assert_eq!(identify(id).expect_err("a thread"), ABSENT);
        assert_eq!(identify_by(id, None).expect_err("a thread"), ABSENT);
        drop(end);
        thread.join().expect("it does not panic").expect_err("nothing was sent");
    }

    #[test]
    fn a_zombie_is_dead_with_and_without_a_pidfd() {
        let mut child = Child::start(&mut sleeper(), "sleep");
        let Identified { process, pidfd, .. } = identify(child.pid()).expect("it lives");
        assert!(identify_by(child.pid(), None).is_ok());
        child.kill();
        until("the child is dead", || !is_alive(process));
        assert!(has_exited(pidfd.expect("this kernel has pidfds")));
        assert_eq!(identify(child.pid()).expect_err("a zombie"), ABSENT);
        assert_eq!(identify_by(child.pid(), None).expect_err("a zombie"), ABSENT);
    }

    #[test]
    fn a_process_lives_on_without_its_first_thread() {
        let child = leaderless(|_| ());
        let mut buffer = [0; 1024];
        let stat = procfs::stat(child.pid(), &mut buffer).expect("it was not waited for");
        assert_eq!(stat.state, b'Z');
        let identified = identify(child.pid()).expect("its other thread lives");
        assert!(is_alive(identified.process));
        assert!(identify_by(child.pid(), None).is_ok());
    }

    #[test]
    fn a_process_of_another_user_is_told_by_its_effective_user() {
        if !geteuid().is_root() {
            return skip("only root can start a process of another user");
        }
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "65534", "--clear-groups", "sleep", "600"]);
        let child = Child::start(&mut command, "sleep");
        assert_eq!(identify(child.pid()).expect("it lives").uid, 65534);
    }

    #[test]
    fn a_process_is_described_by_what_it_runs() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let child = Child::start(sleeper().current_dir(directory.path()), "sleep");
        let info = describe(child.pid()).expect("the child lives");
        assert_eq!((info.pid, info.name.as_str()), (child.pid(), "sleep"));
        assert_eq!(info.command.as_deref(), Some("sleep 600"));
        let cwd = directory.path().canonicalize().expect("it exists");
        assert_eq!(info.cwd.as_deref(), cwd.to_str());
    }

    #[test]
    fn a_program_that_names_its_first_thread_is_called_by_its_file() {
        let mut command = Command::new("sh");
        let rename = "printf node-MainThread > /proc/$$/comm; read -r line";
        command.args(["-c", rename]).stdin(std::process::Stdio::piped());
        let child = Child::start(&mut command, "node-MainThread");
        let program = std::fs::read_link(format!("/proc/{}/exe", child.pid()));
        let program = program.expect("the child lives");
        let info = describe(child.pid()).expect("the child lives");
        assert_eq!(Some(info.name.as_str()), program.file_name().and_then(|name| name.to_str()));
    }

    #[test]
    fn this_process_knows_itself() {
        let own = own().expect("/proc is there");
        assert_eq!(own.process, identify(std::process::id()).expect("it lives").process);
    }

    #[test]
    fn arguments_are_shown_in_one_line() {
        assert_eq!(command_line(b"node\0server.js\0--port\08000\0"), "node server.js --port 8000");
        // A title that a program gave itself, with what is left of its arguments.
        assert_eq!(command_line(b"next-server (v15)\0\0\0\0"), "next-server (v15)");
        assert_eq!(command_line(b""), "");
    }

    #[test]
    fn a_boot_has_an_id() {
        assert!(uuid::Uuid::try_parse(&boot_id().expect("/proc is there")).is_ok());
    }
}
