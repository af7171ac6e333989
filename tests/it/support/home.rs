//! A user of their own: home directory, state, sockets, ports and configuration.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::blocks::Block;
use super::process::{ends_within, kill_stray};
use super::{
    Address, Connection, Daemon, NOBODY, Output, PATIENCE, Reply, Request, Running, as_nobody,
    eventually, finish,
};

/// The program under test.
const STYXY: &str = env!("CARGO_BIN_EXE_styxy");
/// No shims and wrappers of the person who runs the tests.
pub(crate) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Tests that measure time have the machine to themselves.
static MACHINE: RwLock<()> = RwLock::new(());

/// How a test has the machine, for as long as this lives.
#[derive(Debug)]
pub(crate) enum Share {
    /// Others run beside.
    Beside { _guard: RwLockReadGuard<'static, ()> },
    /// Nobody else runs.
    Alone { _guard: RwLockWriteGuard<'static, ()> },
}

impl Share {
    /// Others run beside.
    pub(crate) fn beside() -> Self {
        Self::Beside { _guard: MACHINE.read().unwrap_or_else(PoisonError::into_inner) }
    }
}

/// One user's world. When dropped, every process that was started in it is gone.
///
/// A thread makes one home only: a second one could wait for ever for a test that wants to be
/// alone and waits for the first.
#[derive(Debug)]
pub(crate) struct Home {
    dir: TempDir,
    block: Block,
    _share: Share,
}

impl Home {
    /// A home with 20 ports for the service type `dev`.
    pub(crate) fn new() -> Self {
        Self::with_ports(32)
    }

    /// A home with `ports` ports, of which `dev` has all but twelve.
    pub(crate) fn with_ports(ports: u16) -> Self {
        Self::make(Share::beside(), ports)
    }

    /// The same, and no other test runs meanwhile.
    pub(crate) fn alone(ports: u16) -> Self {
        let guard = MACHINE.write().unwrap_or_else(PoisonError::into_inner);
        Self::make(Share::Alone { _guard: guard }, ports)
    }

    fn make(share: Share, ports: u16) -> Self {
        let dir = tempfile::Builder::new().prefix("styxy-it-").tempdir().expect("a directory");
        let home = Self { dir, block: Block::claim(ports), _share: share };
        for name in ["home", "run", "state", "config/styxy"] {
            fs::create_dir_all(home.path(name)).expect("a directory");
        }
        let private = fs::Permissions::from_mode(0o700);
        fs::set_permissions(home.path("run"), private).expect("a directory of our own");
        home.project("work");
        home.configure("");
        home
    }

    /// Writes the configuration: this home's ports, and `daemon` lines for its `[daemon]` table.
    pub(crate) fn configure(&self, daemon: &str) {
        let range = |(first, last)| format!("[{first}, {last}]");
        let (dev, api) = (range(self.dev_range()), range(self.api_range()));
        let (overflow, listen) = (range(self.overflow_range()), self.daemon_port());
        let text = format!(
            "[daemon]\nlisten = \"127.0.0.1:{listen}\"\nidle_exit = \"never\"\n\
             overflow = {overflow}\n{daemon}\n\n\
             [service.dev]\npreferred_ports = []\nport_range = {dev}\n\n\
             [service.api]\npreferred_ports = []\nport_range = {api}\n"
        );
        fs::write(self.config_file(), text).expect("a configuration file");
    }

    /// Goes without a configuration file: the built-in service types and their ports.
    pub(crate) fn forget_configuration(&self) {
        fs::remove_file(self.config_file()).expect("a configuration file");
    }

    /// `config.toml`.
    pub(crate) fn config_file(&self) -> PathBuf {
        self.path("config/styxy/config.toml")
    }

    /// Something in the home's directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Makes a directory that is a project: it has a git repository's looks.
    pub(crate) fn project(&self, name: &str) -> PathBuf {
        let root = self.path(name);
        for folder in ["objects", "refs"] {
            fs::create_dir_all(root.join(".git").join(folder)).expect("a directory");
        }
        fs::write(root.join(".git/HEAD"), "ref: refs/heads/main\n").expect("a file");
        root
    }

    /// The project that commands are run in.
    pub(crate) fn work(&self) -> PathBuf {
        self.path("work")
    }

    /// The daemon's TCP port.
    pub(crate) fn daemon_port(&self) -> u16 {
        self.block.port(0)
    }

    /// A free port that no service type has: 0 to 2.
    pub(crate) fn spare_port(&self, n: u16) -> u16 {
        assert!(n < 3, "there are three spare ports");
        self.block.port(1 + n)
    }

    /// First and last port of the type `dev`.
    pub(crate) fn dev_range(&self) -> (u16, u16) {
        (self.block.port(4), self.block.port(self.block.len() - 9))
    }

    /// First and last port of the type `api`: four of them.
    pub(crate) fn api_range(&self) -> (u16, u16) {
        (self.block.port(self.block.len() - 8), self.block.port(self.block.len() - 5))
    }

    /// First and last port of the overflow range: four of them.
    pub(crate) fn overflow_range(&self) -> (u16, u16) {
        (self.block.port(self.block.len() - 4), self.block.port(self.block.len() - 1))
    }

    /// The unix socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.path("run/styxy/styxy.sock")
    }

    /// The state directory of this machine, once it was made.
    pub(crate) fn state_dir(&self) -> Option<PathBuf> {
        let mut entries = fs::read_dir(self.path("state/styxy")).ok()?;
        Some(entries.next()?.ok()?.path())
    }

    /// The journal.
    pub(crate) fn journal(&self) -> PathBuf {
        self.state_dir().expect("a state directory").join("state.jsonl")
    }

    /// What `daemon.lock` says.
    pub(crate) fn lock_holder(&self) -> Option<Value> {
        let text = fs::read_to_string(self.state_dir()?.join("daemon.lock")).ok()?;
        serde_json::from_str(&text).ok()
    }

    /// Any program as this user would run it, in the project `work`.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", PATH)
            .env("LANG", "C.UTF-8")
            .env("HOME", self.path("home"))
            .env("XDG_RUNTIME_DIR", self.path("run"))
            .env("XDG_STATE_HOME", self.path("state"))
            .env("XDG_CONFIG_HOME", self.path("config"))
            .current_dir(self.work());
        if !self.config_file().exists() {
            // Never the port of the person who runs the tests.
            command.env("STYXY_DAEMON_PORT", self.daemon_port().to_string());
        }
        command
    }

    /// `styxy ARGS`, to be changed or started.
    pub(crate) fn styxy_command(&self, args: &[&str]) -> Command {
        let mut command = self.command(STYXY);
        command.args(args);
        command
    }

    /// Runs `styxy ARGS` to its end.
    #[track_caller]
    pub(crate) fn styxy(&self, args: &[&str]) -> Output {
        finish(&mut self.styxy_command(args))
    }

    /// Runs `styxy ARGS` to its end in another directory.
    #[track_caller]
    pub(crate) fn styxy_in(&self, directory: &Path, args: &[&str]) -> Output {
        finish(self.styxy_command(args).current_dir(directory))
    }

    /// `sh -c SCRIPT`, with `styxy` as a command that the script knows.
    pub(crate) fn shell(&self, script: &str) -> Command {
        let mut command = self.command("sh");
        let folder = Path::new(STYXY).parent().expect("a program is in a folder");
        command.env("PATH", format!("{}:{PATH}", folder.display())).args(["-c", script]);
        command
    }

    /// Starts a daemon in the foreground and waits until it answers.
    #[track_caller]
    pub(crate) fn daemon(&self) -> Daemon {
        Daemon::start(self)
    }

    /// The same as [`NOBODY`], to whom the whole home is given. Needs root.
    #[track_caller]
    pub(crate) fn daemon_of_nobody(&self) -> Daemon {
        // Where the program was built, another user may not look.
        let program = self.path("styxy");
        fs::copy(STYXY, &program).expect("a copy of the program");
        let mut chown = Command::new("chown");
        chown.args(["--recursive", &format!("{NOBODY}:{NOBODY}")]).arg(self.path(""));
        finish(&mut chown).ok();
        let mut command = self.command(program);
        Daemon::spawn(self, &mut as_nobody(command.args(["daemon", "run"])))
    }

    /// The daemon's TCP address.
    pub(crate) fn tcp(&self) -> Address {
        Address::Tcp(self.daemon_port())
    }

    /// The daemon's unix socket.
    pub(crate) fn unix(&self) -> Address {
        Address::Unix(self.socket())
    }

    /// A connection to the daemon over TCP.
    #[track_caller]
    pub(crate) fn connect(&self) -> Connection {
        Connection::open(&self.tcp()).expect("the daemon listens on TCP")
    }

    /// Sends one request over TCP.
    #[track_caller]
    pub(crate) fn send(&self, request: &Request) -> Reply {
        let reply = self.connect().send(request);
        reply.unwrap_or_else(|error| panic!("no answer ({error}) to {request:#?}"))
    }

    /// `GET PATH` over TCP, where nobody may be there.
    pub(crate) fn try_get(&self, path: &str) -> io::Result<Reply> {
        Connection::open(&self.tcp())?.send(&Request::new("GET", path))
    }

    /// `GET PATH`.
    #[track_caller]
    pub(crate) fn get(&self, path: &str) -> Reply {
        self.send(&Request::new("GET", path))
    }

    /// `DELETE PATH`.
    #[track_caller]
    pub(crate) fn delete(&self, path: &str) -> Reply {
        self.send(&Request::new("DELETE", path))
    }

    /// `POST PATH` with a JSON body.
    #[track_caller]
    #[expect(clippy::needless_pass_by_value, reason = "callers write json!({…}) in place")]
    pub(crate) fn post(&self, path: &str, body: Value) -> Reply {
        self.send(&Request::json("POST", path, &body))
    }

    /// Allocates a `dev` port for the process `pid` by HTTP; the whole answer.
    #[track_caller]
    pub(crate) fn allocate_for(&self, pid: u32) -> Value {
        let body = json!({ "service_type": "dev", "process_id": pid });
        self.post("/allocate", body).expect(201)
    }

    /// All allocations, by port.
    #[track_caller]
    pub(crate) fn allocations(&self) -> Vec<Value> {
        let body = self.get("/allocations").expect(200);
        body["allocations"].as_array().expect("a list of allocations").clone()
    }

    /// The allocation of that lock id, if it lives.
    #[track_caller]
    pub(crate) fn allocation(&self, lock_id: &Value) -> Option<Value> {
        self.allocations().into_iter().find(|allocation| allocation["lock_id"] == *lock_id)
    }

    /// Starts `styxy run ARGS`, with its stdout to be read, and leaves it running.
    #[track_caller]
    pub(crate) fn run(&self, args: &[&str]) -> Running {
        let mut command = self.styxy_command(&["run"]);
        command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        Running::spawn(&mut command)
    }

    /// Waits for the allocation that a process owns, whether or not a daemon runs already.
    #[track_caller]
    pub(crate) fn allocation_of(&self, pid: u32) -> Value {
        eventually(PATIENCE, || {
            let reply = self.try_get("/allocations").map_err(|error| error.to_string())?;
            let body = reply.expect(200);
            let list = body["allocations"].as_array().expect("a list of allocations");
            let found = list.iter().find(|allocation| allocation["process_id"] == pid);
            found.cloned().ok_or_else(|| format!("{body:#}"))
        })
    }

    /// Waits until the allocation is in that state, and returns it.
    #[track_caller]
    pub(crate) fn becomes(&self, lock_id: &Value, state: &str) -> Value {
        eventually(PATIENCE, || match self.allocation(lock_id) {
            Some(allocation) if allocation["state"] == state => Ok(allocation),
            other => Err(format!("{other:#?}")),
        })
    }

    /// Waits until that process is known to listen on the allocation's port, and returns it.
    /// Who it is takes longer to find than that somebody listens.
    #[track_caller]
    pub(crate) fn listens(&self, lock_id: &Value, pid: u32) -> Value {
        eventually(PATIENCE, || match self.allocation(lock_id) {
            Some(allocation) if allocation["listener"]["pid"] == pid => {
                assert_eq!(allocation["state"], "listening", "{allocation:#}");
                Ok(allocation)
            }
            other => Err(format!("{other:#?}")),
        })
    }

    /// Waits until the allocation has ended.
    #[track_caller]
    pub(crate) fn ends_within(&self, limit: Duration, lock_id: &Value) {
        eventually(limit, || match self.allocation(lock_id) {
            None => Ok(()),
            Some(allocation) => Err(format!("{allocation:#}")),
        });
    }

    /// The living processes that this home's `styxy` program is.
    pub(crate) fn styxy_processes(&self) -> Vec<u32> {
        let program = fs::canonicalize(STYXY).expect("the program under test");
        let is_styxy = |pid: &u32| {
            fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|target| target == program)
        };
        self.processes().into_iter().filter(is_styxy).collect()
    }

    /// Kills a process that was started in this home, and waits for its end.
    #[track_caller]
    pub(crate) fn kill(&self, pid: u32) {
        eventually(PATIENCE, || {
            // In the middle of execve(2) it has no environment.
            kill_stray(pid, || self.started(pid));
            let has_ended = ends_within(pid, Duration::ZERO);
            if has_ended { Ok(()) } else { Err(format!("{pid} is not of this home")) }
        });
    }

    fn processes(&self) -> Vec<u32> {
        let entries = fs::read_dir("/proc").expect("/proc").flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        pids.filter(|&pid| self.started(pid)).collect()
    }

    /// Whether the process was started in this home: its environment says so.
    fn started(&self, pid: u32) -> bool {
        let ours = format!("HOME={}", self.path("home").display());
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|entry| entry == ours.as_bytes())
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        for pid in self.processes() {
            kill_stray(pid, || self.started(pid));
        }
    }
}
