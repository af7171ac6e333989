//! A small machine of its own, with a real systemd for its users.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use tempfile::TempDir;

use super::user::User;
use crate::support::{Output, PATIENCE, Share, eventually, finish, in_network_of, is_root, skip};

/// The users that it has: name and id. No real user has such an id.
pub(super) const USERS: [(&str, u32); 2] = [("ada", 61_001), ("bob", 61_002)];

/// Mount, process and network namespaces with a journal and the units where a package puts them.
///
/// The port 9876 is its own. When this is dropped, or the tests are killed, every process in it is
/// gone, and every mount.
#[derive(Debug)]
pub(super) struct Machine {
    dir: TempDir,
    init: Child,
    /// Its first process, as this machine numbers it.
    pid: u32,
    /// The name of its control group.
    cgroup: String,
    _share: Share,
}

impl Machine {
    /// Starts it; `None` where that is not possible, which is said.
    pub(super) fn start() -> Option<Self> {
        match Self::try_start() {
            Ok(machine) => Some(machine),
            Err(reason) => {
                skip(&reason);
                None
            }
        }
    }

    fn try_start() -> Result<Self, String> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        if !is_root() {
            return Err("only root can make a machine".to_owned());
        }
        if !Path::new("/lib/systemd/systemd").exists() {
            return Err("systemd is missing".to_owned());
        }
        let share = Share::beside();
        let dir = prepare().map_err(|error| error.to_string())?;
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("styxy-test-{}-{number}", std::process::id());
        let mut init = Command::new("unshare")
            .args(["--mount", "--pid", "--net", "--fork", "--mount-proc", "--kill-child", "sh"])
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/systemd/init.sh"))
            .args([dir.path(), Path::new(env!("CARGO_BIN_EXE_styxy"))])
            .arg(&name)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("unshare(1): {error}"))?;
        let mut line = String::new();
        let stdout = init.stdout.take().expect("it is piped");
        BufReader::new(stdout).read_line(&mut line).map_err(|error| error.to_string())?;
        if line != "started\n" {
            let mut why = String::new();
            let mut stderr = init.stderr.take().expect("it is piped");
            stderr.read_to_string(&mut why).map_err(|error| error.to_string())?;
            init.wait().map_err(|error| error.to_string())?;
            return Err(format!("a machine of its own can't be had: {}", why.trim()));
        }
        let children = format!("/proc/{0}/task/{0}/children", init.id());
        let children = fs::read_to_string(children).map_err(|error| error.to_string())?;
        let pid = children.trim().parse().map_err(|_| format!("its init: {children:?}"))?;
        let machine = Self { dir, init, pid, cgroup: name, _share: share };
        eventually(PATIENCE, || {
            let journal = machine.root("run/systemd/journal/stdout");
            journal.exists().then_some(()).ok_or_else(|| "no journal yet".to_owned())
        });
        Ok(machine)
    }

    /// A path of its file system, as this machine finds it.
    pub(super) fn root(&self, path: &str) -> PathBuf {
        Path::new(&format!("/proc/{}/root", self.pid)).join(path)
    }

    /// A directory that it shares with this machine, by the same path.
    pub(super) fn shared(&self) -> &Path {
        self.dir.path()
    }

    /// The folder of its control group.
    pub(super) fn cgroup(&self) -> PathBuf {
        self.root("sys/fs/cgroup").join(&self.cgroup)
    }

    /// A command that root runs in it.
    pub(super) fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg("--target").arg(self.pid.to_string());
        command.args(["--mount", "--pid", "--net", program]);
        command
    }

    /// Runs a command in it as root.
    #[track_caller]
    pub(super) fn run(&self, program: &str, args: &[&str]) -> Output {
        finish(self.command(program).args(args))
    }

    /// Its first user, with a service manager that runs.
    #[track_caller]
    pub(super) fn ada(&self) -> User<'_> {
        User::log_in(self, USERS[0])
    }

    /// Its second user, with a service manager that runs.
    #[track_caller]
    pub(super) fn bob(&self) -> User<'_> {
        User::log_in(self, USERS[1])
    }

    /// Does `work` with its network as the network of the thread that does it.
    pub(super) fn in_network<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        in_network_of(self.pid, work)
    }

    /// What its journal has, a line each.
    pub(super) fn journal(&self) -> String {
        self.run("journalctl", &["--quiet", "--no-pager", "--output=short-monotonic"]).stdout
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.journal());
        }
        // Before its end nobody could remove what is in use, and after it nobody finds it here.
        let cgroups = fs::File::open(self.root("sys/fs/cgroup"));
        // End of file is its sign to end; with it the kernel ends every process in it.
        drop(self.init.stdin.take());
        if let Err(error) = self.init.wait() {
            eprintln!("a machine stays: {error}");
        }
        if let Ok(directory) = cgroups {
            use std::os::fd::AsRawFd as _;
            let directory = format!("/proc/self/fd/{}", directory.as_raw_fd());
            remove_tree(&Path::new(&directory).join(&self.cgroup));
        }
    }
}

/// Removes control groups: each an empty folder once its processes are gone.
fn remove_tree(cgroup: &Path) {
    let entries = fs::read_dir(cgroup).into_iter().flatten().flatten();
    for entry in entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        remove_tree(&entry.path());
    }
    if let Err(error) = fs::remove_dir(cgroup) {
        eprintln!("{}: {error}", cgroup.display());
    }
}

/// What the machine finds of this repository, and its users.
fn prepare() -> std::io::Result<TempDir> {
    let dir = tempfile::Builder::new().prefix("styxy-it-").tempdir()?;
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o711))?;
    let path = |name: &str| dir.path().join(name);
    for name in ["bin", "units", "home"] {
        fs::create_dir(path(name))?;
    }
    fs::write(path("bin/styxy"), "")?;
    let units = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd");
    for unit in fs::read_dir(units)? {
        let unit = unit?;
        fs::copy(unit.path(), path("units").join(unit.file_name()))?;
    }
    let mut passwd = fs::read_to_string("/etc/passwd")?;
    let mut group = fs::read_to_string("/etc/group")?;
    for (name, id) in USERS {
        let home = path("home").join(name);
        fs::create_dir(&home)?;
        chown(&home, Some(id), Some(id))?;
        passwd.extend([name, &format!(":x:{id}:{id}::{}:/bin/sh\n", home.display())]);
        group.extend([name, &format!(":x:{id}:\n")]);
    }
    fs::write(path("passwd"), passwd)?;
    fs::write(path("group"), group)?;
    Ok(dir)
}
