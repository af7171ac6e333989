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

/// The port that `styxy.socket` listens on.
const PORT: u16 = 9876;

/// How long systemctl(1) may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// A running user manager that has the units.
#[derive(Debug)]
pub(super) struct Manager {
    /// Its `XDG_RUNTIME_DIR`.
    runtime_dir: PathBuf,
}

impl Manager {
    /// The user manager, if it runs and has `styxy.socket`. A few stat(2), no process.
    pub(super) fn find(paths: &Paths) -> Option<Self> {
        // `RUNTIME/styxy/styxy.sock`: also right where XDG_RUNTIME_DIR itself is not set.
        let runtime_dir = paths.socket.parent()?.parent()?.to_owned();
        let runs = runtime_dir.join("systemd/private").exists();
        (runs && unit_dirs(&runtime_dir).any(|dir| dir.join(SOCKETS[0]).exists()))
            .then_some(Self { runtime_dir })
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
        self.systemctl("start", &SOCKETS)
    }

    /// Stops sockets and service in one call: a service that is stopped alone comes back with the
    /// next client.
    ///
    /// # Errors
    ///
    /// A clause.
    pub(super) fn stop(&self) -> Result<(), String> {
        self.systemctl("stop", &[SOCKETS[0], SOCKETS[1], SERVICE])
    }

    /// Whether a socket listens or the service runs.
    pub(super) fn is_active(&self) -> bool {
        self.systemctl("is-active", &[SOCKETS[0], SOCKETS[1], SERVICE]).is_ok()
    }

    fn systemctl(&self, verb: &str, units: &[&str]) -> Result<(), String> {
        let said = |reason: String| format!("systemctl --user {verb}: {reason}");
        let mut child = Command::new("systemctl")
            .args(["--user", "--no-ask-password", verb])
            .args(units)
            .env("XDG_RUNTIME_DIR", &self.runtime_dir)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| said(error.to_string()))?;
        let ended = wait(&mut child, Instant::now() + PATIENCE);
        if !ended.map_err(|error| said(error.to_string()))? {
            return Err(said(format!("did not end within {} s", PATIENCE.as_secs())));
        }
        let output = child.wait_with_output().map_err(|error| said(error.to_string()))?;
        if output.status.success() {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&output.stderr);
        let first = text.lines().find(|line| !line.trim().is_empty());
        Err(said(first.map_or_else(|| output.status.to_string(), |line| line.trim().to_owned())))
    }
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
    fn units_are_not_started_for_a_client_that_looks_elsewhere() {
        let manager = Manager { runtime_dir: "/run/user/1".into() };
        let named = |place| manager.serves(&Lookup::Named(place));
        assert!(named(Endpoint::Tcp(([127, 0, 0, 1], 9876).into())));
        assert!(!named(Endpoint::Tcp(([127, 0, 0, 1], 9877).into())));
        assert!(named(Endpoint::Unix("/run/user/1/styxy/styxy.sock".into())));
        assert!(!named(Endpoint::Unix("/tmp/styxy.sock".into())));
    }
}
