//! Real child processes for the tests of this layer.

use std::io::Write as _;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

use super::containers::{Container, Published};
use super::procfs::{self, ProcDir};
use crate::api::Protocol;

/// How long anything may take on a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_secs(20);

/// Waits until `condition` holds.
pub(super) fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        std::thread::yield_now();
    }
}

/// A running container, of the compose project in that directory.
pub(super) fn container(working_dir: Option<&str>) -> Container {
    Container {
        engine: "docker",
        id: "1f".to_owned(),
        name: "db".to_owned(),
        working_dir: working_dir.map(Into::into),
        running: true,
        uid: 0,
    }
}

/// It serves TCP on that port, as the first engine says.
pub(super) fn published(port: u16, container: Container) -> Published {
    Published {
        port,
        protocol: Protocol::Tcp,
        container_port: 80,
        container: container.into(),
        engine: 0,
    }
}

/// A command that does nothing for longer than any test.
pub(super) fn sleeper() -> Command {
    let mut command = Command::new("sleep");
    command.arg("600");
    command
}

/// A child that is killed when it is dropped, with all that is in its process group.
#[derive(Debug)]
pub(super) struct Child {
    child: std::process::Child,
    reaped: bool,
}

impl Child {
    /// Starts `command` in a process group of its own and waits until it runs the program that the
    /// kernel calls `name`.
    pub(super) fn start(command: &mut Command, name: &str) -> Self {
        Self::spawn(command.process_group(0), name)
    }

    /// The same in a new session.
    pub(super) fn start_session(command: &Command, name: &str) -> Self {
        // setsid(1) runs the program in its own place unless it leads a process group.
        let mut session = Command::new("setsid");
        session.arg(command.get_program()).args(command.get_args());
        session.envs(command.get_envs().filter_map(|(key, value)| Some((key, value?))));
        session.current_dir(command.get_current_dir().unwrap_or(Path::new("/")));
        Self::spawn(&mut session, name)
    }

    fn spawn(command: &mut Command, name: &str) -> Self {
        let child = command.spawn().expect("the program is installed");
        let child = Self { child, reaped: false };
        let mut buffer = [0; 1024];
        let mut environment = Vec::new();
        until("the child runs its program", || {
            let directory = ProcDir::open(child.pid()).expect("it was not waited for");
            let stat = directory.stat(&mut buffer).expect("it was not waited for");
            let read = directory.read(c"environ", 1, &mut environment);
            // execve(2) sets the name first and the environment last.
            stat.name == name.as_bytes() && read.is_ok() && !environment.is_empty()
        });
        child
    }

    /// Its process id.
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a line, where its input is a pipe.
    pub(super) fn tell(&mut self, line: &str) {
        let input = self.child.stdin.as_mut().expect("its input is a pipe");
        writeln!(input, "{line}").expect("it reads");
    }

    /// Waits for its child of that name and tells its process id.
    pub(super) fn child_named(&self, name: &str) -> u32 {
        let mut found = None;
        until("the child has a child", || {
            let mut buffer = [0; 1024];
            found = procfs::processes().expect("/proc is there").into_iter().find(|listed| {
                procfs::stat(listed.pid, &mut buffer)
                    .is_ok_and(|stat| stat.parent == self.pid() && stat.name == name.as_bytes())
            });
            found.is_some()
        });
        found.expect("until() saw it").pid
    }

    /// Kills it, and leaves a zombie.
    pub(super) fn kill(&mut self) {
        self.child.kill().expect("it is our child");
    }

    /// Kills it and all of its group, and takes its zombie away.
    pub(super) fn end(&mut self) {
        // None are left of a group whose processes are all dead.
        let _none_left = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
        self.child.wait().expect("it is our child");
        self.reaped = true;
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if !self.reaped {
            self.end();
        }
    }
}

/// A process whose first thread has ended while another lives, started as `prepare` says.
pub(super) fn leaderless(prepare: impl FnOnce(&mut Command)) -> Child {
    let program = "import ctypes, threading, time\n\
        threading.Thread(target=time.sleep, args=(600,)).start()\n\
        ctypes.CDLL(None).pthread_exit(None)";
    let mut command = Command::new("/usr/bin/python3");
    prepare(command.args(["-c", program]));
    let child = Child::start(&mut command, "python3");
    let mut buffer = [0; 1024];
    until("the first thread has ended", || {
        procfs::stat(child.pid(), &mut buffer).expect("it was not waited for").state == b'Z'
    });
    child
}
