//! A user of a machine, with a service manager.

use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use super::machine::Machine;
use crate::support::{Output, PATIENCE, eventually, finish};

/// Every unit of Styxy.
pub(super) const UNITS: [&str; 3] = ["styxy.socket", "styxy-unix.socket", "styxy.service"];

/// A user whose `systemd --user` runs, as after a login.
#[derive(Debug)]
pub(super) struct User<'a> {
    machine: &'a Machine,
    name: &'static str,
    id: u32,
    manager: Child,
}

impl<'a> User<'a> {
    #[track_caller]
    pub(super) fn log_in(machine: &'a Machine, (name, id): (&'static str, u32)) -> Self {
        // Where logind puts a user: the journal takes the names of units from it.
        let slice = machine.cgroup().join(format!("user.slice/user-{id}.slice"));
        let cgroup = slice.join(format!("user@{id}.service"));
        fs::create_dir_all(&cgroup).expect("a control group");
        for file in ["", "cgroup.procs", "cgroup.subtree_control", "cgroup.threads"] {
            chown(cgroup.join(file), Some(id), Some(id)).expect("root may give it away");
        }
        let runtime = machine.root(&format!("run/user/{id}"));
        fs::create_dir_all(&runtime).expect("a runtime directory");
        fs::set_permissions(&runtime, fs::Permissions::from_mode(0o700)).expect("it is ours");
        chown(&runtime, Some(id), Some(id)).expect("root may give it away");

        let log = File::create(machine.shared().join(format!("{name}.log"))).expect("a log");
        let join = format!(
            "echo 0 >/{}/cgroup.procs && exec \"$@\"",
            cgroup.strip_prefix(machine.root("")).expect("it is in there").display()
        );
        let manager = machine
            .command("sh")
            .args(["-c", &join, "sh"])
            .args(Self::become_user(machine, name, id))
            .args(["/lib/systemd/systemd", "--user"])
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a descriptor"))
            .stderr(log)
            .spawn()
            .expect("nsenter(1)");
        let user = Self { machine, name, id, manager };
        eventually(PATIENCE, || {
            let state = user.systemctl(&["is-system-running"]);
            let is_up = ["running", "degraded"].contains(&state.stdout.trim());
            is_up.then_some(()).ok_or_else(|| format!("{state:#?}"))
        });
        user
    }

    /// The words that make a command of root one of this user.
    fn become_user(machine: &Machine, name: &str, id: u32) -> Vec<String> {
        let home = machine.shared().join("home").join(name);
        let home = home.display();
        let words = format!(
            "setpriv --reuid {id} --regid {id} --clear-groups env --ignore-environment \
             --chdir={home} HOME={home} USER={name} LOGNAME={name} SHELL=/bin/sh LANG=C.UTF-8 \
             PATH=/usr/local/bin:/usr/bin:/bin XDG_RUNTIME_DIR=/run/user/{id}"
        );
        words.split_whitespace().map(str::to_owned).collect()
    }

    /// The user's id.
    pub(super) fn id(&self) -> u32 {
        self.id
    }

    /// A command of this user, in the home directory.
    pub(super) fn command(&self, program: &str) -> Command {
        let mut words = Self::become_user(self.machine, self.name, self.id);
        words.push(program.to_owned());
        let mut command = self.machine.command(&words[0]);
        command.args(&words[1..]);
        command
    }

    /// Runs `sh -c SCRIPT`.
    #[track_caller]
    pub(super) fn shell(&self, script: &str) -> Output {
        finish(self.command("sh").args(["-c", script]))
    }

    /// Runs `styxy ARGS`.
    #[track_caller]
    pub(super) fn styxy(&self, args: &[&str]) -> Output {
        finish(self.command("styxy").args(args))
    }

    /// The answer of `styxy ARGS --json`.
    #[track_caller]
    pub(super) fn ask(&self, args: &[&str]) -> Value {
        let output = finish(self.command("styxy").args(args).arg("--json"));
        serde_json::from_str(output.ok().text()).expect("JSON")
    }

    /// Runs `systemctl --user ARGS`.
    #[track_caller]
    pub(super) fn systemctl(&self, args: &[&str]) -> Output {
        finish(self.command("systemctl").args(["--user", "--no-pager"]).args(args))
    }

    /// `systemctl --user enable --now styxy.socket`, as the manual says.
    #[track_caller]
    pub(super) fn enable(&self) {
        self.systemctl(&["enable", "--now", "styxy.socket"]).ok();
    }

    /// A property of a unit.
    #[track_caller]
    pub(super) fn show(&self, unit: &str, property: &str) -> String {
        let property = format!("--property={property}");
        self.systemctl(&["show", "--value", &property, unit]).ok().text().to_owned()
    }

    /// Waits until a property of a unit has a value.
    #[track_caller]
    pub(super) fn becomes(&self, unit: &str, property: &str, value: &str) {
        eventually(PATIENCE, || {
            let now = self.show(unit, property);
            (now == value).then_some(()).ok_or_else(|| format!("{property} of {unit} is {now}"))
        });
    }

    /// The process id of the service in the machine; 0 when it does not run.
    #[track_caller]
    pub(super) fn service_pid(&self) -> u32 {
        self.show("styxy.service", "MainPID").parse().expect("a number")
    }

    /// Sends the service's main process a signal.
    #[track_caller]
    pub(super) fn signal_service(&self, signal: &str) {
        let pid = self.service_pid();
        assert_ne!(pid, 0, "it runs");
        self.shell(&format!("kill -{signal} {pid}")).ok();
    }

    /// Adds to a unit what `systemctl edit` would.
    #[track_caller]
    pub(super) fn edit(&self, unit: &str, text: &str) {
        let path = self.home(&format!(".config/systemd/user/{unit}.d/test.conf"));
        self.write(&path, text);
        self.systemctl(&["daemon-reload"]).ok();
    }

    /// Writes `config.toml`.
    #[track_caller]
    pub(super) fn configure(&self, text: &str) {
        self.write(&self.home(".config/styxy/config.toml"), text);
    }

    /// Writes a file of this user.
    #[track_caller]
    pub(super) fn write(&self, path: &Path, text: &str) {
        let script = "mkdir -p \"$(dirname \"$1\")\" && printf %s \"$2\" >\"$1\"";
        let mut command = self.command("sh");
        finish(command.args(["-c", script, "sh"]).arg(path).arg(text)).ok();
    }

    /// Something in the home directory.
    pub(super) fn home(&self, name: &str) -> PathBuf {
        self.machine.shared().join("home").join(self.name).join(name)
    }

    /// The processes of this user whose program is Styxy, as the machine numbers them.
    pub(super) fn styxy_processes(&self) -> Vec<u32> {
        let output = self.shell("pgrep -x -u $(id -u) styxy || true");
        output.ok().text().lines().map(|line| line.parse().expect("a pid")).collect()
    }

    /// Starts a command in a session of its own that lives as long as the machine, and answers its
    /// id.
    #[track_caller]
    pub(super) fn leave_running(&self, command: &str) -> u32 {
        let script = format!("setsid {command} >/dev/null 2>&1 & echo $!");
        self.shell(&script).ok().text().parse().expect("a pid")
    }

    /// Starts a process that listens on a port of 127.0.0.1.
    #[track_caller]
    pub(super) fn listener(&self, port: u16) -> u32 {
        let address = format!("(\"127.0.0.1\", {port})");
        self.leave_running(&format!(
            "python3 -c 'import socket, time; s = socket.create_server({address}); time.sleep(3600)'"
        ))
    }

    /// Has the daemon answer.
    #[track_caller]
    pub(super) fn wake(&self) {
        self.styxy(&["list"]).ok();
    }

    /// Starts a process that lives as long as the machine.
    #[track_caller]
    pub(super) fn owner(&self) -> u32 {
        self.leave_running("sleep 3600")
    }

    /// Allocates a port for each of some processes that live on, and answers the lock ids, sorted.
    #[track_caller]
    pub(super) fn allocate_for_owners(&self, count: usize) -> Vec<String> {
        let mut ids: Vec<String> = Vec::new();
        for _ in 0..count {
            let pid = self.owner();
            let answer = self.ask(&["allocate", "-s", "dev", "--pid", &pid.to_string()]);
            ids.push(answer["lock_id"].as_str().expect("a lock id").to_owned());
        }
        ids.sort();
        ids
    }

    /// The lock ids of all allocations, sorted.
    #[track_caller]
    pub(super) fn lock_ids(&self) -> Vec<String> {
        let list = self.ask(&["list"]);
        let list = list["allocations"].as_array().expect("a list");
        let id = |one: &Value| one["lock_id"].as_str().expect("a lock id").to_owned();
        let mut ids: Vec<String> = list.iter().map(id).collect();
        ids.sort();
        ids
    }
}

impl Drop for User<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.machine.shared().join(format!("{}.log", self.name));
            eprintln!("{}", fs::read_to_string(log).unwrap_or_default());
        }
        // The machine's end would end it too; as nsenter's child it is reaped here.
        drop(self.manager.kill());
        drop(self.manager.wait());
    }
}
