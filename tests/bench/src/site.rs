//! What is measured, and what it runs beside: daemons, owners, a crowd. All ends with its value.

use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;
use tempfile::TempDir;

use crate::http::Client;

/// How long a program may take to be there.
const PATIENCE: Duration = Duration::from_secs(60);

/// A process, killed and reaped when dropped.
#[derive(Debug)]
pub struct Running(pub Child);

impl Running {
    /// Starts it, silent.
    pub fn spawn(command: &mut Command) -> Self {
        command.stdin(Stdio::null()).stderr(Stdio::null());
        Self(command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}")))
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    /// SIGKILL. It is not reaped yet.
    pub fn kill(&mut self) {
        self.0.kill().expect("it is our own");
    }

    /// Waits for its end.
    pub fn reap(&mut self) {
        self.0.wait().expect("it is our own");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may be dead already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits for a condition.
#[track_caller]
pub fn until<T>(mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(met) = condition() {
            return met;
        }
        assert!(Instant::now() < deadline, "waited in vain");
        std::thread::sleep(Duration::from_micros(200));
    }
}

/// A port that is free now.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port()
}

/// A home of its own, and the daemon in it.
#[derive(Debug)]
pub struct Site {
    /// The daemon's address.
    pub port: u16,
    home: TempDir,
    program: PathBuf,
    daemon: Option<Running>,
}

impl Site {
    /// A home without a daemon. There is room for more than 10,000 allocations.
    pub fn new(program: &Path) -> Self {
        let home = TempDir::new().expect("a folder");
        for folder in ["run", "state", "config/styxy"] {
            std::fs::create_dir_all(home.path().join(folder)).expect("room");
        }
        let config = "[daemon]\noverflow = [10000, 32767]\n";
        std::fs::write(home.path().join("config/styxy/config.toml"), config).expect("room");
        Self { port: free_port(), home, program: program.to_owned(), daemon: None }
    }

    /// A home with a daemon that answers.
    pub fn started(program: &Path) -> Self {
        let mut site = Self::new(program);
        site.start();
        site
    }

    /// Starts the daemon. Answers how long it took until it answered.
    pub fn start(&mut self) -> Duration {
        let address = format!("127.0.0.1:{}", self.port);
        let mut command = self.command();
        command.args(["daemon", "run", "--listen", &address, "--socket"]).arg(self.socket());
        let start = Instant::now();
        self.daemon = Some(Running::spawn(command.stdout(Stdio::null())));
        let mut client = until(|| Client::new(&self.socket()).ok());
        client.ask("GET", "/status", "").accepted();
        start.elapsed()
    }

    /// Kills the daemon, without a chance to save anything.
    pub fn kill(&mut self) {
        self.daemon = None;
    }

    /// `styxy` in this home.
    pub fn command(&self) -> Command {
        self.within(&self.program)
    }

    /// A program in this home.
    pub fn within(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("STYXY_")) {
            command.env_remove(name);
        }
        for (name, folder) in
            [("XDG_RUNTIME_DIR", "run"), ("XDG_STATE_HOME", "state"), ("XDG_CONFIG_HOME", "config")]
        {
            command.env(name, self.home.path().join(folder));
        }
        command.env("HOME", self.home.path()).current_dir(self.home.path());
        command
    }

    /// Its unix socket.
    pub fn socket(&self) -> PathBuf {
        self.home.path().join("run/styxy/styxy.sock")
    }

    /// Its state's folder, below which the journal is.
    pub fn state(&self) -> PathBuf {
        self.home.path().join("state/styxy")
    }

    /// A connection to its daemon.
    pub fn client(&self) -> Client {
        Client::new(&self.socket()).expect("the daemon is there")
    }

    /// The daemon's process id.
    pub fn pid(&self) -> u32 {
        self.daemon.as_ref().expect("it was started").pid()
    }

    /// Makes allocations for owners in turn, and answers their ports.
    pub fn allocate(&self, count: usize, owners: &[Running]) -> Vec<u16> {
        let mut client = self.client();
        let ports = owners.iter().cycle().take(count).map(|owner| {
            let body = json!({"service_type": "dev", "process_id": owner.pid()}).to_string();
            let answer = client.ask("POST", "/allocate", &body).accepted().json();
            answer["port"].as_u64().and_then(|port| u16::try_from(port).ok()).expect("a port")
        });
        ports.collect()
    }

    /// Ends every allocation.
    pub fn clear(&self) {
        self.client().ask("POST", "/cleanup", r#"{"force":true}"#).accepted();
    }

    /// Its resident memory, in MiB (`VmRSS`, proc_pid_status(5)).
    pub fn memory(&self) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()));
        let status = status.expect("the daemon lives");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
        kib.and_then(|kib| kib.parse::<f64>().ok()).expect("a size") / 1024.0
    }

    /// The processor time that the daemon has used.
    pub fn processor_time(&self) -> Duration {
        processor_time(self.pid())
    }
}

/// The processor time that a process has used, with its threads that have ended: fields 14 and 15 of
/// /proc/PID/stat (proc_pid_stat(5)), in clock ticks.
pub fn processor_time(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("it lives");
    let (_, fields) = stat.rsplit_once(')').expect("a name");
    let ticks = fields.split_whitespace().skip(11).take(2).map(|field| field.parse::<u64>());
    let ticks: u64 = ticks.map(|ticks| ticks.expect("a number")).sum();
    Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second())
}

/// Living processes.
pub fn owners(count: usize) -> Vec<Running> {
    let sleep = || Running::spawn(Command::new("sleep").arg("infinity").stdout(Stdio::null()));
    (0..count).map(|_| sleep()).collect()
}

/// Processes that listen, together, on as many ports. They end with the value.
#[derive(Debug)]
pub struct Crowd(#[expect(dead_code, reason = "held for its end")] Vec<Running>);

/// The first port that a crowd listens on.
pub const CROWD_PORT: u16 = 20_000;

impl Crowd {
    /// Starts it and waits until all listen.
    pub fn gather(processes: usize, sockets: usize) -> Self {
        let own = std::env::current_exe().expect("a path");
        let mut port = CROWD_PORT;
        let mut members = Vec::new();
        for index in 0..processes {
            let share = sockets * (index + 1) / processes - sockets * index / processes;
            let mut command = Command::new(&own);
            command.args(["listen", &port.to_string(), &share.to_string()]);
            members.push(Running::spawn(command.stdout(Stdio::piped())));
            port += u16::try_from(share).expect("ports");
        }
        for member in &mut members {
            let ready = member.0.stdout.take().expect("a pipe");
            let mut line = String::new();
            BufReader::new(ready).read_line(&mut line).expect("a line");
            assert_eq!(line, "ready\n", "a member of the crowd could not listen");
        }
        Self(members)
    }
}

/// One of a crowd: listens on some ports until it is killed.
pub fn listen(port: u16, count: u16) {
    let listeners: Vec<_> =
        (port..port + count).map(|port| TcpListener::bind(("127.0.0.1", port))).collect();
    if listeners.iter().all(Result::is_ok) {
        println!("ready");
        loop {
            std::thread::park();
        }
    }
}
