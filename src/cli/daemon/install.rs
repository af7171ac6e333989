//! `styxy daemon install|uninstall`: the units of one user, without a package.

use std::path::{Path, PathBuf};

use serde_json::json;

use crate::cli::context::Context;
use crate::cli::failure::{Exit, Failed};
use crate::cli::output::{self, View, printable};
use crate::client::install::{self, Error};

/// What makes the sockets listen, now and after each login.
const ENABLE: &str = "systemctl --user enable --now styxy.socket";

pub(super) fn install(context: &Context) -> Result<(), Failed> {
    let installed = install::install(&Context::paths()?).map_err(|error| failed(&error))?;
    // A service that runs is still the program of before.
    let next = if installed.is_active { "styxy daemon restart" } else { ENABLE };
    if context.global.json {
        let body = json!({
            "success": true,
            "files": names(&installed.files),
            "program": installed.program.to_string_lossy(),
            "next": next,
        });
        return output::print_json(&body.to_string());
    }
    output::print(&lines(&installed.files))?;
    let program = View::current().path(&installed.program.to_string_lossy());
    context.say(&format!("styxy: these units start {program}; the next command is"));
    context.say(&format!("  {next}"));
    Ok(())
}

pub(super) fn uninstall(context: &Context) -> Result<(), Failed> {
    let removed = install::uninstall(&Context::paths()?).map_err(|error| failed(&error))?;
    if context.global.json {
        let body = json!({ "success": true, "files": names(&removed) });
        return output::print_json(&body.to_string());
    }
    context.say(if removed.is_empty() {
        "styxy: there are no units that `styxy daemon install` wrote"
    } else {
        "styxy: sockets and service are stopped and disabled, and these units are removed"
    });
    output::print(&lines(&removed))
}

fn names(files: &[PathBuf]) -> Vec<String> {
    files.iter().map(|file| file.to_string_lossy().into_owned()).collect()
}

fn lines(files: &[PathBuf]) -> String {
    names(files).iter().flat_map(|name| [printable(name), "\n".into()]).collect()
}

fn failed(error: &Error) -> Failed {
    let name = |path: &Path| path.display().to_string();
    let (exit, next) = match error {
        Error::NoManager => (
            Exit::Unreachable,
            Some("nothing: any command starts a daemon in the background".to_owned()),
        ),
        Error::NotOurs(path) => (Exit::No, Some(format!("mv {0} {0}.before", name(path)))),
        Error::Changed(path) => {
            // What a unit is changed with instead survives the next installation.
            let unit = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let next = format!("rm {}    (systemctl --user edit {unit} keeps changes)", name(path));
            (Exit::No, Some(next))
        }
        Error::NotUsed { .. } => (Exit::No, Some("styxy daemon uninstall".to_owned())),
        Error::Systemctl(_) => (Exit::Unreachable, Some("styxy doctor".to_owned())),
        Error::NoPlace | Error::Program(_) | Error::File { .. } => (Exit::No, None),
    };
    let failed = Failed::new(exit, error.to_string());
    match next {
        Some(next) => failed.next(next),
        None => failed,
    }
}
