//! The first answer of an inactive service: from the connection to systemd's socket to the answer.
//!
//! A small machine of its own, as the tests have it, with a journal and one user's systemd; both
//! daemons have the unit that the packages install.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::Plan;
use crate::figures::{Bar, Row, Times};
use crate::site::until;

/// The user, whom no real one's id belongs to.
const USER: u32 = 61_001;

/// The contenders: their units' name, and where their sockets listen.
const CONTENDERS: [(&str, u16); 2] = [("styxy", 9876), ("noop", 9877)];

pub fn rows(plan: &Plan) -> Vec<Row> {
    if !rustix::process::geteuid().is_root() || !Path::new("/lib/systemd/systemd").exists() {
        assert!(std::env::var_os("CI").is_none(), "it needs root and systemd");
        eprintln!("activation: SKIPPED, it needs root and systemd");
        return Vec::new();
    }
    let machine = Machine::start(plan);
    for (name, _) in CONTENDERS {
        machine.systemctl(&["start", &format!("{name}.socket")]);
    }
    let mut times = [Times::new(), Times::new()];
    for _ in 0..plan.scaled(60) {
        for ((name, port), times) in CONTENDERS.iter().zip(&mut times) {
            // The socket stays.
            let service = format!("{name}.service");
            machine.systemctl(&["stop", &service]);
            times.push(machine.first_answer(*port));
        }
    }
    let [ours, theirs] = times;
    let shown =
        |times: &Times| format!("p50 {:.1} ms, p99 {:.1} ms", times.p50() / 1e3, times.p99() / 1e3);
    vec![Row {
        work: "first answer of an inactive systemd socket, against the no-op daemon".to_owned(),
        measured: format!("{}; no-op: {}", shown(&ours), shown(&theirs)),
        figure: ours.p50() / theirs.p50(),
        unit: " of the time",
        bar: Bar::AtMost(1.5),
    }]
}

/// `bench first PORT`: allocates a port over a new connection, and prints how many nanoseconds that
/// took.
pub fn first(port: u16) {
    let body = r#"{"service_type":"test"}"#;
    let request = format!(
        "POST /allocate HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    let start = Instant::now();
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("systemd listens");
    stream.write_all(request.as_bytes()).expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    let took = start.elapsed();
    assert!(answer.starts_with("HTTP/1.1 201 "), "{answer}");
    println!("{}", took.as_nanos());
}

/// A machine with a journal and this user's systemd. All of it ends with the value.
struct Machine {
    dir: TempDir,
    init: Child,
    pid: String,
    _manager: Child,
}

impl Machine {
    fn start(plan: &Plan) -> Self {
        let dir = prepare(plan).expect("room");
        let init = Path::new(env!("CARGO_MANIFEST_DIR")).join("../it/systemd/init.sh");
        let cgroup = format!("styxy-bench-{}", std::process::id());
        let mut init = Command::new("unshare")
            .args(["--mount", "--pid", "--net", "--fork", "--mount-proc", "--kill-child", "sh"])
            .args([&init, dir.path(), &plan.styxy])
            .arg(&cgroup)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare(1)");
        let mut line = String::new();
        let stdout = init.stdout.take().expect("it is piped");
        BufReader::new(stdout).read_line(&mut line).expect("it says something");
        assert_eq!(line, "started\n", "a machine of its own can't be had");
        let children = format!("/proc/{0}/task/{0}/children", init.id());
        let pid = fs::read_to_string(children).expect("it lives").trim().to_owned();
        let root = PathBuf::from(format!("/proc/{pid}/root"));
        until(|| root.join("run/systemd/journal/stdout").exists().then_some(()));
        // As after a login.
        let log_in = format!(
            "set -e; slice=/sys/fs/cgroup/{cgroup}/user.slice/user-{USER}.slice/user@{USER}.service; \
             mkdir -p $slice /run/user/{USER}; \
             chown {USER}:{USER} $slice $slice/cgroup.procs $slice/cgroup.subtree_control \
                 $slice/cgroup.threads /run/user/{USER}; \
             chmod 700 /run/user/{USER}; echo 0 >$slice/cgroup.procs; exec \"$@\""
        );
        let manager = enter(&pid)
            .args(["sh", "-c", &log_in, "sh"])
            .args(user_words(dir.path()))
            .args(["/lib/systemd/systemd", "--user"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("nsenter(1)");
        let machine = Self { dir, init, pid, _manager: manager };
        until(|| {
            let mut state = machine.user("systemctl");
            let state = state.args(["--user", "is-system-running"]).output().expect("it runs");
            let state = String::from_utf8_lossy(&state.stdout);
            ["running", "degraded"].contains(&state.trim()).then_some(())
        });
        machine
    }

    /// A command of the user.
    fn user(&self, program: &str) -> Command {
        let mut command = enter(&self.pid);
        command.args(user_words(self.dir.path())).arg(program).stdin(Stdio::null());
        command
    }

    fn systemctl(&self, arguments: &[&str]) {
        let mut command = self.user("systemctl");
        let output = command.arg("--user").args(arguments).output().expect("it runs");
        assert!(output.status.success(), "{arguments:?}: {output:?}");
    }

    fn first_answer(&self, port: u16) -> Duration {
        let mut command = self.user("styxy-bench");
        let output = command.args(["first", &port.to_string()]).output().expect("it runs");
        let said = String::from_utf8_lossy(&output.stdout);
        let nanoseconds = said.trim().parse();
        Duration::from_nanos(nanoseconds.unwrap_or_else(|_| panic!("port {port}: {output:?}")))
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // End of file is its sign to end; with it the kernel ends every process in it.
        drop(self.init.stdin.take());
        let _ = self.init.wait();
    }
}

fn enter(pid: &str) -> Command {
    let mut command = Command::new("nsenter");
    command.args(["--target", pid, "--mount", "--pid", "--net"]);
    command
}

/// The words that make a command of root one of the user.
fn user_words(dir: &Path) -> Vec<String> {
    let home = dir.join("home");
    let home = home.display();
    let words = format!(
        "setpriv --reuid {USER} --regid {USER} --clear-groups env --ignore-environment \
         --chdir={home} HOME={home} USER=ada LOGNAME=ada SHELL=/bin/sh LANG=C.UTF-8 \
         PATH=/usr/bin:/bin XDG_RUNTIME_DIR=/run/user/{USER}"
    );
    words.split_whitespace().map(str::to_owned).collect()
}

/// What the machine finds: programs, units, and its user.
fn prepare(plan: &Plan) -> std::io::Result<TempDir> {
    let dir = TempDir::new()?;
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o711))?;
    let path = |name: &str| dir.path().join(name);
    for name in ["bin", "units", "home"] {
        fs::create_dir(path(name))?;
    }
    chown(path("home"), Some(USER), Some(USER))?;
    // Where the program itself is put.
    fs::write(path("bin/styxy"), "")?;
    fs::copy(&plan.noop_daemon, path("bin/noop-daemon"))?;
    fs::copy(std::env::current_exe()?, path("bin/styxy-bench"))?;
    let units = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../systemd");
    for unit in ["styxy.socket", "styxy-unix.socket", "styxy.service"] {
        fs::copy(units.join(unit), path("units").join(unit))?;
    }
    let [_, (noop, port)] = CONTENDERS;
    let socket = format!("[Socket]\nListenStream=127.0.0.1:{port}\nTriggerLimitIntervalSec=0\n");
    fs::write(path(&format!("units/{noop}.socket")), socket)?;
    let service = fs::read_to_string(units.join("styxy.service"))?;
    let service = service
        .replace("Sockets=styxy.socket styxy-unix.socket", "Sockets=noop.socket")
        .replace("/usr/bin/styxy daemon run", "/usr/bin/noop-daemon 127.0.0.1:0 400");
    assert!(!service.contains("styxy.socket") && service.contains("noop-daemon"), "{service}");
    fs::write(path(&format!("units/{noop}.service")), service)?;
    let passwd = format!("ada:x:{USER}:{USER}::{}:/bin/sh\n", path("home").display());
    fs::write(path("passwd"), fs::read_to_string("/etc/passwd")? + &passwd)?;
    fs::write(path("group"), fs::read_to_string("/etc/group")? + &format!("ada:x:{USER}:\n"))?;
    Ok(dir)
}
