//! The user's service manager, where it has Styxy's units.

use std::env;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::discover::{Endpoint, Lookup};
use super::pidfd;
use crate::paths::Paths;

/// The sockets that activate the service. Both are named wherever something is started or
/// stopped: one alone leaves the other as it was.
const SOCKETS: [&str; 2] = ["styxy.socket", "styxy-unix.socket"];

/// The service.
const SERVICE: &str = "styxy.service";

/// All of them.
const UNITS: [&str; 3] = [SOCKETS[0], SOCKETS[1], SERVICE];

/// What [`Unit`] is made of.
const PROPERTIES: &str =
    "--property=Id,LoadState,ActiveState,UnitFileState,Result,FragmentPath,Listen,MainPID";

/// The port that `styxy.socket` listens on.
const PORT: u16 = 9876;

/// How long systemctl(1) may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// A running user manager.
#[derive(Debug)]
pub(super) struct Manager {
    /// Its `XDG_RUNTIME_DIR`.
    runtime_dir: PathBuf,
}

/// What the manager says of one of the units (systemctl(1), `show`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unit {
    /// `styxy.socket`.
    pub name: String,
    /// `loaded`, `not-found`, `masked`, …
    pub load: String,
    /// `active`, `inactive`, `failed`, …
    pub active: String,
    /// `enabled`, `disabled`, `static`, …; empty where there is no file.
    pub file: String,
    /// `success`, or how it failed.
    pub result: String,
    /// The file that it was loaded from.
    pub fragment: PathBuf,
    /// The addresses of a socket unit: `127.0.0.1:9876`, `/run/user/1000/styxy/styxy.sock`.
    pub listen: Vec<String>,
    /// The process id of a service that runs.
    pub pid: Option<u32>,
}

impl Unit {
    /// Whether there is such a unit at all.
    pub fn is_found(&self) -> bool {
        self.load != "not-found"
    }

    /// Whether it listens or runs.
    pub fn is_active(&self) -> bool {
        self.active == "active"
    }

    /// Whether it is the daemon, and no socket.
    pub fn is_service(&self) -> bool {
        self.name == SERVICE
    }

    /// Whether it starts with the user's session.
    pub fn is_enabled(&self) -> bool {
        self.file == "enabled"
    }
}

impl Manager {
    /// The user manager, if it runs and has `styxy.socket`. A few stat(2), no process.
    pub(super) fn find(paths: &Paths) -> Option<Self> {
        let found = |manager: &Self| {
            unit_dirs(&manager.runtime_dir).any(|dir| dir.join(SOCKETS[0]).exists())
        };
        Self::running(paths).filter(found)
    }

    /// The user manager, if it runs. One stat(2).
    pub(super) fn running(paths: &Paths) -> Option<Self> {
        // `RUNTIME/styxy/styxy.sock`: also right where XDG_RUNTIME_DIR itself is not set.
        let runtime_dir = paths.socket.parent()?.parent()?.to_owned();
        runtime_dir.join("systemd/private").exists().then_some(Self { runtime_dir })
    }

    /// Whether the units listen where this client looks.
    pub(super) fn serves(&self, lookup: &Lookup) -> bool {
        match lookup {
            Lookup::Usual(_) => true,
            Lookup::Named(Endpoint::Tcp(address)) => *address == (Ipv4Addr::LOCALHOST, PORT).into(),
            Lookup::Named(Endpoint::Unix(path)) => {
                *path == self.runtime_dir.join("styxy/styxy.sock")
            }
        }
    }

    /// Starts the sockets.
    ///
    /// # Errors
    ///
    /// A clause. One socket may have started though the other could not.
    pub(super) fn start(&self) -> Result<(), String> {
        self.systemctl(&["start"], &SOCKETS).map(drop)
    }

    /// Starts the service anew. Its sockets stay, so that nobody is refused meanwhile.
    ///
    /// # Errors
    ///
    /// A clause.
    pub(super) fn restart(&self) -> Result<(), String> {
        self.systemctl(&["restart"], &[SERVICE]).map(drop)
    }

    /// Stops sockets and service in one call: a service that is stopped alone comes back with the
    /// next client.
    ///
    /// # Errors
    ///
    /// A clause.
    pub(super) fn stop(&self) -> Result<(), String> {
        self.systemctl(&["stop"], &UNITS).map(drop)
    }

    /// Stops those of the units, and keeps them from starting with the user's session.
    ///
    /// # Errors
    ///
    /// A clause.
    pub(super) fn retire(&self, units: &[&str]) -> Result<(), String> {
        self.systemctl(&["stop"], units)?;
        self.systemctl(&["disable"], units).map(drop)
    }

    /// Has the manager read the unit files again.
    ///
    /// # Errors
    ///
    /// A clause.
    pub(super) fn reload(&self) -> Result<(), String> {
        self.systemctl(&["daemon-reload"], &[]).map(drop)
    }

    /// Forgets that those units failed: else one that is gone stays on the list of failed ones.
    ///
    /// # Errors
    ///
    /// A clause, also when none of them is known.
    pub(super) fn forget_failures(&self, units: &[&str]) -> Result<(), String> {
        self.systemctl(&["reset-failed"], units).map(drop)
    }

    /// The two sockets and the service, as the manager sees them.
    ///
    /// # Errors
    ///
    /// A clause.
    pub(super) fn units(&self) -> Result<Vec<Unit>, String> {
        let said = self.systemctl(&["show", PROPERTIES], &UNITS)?;
        Ok(said.split("\n\n").map(unit).filter(|unit| !unit.name.is_empty()).collect())
    }

    /// Whether a socket listens or the service runs.
    pub(super) fn is_active(&self) -> bool {
        self.systemctl(&["is-active"], &UNITS).is_ok()
    }

    /// Whether both sockets listen.
    pub(super) fn listens(&self) -> bool {
        let is_fine = |unit: &Unit| unit.is_service() || unit.is_active();
        self.units().is_ok_and(|units| units.iter().all(is_fine))
    }

    /// What systemctl(1) prints for a verb and its options.
    fn systemctl(&self, verb: &[&str], units: &[&str]) -> Result<String, String> {
        let said = |reason: String| format!("systemctl --user {}: {reason}", verb[0]);
        let mut child = Command::new("systemctl")
            .args(["--user", "--no-ask-password"])
            .args(verb)
            .args(units)
            .env("XDG_RUNTIME_DIR", &self.runtime_dir)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| said(error.to_string()))?;
        let ended = wait(&mut child, Instant::now() + PATIENCE);
        if !ended.map_err(|error| said(error.to_string()))? {
            return Err(said(format!("did not end within {} s", PATIENCE.as_secs())));
        }
        let output = child.wait_with_output().map_err(|error| said(error.to_string()))?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let text = String::from_utf8_lossy(&output.stderr);
        let first = text.lines().find(|line| !line.trim().is_empty());
        Err(said(first.map_or_else(|| output.status.to_string(), |line| line.trim().to_owned())))
    }
}

/// One unit of `systemctl show`: a line `NAME=VALUE` for each property, in any order.
fn unit(said: &str) -> Unit {
    let mut unit = Unit::default();
    for (name, value) in said.lines().filter_map(|line| line.split_once('=')) {
        let text = || value.to_owned();
        match name {
            "Id" => unit.name = text(),
            "LoadState" => unit.load = text(),
            "ActiveState" => unit.active = text(),
            "UnitFileState" => unit.file = text(),
            "Result" => unit.result = text(),
            "FragmentPath" => unit.fragment = value.into(),
            // `127.0.0.1:9876 (Stream)`
            "Listen" => {
                unit.listen.extend(value.rsplit_once(" (").map(|(address, _)| address.to_owned()));
            }
            "MainPID" => unit.pid = value.parse().ok().filter(|pid| *pid != 0),
            _ => {}
        }
    }
    unit
}

/// Waits for `child`; ends it at the deadline and answers false.
fn wait(child: &mut Child, deadline: Instant) -> std::io::Result<bool> {
    if let Some(pidfd) = pidfd::open(child.id())?
        && !pidfd::wait(&pidfd, deadline)?
    {
        child.kill()?;
        child.wait()?;
        return Ok(false);
    }
    child.wait()?;
    Ok(true)
}

/// Where a user manager looks for units (systemd.unit(5), "Load path when running in user mode").
fn unit_dirs(runtime_dir: &Path) -> impl Iterator<Item = PathBuf> {
    let base = |variable: &str, default: &str| {
        let set = env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from);
        set.or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(default)))
    };
    let own = [base("XDG_CONFIG_HOME", ".config"), base("XDG_DATA_HOME", ".local/share")];
    let system =
        ["/etc", "/run", "/usr/local/lib", "/usr/lib", "/lib"].map(|dir| Some(PathBuf::from(dir)));
    let runtime = Some(runtime_dir.to_owned());
    own.into_iter().chain([runtime]).chain(system).flatten().map(|dir| dir.join("systemd/user"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn paths(runtime_dir: &Path) -> Paths {
        Paths {
            state_dir: runtime_dir.join("state"),
            socket: runtime_dir.join("styxy/styxy.sock"),
            config_files: Vec::new(),
        }
    }

    #[test]
    fn a_manager_counts_only_if_it_runs_and_has_the_units() -> std::io::Result<()> {
        let dir = tempfile::tempdir()?;
        let units = dir.path().join("systemd/user");
        fs::create_dir_all(&units)?;
        fs::write(units.join("styxy.socket"), "")?;
        assert!(Manager::find(&paths(dir.path())).is_none(), "no manager runs");
        fs::write(dir.path().join("systemd/private"), "")?;
        assert!(Manager::find(&paths(dir.path())).is_some());
        Ok(())
    }

    #[test]
    fn what_the_manager_says_is_read() {
        let said = "Listen=127.0.0.1:9876 (Stream)\nListen=/run/a b/s (Stream)\nResult=success\n\
                    Id=styxy.socket\nLoadState=loaded\nActiveState=active\n\
                    FragmentPath=/etc/systemd/user/styxy.socket\nUnitFileState=enabled\n";
        let expected = Unit {
            name: "styxy.socket".to_owned(),
            load: "loaded".to_owned(),
            active: "active".to_owned(),
            file: "enabled".to_owned(),
            result: "success".to_owned(),
            fragment: "/etc/systemd/user/styxy.socket".into(),
            listen: vec!["127.0.0.1:9876".to_owned(), "/run/a b/s".to_owned()],
            pid: None,
        };
        assert_eq!(unit(said), expected);
        assert!(expected.is_found() && expected.is_active() && expected.is_enabled());

        let service = unit("MainPID=0\nId=styxy.service\nLoadState=not-found\n");
        assert_eq!(service.pid, None);
        assert!(!service.is_found() && !service.is_active() && !service.is_enabled());
        assert_eq!(unit("MainPID=812\n").pid, Some(812));
    }

    #[test]
    fn units_are_not_started_for_a_client_that_looks_elsewhere() {
        let manager = Manager { runtime_dir: "/run/user/1".into() };
        let named = |place| manager.serves(&Lookup::Named(place));
        assert!(named(Endpoint::Tcp(([127, 0, 0, 1], 9876).into())));
        assert!(!named(Endpoint::Tcp(([127, 0, 0, 1], 9877).into())));
        assert!(named(Endpoint::Unix("/run/user/1/styxy/styxy.sock".into())));
        assert!(!named(Endpoint::Unix("/tmp/styxy.sock".into())));
    }
}
