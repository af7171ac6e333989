//! Real frameworks, installed once into the build directory, in the versions that stand beside this
//! file.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::support::{PATH, skip};

/// Where everything is installed. It outlives a test run.
const CACHE: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/frameworks");

/// What is installed from one list of versions.
#[derive(Debug, Clone, Copy)]
pub(super) struct Set {
    /// What its directory is called.
    name: &'static str,
    /// The versions.
    versions: &'static str,
    install: fn(&Path, &'static str),
}

pub(super) const NODE_BASIC: Set =
    Set { name: "node-basic", versions: include_str!("basic.package.json"), install: npm };
pub(super) const NODE_FULL: Set =
    Set { name: "node-full", versions: include_str!("full.package.json"), install: npm };
pub(super) const PYTHON_BASIC: Set =
    Set { name: "python-basic", versions: include_str!("basic.requirements.txt"), install: pip };
pub(super) const PYTHON_FULL: Set =
    Set { name: "python-full", versions: include_str!("full.requirements.txt"), install: pip };

impl Set {
    /// The directory where it is installed; `None`, and the test is skipped, on a machine that can't.
    pub(super) fn directory(self) -> Option<PathBuf> {
        let is_node = self.name.starts_with("node");
        let needs = if is_node { node_is_missing() } else { venv_is_missing() };
        if let Some(reason) = needs {
            skip(&reason);
            return None;
        }
        let place = Path::new(CACHE).join(self.name);
        fs::create_dir_all(&place).expect("a directory");
        // Other tests, and other test processes, wait for the one that installs it.
        let lock = File::create(place.join("lock")).expect("a file");
        lock.lock().expect("a lock");
        let done = place.join("done");
        if fs::read_to_string(&done).ok().as_deref() != Some(self.versions) {
            (self.install)(&place, self.versions);
            fs::write(&done, self.versions).expect("a file");
        }
        Some(place)
    }
}

fn node_is_missing() -> Option<String> {
    let Some(version) = answer(Command::new("node").arg("--version")) else {
        return Some("node is missing (Debian package nodejs)".to_owned());
    };
    if answer(Command::new("npm").arg("--version")).is_none() {
        return Some("npm is missing (Debian package npm)".to_owned());
    }
    let mut numbers = version.trim_start_matches('v').split('.').map_while(|it| it.parse().ok());
    let version: (u32, u32) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    (version < (20, 19)).then(|| format!("Vite 8 needs Node.js 20.19, this is {version:?}"))
}

fn venv_is_missing() -> Option<String> {
    let asked = answer(Command::new("python3").args(["-c", "import ensurepip, venv"]));
    asked.is_none().then(|| "python3 has no venv (Debian package python3-venv)".to_owned())
}

/// What a command of the tests' own PATH prints, if it succeeds.
fn answer(command: &mut Command) -> Option<String> {
    let output = command.env("PATH", PATH).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

fn npm(place: &Path, versions: &'static str) {
    fs::write(place.join("package.json"), versions).expect("a file");
    let mut npm = Command::new("npm");
    npm.args(["install", "--no-package-lock", "--ignore-scripts", "--no-audit", "--no-fund"]);
    run(npm.current_dir(place));
}

fn pip(place: &Path, versions: &'static str) {
    fs::write(place.join("requirements.txt"), versions).expect("a file");
    run(Command::new("python3").args(["-m", "venv", "--clear", "venv"]).current_dir(place));
    let mut pip = Command::new(place.join("venv/bin/pip"));
    pip.args(["install", "--quiet", "--no-deps", "--disable-pip-version-check"]);
    run(pip.args(["-r", "requirements.txt"]).current_dir(place));
}

/// Runs a step of an installation with the settings of whoever runs the tests.
fn run(command: &mut Command) {
    let output = command.env("PATH", PATH).stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
    let (stdout, stderr) = (&output.stdout, &output.stderr);
    let said = || [String::from_utf8_lossy(stdout), String::from_utf8_lossy(stderr)].concat();
    assert!(output.status.success(), "{command:?}: {}\n{}", output.status, said());
}
