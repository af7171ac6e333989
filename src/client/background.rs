//! Starting a daemon in the background, where no service manager does it.

use std::env;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};

use super::discover::{Endpoint, Lookup};
use super::link::Link;
use super::pidfd;
use super::readiness::Readiness;
use crate::paths::Paths;

/// How long a daemon may take until it serves.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a daemon keeps of the client's environment: where its files are, who the user is, which
/// container engine to ask. Nothing that belongs to the client's own job, above all no
/// `STYXY_LOCK_ID`: the daemon would be taken for an heir.
const ENVIRONMENT: [&str; 22] = [
    "HOME",
    "USER",
    "LOGNAME",
    "PATH",
    "SHELL",
    "TZ",
    "LANG",
    "LANGUAGE",
    "LC_ALL",
    "LC_CTYPE",
    "LC_MESSAGES",
    "TMPDIR",
    "XDG_CONFIG_HOME",
    "XDG_CONFIG_DIRS",
    "XDG_STATE_HOME",
    "XDG_DATA_HOME",
    "XDG_CACHE_HOME",
    "XDG_RUNTIME_DIR",
    "DOCKER_HOST",
    "CONTAINER_HOST",
    "RUST_LOG",
    "RUST_BACKTRACE",
];

/// A daemon that was started, or that somebody else had started meanwhile.
#[derive(Debug)]
pub(super) struct Started {
    pub(super) link: Link,
    /// Its process id, if this process started it.
    pub(super) pid: Option<u32>,
}

/// Starts a daemon that serves where `lookup` looks, unless one is there by the time that it is
/// this process's turn.
///
/// # Errors
///
/// A clause.
pub(super) fn start(lookup: &Lookup, paths: &Paths) -> Result<Started, String> {
    start_program(&own_program()?, lookup, paths)
}

fn start_program(program: &Path, lookup: &Lookup, paths: &Paths) -> Result<Started, String> {
    let deadline = Instant::now() + PATIENCE;
    let (dir, lock) = meeting_place(paths)?;
    let _turn = wait_for_turn(lock, deadline)?;
    if let Ok(link) = Link::find(lookup) {
        return Ok(Started { link, pid: None });
    }
    let mut readiness = Readiness::new(dir.join("start.sock"))
        .map_err(|error| format!("cannot listen in {}: {error}", dir.display()))?;
    let pid = spawn(program, lookup, readiness.path())
        .map_err(|error| format!("cannot be started: {error}"))?;
    let ready = match pidfd::open(pid) {
        Ok(pidfd) => readiness.wait(pidfd.as_ref(), deadline),
        // It has ended already; what it said is still there to read.
        Err(_) => readiness.wait(None, Instant::now()).map_err(|_| readiness.complaint(true)),
    };
    match (Link::find(lookup), ready) {
        (Ok(link), ready) => Ok(Started { link, pid: ready.is_ok().then_some(pid) }),
        (Err(_), Err(reason)) => Err(reason),
        (Err(absence), Ok(())) => Err(format!("pid {pid} is ready, but {}", absence.tried)),
    }
}

/// Where the starters meet: a directory, and the file in it whose lock makes them go one after the
/// other. Beside the daemon's socket, else in the state directory.
fn meeting_place(paths: &Paths) -> Result<(PathBuf, File), String> {
    let open = |dir: &Path| {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o600);
        options.open(dir.join("start.lock")).map(|file| (dir.to_owned(), file))
    };
    if let Some(dir) = paths.socket.parent() {
        // Within a runtime directory that exists; what is wrong with it shows at the open.
        let _ = DirBuilder::new().mode(0o700).create(dir);
        if let Ok(place) = open(dir) {
            return Ok(place);
        }
    }
    let dir = &paths.state_dir;
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .and_then(|()| open(dir))
        .map_err(|error| format!("cannot write to {}: {error}", dir.display()))
}

/// Waits for the lock of `file`, which lasts as long as the file is open.
fn wait_for_turn(file: File, deadline: Instant) -> Result<File, String> {
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => return Ok(file),
        Err(error) if error.kind() == ErrorKind::WouldBlock => {}
        Err(error) => return Err(format!("cannot lock start.lock: {error}")),
    }
    // flock(2) knows no deadline, so it blocks a thread of its own. A lock that comes too late is
    // given back at once, because nobody takes it from the channel.
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let locked = flock(&file, FlockOperation::LockExclusive);
        let _ = sender.send(locked.map(|()| file));
    });
    match receiver.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
        Ok(Ok(file)) => Ok(file),
        Ok(Err(error)) => Err(format!("cannot lock start.lock: {error}")),
        Err(_) => Err("another styxy has been starting one for too long".to_owned()),
    }
}

/// This program, also when it was replaced on the disk while it runs.
fn own_program() -> Result<PathBuf, String> {
    match env::current_exe() {
        Ok(path) if path.exists() => Ok(path),
        Ok(_) => Ok(format!("/proc/{}/exe", std::process::id()).into()),
        Err(error) => Err(format!("cannot find its program: {error}")),
    }
}

/// Starts `program` as a daemon, and answers its process id.
///
/// A shell starts it and ends: so it is nobody's child, and the command that `styxy run` becomes
/// does not meet a child that it never had. It leaves session and descriptors by itself.
fn spawn(program: &Path, lookup: &Lookup, notify: &Path) -> io::Result<u32> {
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", r#""$@" >/dev/null 2>&1 & echo $!"#, "styxy"]);
    shell.arg(program).args(["daemon", "run", "--background"]);
    match lookup {
        Lookup::Usual(_) => {}
        Lookup::Named(Endpoint::Tcp(address)) => {
            shell.arg("--listen").arg(address.to_string());
        }
        Lookup::Named(Endpoint::Unix(path)) => {
            shell.arg("--socket").arg(path);
        }
    }
    let kept = ENVIRONMENT.into_iter().filter_map(|name| Some((name, env::var_os(name)?)));
    shell.env_clear().envs(kept).env("NOTIFY_SOCKET", notify);
    let output = shell.current_dir("/").stdin(Stdio::null()).stderr(Stdio::null()).output()?;
    let pid = String::from_utf8_lossy(&output.stdout).trim().parse();
    pid.map_err(|_| io::Error::other(format!("/bin/sh: {}", output.status)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use rustix::process::{Pid, Signal, kill_process};
    use tempfile::TempDir;

    type Result = std::result::Result<(), Box<dyn std::error::Error>>;

    /// A program that is started as a daemon, in a directory of its own.
    struct Program {
        dir: TempDir,
        lookup: Lookup,
        paths: Paths,
    }

    impl Program {
        fn new(body: &str) -> io::Result<Self> {
            let dir = tempfile::tempdir()?;
            let socket = dir.path().join("styxy/styxy.sock");
            let program = dir.path().join("program");
            fs::write(&program, format!("#!/usr/bin/python3\n{PRELUDE}{body}"))?;
            fs::set_permissions(&program, fs::Permissions::from_mode(0o700))?;
            let lookup = Lookup::Named(Endpoint::Unix(socket.clone()));
            let state_dir = dir.path().join("state");
            let paths = Paths { state_dir, socket, config_files: Vec::new() };
            Ok(Self { dir, lookup, paths })
        }

        fn start(&self) -> std::result::Result<Started, String> {
            start_program(&self.dir.path().join("program"), &self.lookup, &self.paths)
        }

        fn written(&self, name: &str) -> io::Result<String> {
            fs::read_to_string(self.dir.path().join(name))
        }
    }

    const PRELUDE: &str = r#"
import os, socket, sys, time
def say(text):
    s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    s.sendto(text.encode(), os.environ["NOTIFY_SOCKET"])
def write(name, text):
    with open(os.path.join(os.path.dirname(sys.argv[0]), name), "a") as f:
        f.write(text + "\n")
def serve():
    s = socket.socket(socket.AF_UNIX)
    s.bind(sys.argv[-1])
    s.listen(64)
    return s
"#;

    const SERVER: &str = r#"
write("arguments", " ".join(sys.argv[1:-1]))
write("environment", " ".join(sorted(os.environ)))
write("process", f"{os.getpid()} {os.getppid()} {os.getcwd()}")
s = serve()
say("READY=1")
time.sleep(60)
"#;

    #[test]
    fn a_daemon_is_nobodys_child_and_inherits_nothing_of_the_job() -> Result {
        let program = Program::new(SERVER)?;
        let started = program.start()?;
        let pid = started.pid.ok_or("it was started")?;
        kill_process(Pid::from_raw(i32::try_from(pid)?).ok_or("a pid")?, Signal::KILL)?;

        assert_eq!(program.written("arguments")?.trim(), "daemon run --background --socket");
        let process = program.written("process")?;
        let facts: Vec<&str> = process.split_whitespace().collect();
        assert_eq!(facts[0], pid.to_string());
        assert_ne!(facts[1], std::process::id().to_string());
        assert_eq!(facts[2], "/");
        let environment = program.written("environment")?;
        let names: Vec<&str> = environment.split_whitespace().collect();
        // cargo sets this one for every test.
        assert!(env::var_os("CARGO_MANIFEST_DIR").is_some());
        assert!(!names.iter().any(|name| name.starts_with("CARGO")), "{environment}");
        assert!(names.contains(&"HOME") && names.contains(&"NOTIFY_SOCKET"), "{environment}");
        Ok(())
    }

    #[test]
    fn of_many_starters_one_starts() -> Result {
        let program = Program::new(SERVER)?;
        let started: Vec<_> = thread::scope(|scope| {
            let starters: Vec<_> = (0..8).map(|_| scope.spawn(|| program.start())).collect();
            starters.into_iter().map(|one| one.join().expect("no panic")).collect()
        });
        let mut pids = Vec::new();
        for one in started {
            pids.extend(one?.pid);
        }
        assert_eq!(program.written("process")?.lines().count(), 1);
        assert_eq!(pids.len(), 1, "one of them is the starter: {pids:?}");
        kill_process(Pid::from_raw(i32::try_from(pids[0])?).ok_or("a pid")?, Signal::KILL)?;
        Ok(())
    }

    #[test]
    fn a_daemon_that_cannot_serve_says_why() -> Result {
        let reason = "the state can't be written: no space left on device";
        let program = Program::new(&format!("say(\"STATUS={reason}\")\nsys.exit(74)\n"))?;
        assert_eq!(program.start().err().as_deref(), Some(reason));

        let silent = Program::new("sys.exit(1)\n")?;
        assert_eq!(silent.start().err().as_deref(), Some("it ended without a word"));
        Ok(())
    }

    #[test]
    fn whoever_waits_too_long_for_its_turn_gives_up() -> Result {
        let dir = tempfile::tempdir()?;
        let open = || File::create(dir.path().join("start.lock"));
        let first = wait_for_turn(open()?, Instant::now())?;
        assert!(wait_for_turn(open()?, Instant::now()).is_err());
        drop(first);
        wait_for_turn(open()?, Instant::now() + PATIENCE)?;
        Ok(())
    }
}
