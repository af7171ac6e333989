//! The services of a project: the same ports in every shell, of every worktree its own, after
//! anything.

mod env;
mod monorepo;
mod run;
mod worktrees;

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::support::{Home, Output};

/// Three services, one with a port of its own.
pub(super) fn styxy_toml(home: &Home, port: u16) -> String {
    assert!((home.dev_range().0..=home.dev_range().1).contains(&port), "one of this home's");
    format!(
        "[services.web]\nport = {port}\ndir = \"apps/web\"\n\n[services.api]\ntype = \"api\"\n\n\
         [services.docs]\nenv = \"DOCS\"\n"
    )
}

/// Makes a project of `directory` that names its services.
#[track_caller]
pub(super) fn name_services(directory: &Path, text: &str) {
    fs::write(directory.join("styxy.toml"), text).expect("a project");
}

/// The variables that `styxy env --json` prints.
#[track_caller]
pub(super) fn variables(home: &Home, directory: &Path) -> Value {
    home.styxy_in(directory, &["env", "--json"]).ok().json()["variables"].clone()
}

/// Runs git as nobody in particular.
#[track_caller]
pub(super) fn git(home: &Home, directory: &Path, arguments: &[&str]) -> Output {
    let mut command = home.command("git");
    command.current_dir(directory).env("GIT_CONFIG_SYSTEM", "/dev/null");
    command.args(["-c", "user.name=Ann", "-c", "user.email=ann@example.org"]).args(arguments);
    crate::support::finish(&mut command).ok()
}
