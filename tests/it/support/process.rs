//! Processes that a test starts, and that are gone when it ends.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

use super::{Output, PATIENCE, eventually};

/// A child process, killed and reaped when dropped.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    stdout: Option<BufReader<ChildStdout>>,
}

impl Running {
    /// Starts it. What `command` says of stdin, stdout and stderr stands.
    #[track_caller]
    pub(crate) fn spawn(command: &mut Command) -> Self {
        let mut child =
            command.spawn().unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
        let stdout = child.stdout.take().map(BufReader::new);
        Self { child, stdout }
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The next line of its stdout, which must be piped.
    #[track_caller]
    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        let stdout = self.stdout.as_mut().expect("stdout is piped");
        stdout.read_line(&mut line).expect("readable stdout");
        assert!(line.ends_with('\n'), "stdout ended after {line:?}");
        line.trim_end().to_owned()
    }

    /// Sends it a signal. It is our child and not reaped, so the pid is still its own.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(as_pid(self.pid()), signal).expect("a child can be signalled");
    }

    /// How it ended, if it has.
    pub(crate) fn try_wait(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child can be waited for")
    }

    /// Waits until it has ended, and reaps it.
    #[track_caller]
    pub(crate) fn wait(&mut self) -> ExitStatus {
        if let Some(status) = self.try_wait() {
            return status;
        }
        assert!(ends_within(self.pid(), PATIENCE), "process {} does not end", self.pid());
        self.child.wait().expect("a child can be waited for")
    }

    /// SIGKILL, and reap it.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("a child can be killed");
        self.child.wait().expect("a child can be waited for");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have been reaped already; then there is nothing to do.
        if self.child.kill().is_ok() {
            drop(self.child.wait());
        }
    }
}

/// A process that does nothing until it is killed: an owner of allocations.
pub(crate) fn owner() -> Running {
    let mut command = Command::new("sleep");
    command.arg("3600").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    Running::spawn(&mut command)
}

/// Forks a child with the pid of its first argument, which sleeps and dies with its parent.
///
/// clone3(2) takes the pid that is wished (`set_tid`, Linux 5.5) and gives it to nobody else.
/// `/proc/sys/kernel/ns_last_pid` would lead every program that forks just then to it.
const FORK_WITH_PID: &str = r"
import ctypes, os, signal, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
CLONE3, PR_SET_PDEATHSIG = 435, 1
wish = (ctypes.c_int * 1)(int(sys.argv[1]))
# flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid, set_tid_size, cgroup
words = struct.pack('11Q', 0, 0, 0, 0, signal.SIGCHLD, 0, 0, 0, ctypes.addressof(wish), 1, 0)
pid = libc.syscall(CLONE3, ctypes.create_string_buffer(words, 88), ctypes.c_size_t(88))
if pid == 0:
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    os.execvp('sleep', ['sleep', '3600'])
print(pid if pid > 0 else os.strerror(ctypes.get_errno()), flush=True)
if pid > 0:
    os.waitpid(pid, 0)
";

/// Kills `first`, and starts another process with its pid that starts `later` ticks after it or
/// more. The new process ends when what is returned is dropped. Needs root.
#[track_caller]
pub(crate) fn reuse_pid(mut first: Running, later: u64) -> Running {
    let pid = first.pid();
    let started = start_ticks(pid).expect("it runs");
    first.kill();
    eventually(PATIENCE, || {
        let passed = uptime_ticks() - started;
        if passed >= later { Ok(()) } else { Err(format!("{passed} ticks have passed")) }
    });
    // The pid is free when all that refers to it has gone, a moment after the last wait(2).
    eventually(PATIENCE, || {
        let mut fork = Command::new("python3");
        fork.args(["-c", FORK_WITH_PID, &pid.to_string()]).stdin(Stdio::null());
        let mut parent = Running::spawn(fork.stdout(Stdio::piped()));
        let said = parent.line();
        if said == pid.to_string() { Ok(parent) } else { Err(format!("pid {pid}: {said}")) }
    })
}

/// How long this machine has been up, in clock ticks (proc_uptime(5) counts in hundredths).
fn uptime_ticks() -> u64 {
    let uptime = std::fs::read_to_string("/proc/uptime").expect("every Linux has it");
    let seconds = uptime.split(' ').next().expect("two numbers");
    seconds.replace('.', "").parse().expect("hundredths of a second")
}

/// Runs `command` to its end. It hangs when a process that it left behind keeps its stdout or
/// stderr open; that is a failure here, as it would be in `$(…)`.
#[track_caller]
pub(crate) fn finish(command: &mut Command) -> Output {
    let words: Vec<_> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let shown = words.join(" ");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().unwrap_or_else(|error| panic!("{shown} does not start: {error}"));
    let pid = child.id();
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || sender.send(child.wait_with_output()));
    let Ok(output) = receiver.recv_timeout(PATIENCE) else {
        // Not reaped yet, or reaped with a pipe still open; a pid is not reused that soon.
        let _ = kill_process(as_pid(pid), Signal::KILL);
        panic!("{shown} hangs, or something that it started keeps its output open");
    };
    let output = output.expect("a child can be waited for");
    Output {
        command: shown,
        status: output.status,
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Kills a process that is not our child, after `is_ours` has said yes to what has the pid.
pub(crate) fn kill_stray(pid: u32, is_ours: impl Fn() -> bool) {
    // The pidfd is taken first: whatever is looked at afterwards is what it points to.
    let Ok(pidfd) = pidfd_open(as_pid(pid), PidfdFlags::empty()) else { return };
    if is_ours() {
        let _ = rustix::process::pidfd_send_signal(&pidfd, Signal::KILL);
        let _ = readable_within(&pidfd, PATIENCE);
    }
}

/// Whether the process ends within `limit`. A zombie has ended.
pub(crate) fn ends_within(pid: u32, limit: Duration) -> bool {
    match pidfd_open(as_pid(pid), PidfdFlags::empty()) {
        Ok(pidfd) => readable_within(&pidfd, limit),
        Err(_) => true,
    }
}

/// When a process started, in clock ticks since boot; none when it is gone.
fn start_ticks(pid: u32) -> Option<u64> {
    stat_field(pid, 22)
}

/// The session of a process, by its leader's pid; 0 where that is in an outer pid namespace.
/// getsid(2) answers the same, but rustix makes no pid of a 0.
#[track_caller]
pub(crate) fn session_of(pid: u32) -> u64 {
    stat_field(pid, 6).expect("a living process")
}

/// A number of proc_pid_stat(5), by its place there.
fn stat_field(pid: u32, field: usize) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the name in parentheses, which may hold anything.
    stat[stat.rfind(')')? + 2..].split(' ').nth(field - 3)?.parse().ok()
}

pub(super) fn readable_within(pidfd: &impl std::os::fd::AsFd, limit: Duration) -> bool {
    let timeout = Timespec::try_from(limit).expect("a short time");
    let mut fds = [PollFd::new(pidfd, PollFlags::IN)];
    poll(&mut fds, Some(&timeout)).is_ok_and(|ready| ready > 0)
}

pub(super) fn as_pid(pid: u32) -> Pid {
    i32::try_from(pid).ok().and_then(Pid::from_raw).expect("a process id")
}
