//! `styxy config`: the configuration in force, what is wrong with it, and where it is.

use std::path::Path;
use std::process::ExitCode;

use serde_json::{Value, json};

use super::args;
use super::context::Context;
use super::failure::{Exit, Failed};
use super::here::Here;
use super::output::{self, View, printable};
use crate::config::{Config, Diagnostic};
use crate::paths::Paths;
use crate::project::SERVICES_FILE;

pub(super) fn run(context: &Context, args: &args::Config) -> Result<ExitCode, Failed> {
    let paths = Context::paths()?;
    match args {
        args::Config::Show => {
            let config = context.config(&paths);
            if context.global.json {
                output::print_json(&config.to_json().to_string())?;
            } else {
                output::print(&config.to_toml())?;
            }
            Ok(ExitCode::SUCCESS)
        }
        args::Config::Check => check(context, &paths),
        args::Config::Path => path(context, &paths).map(|()| ExitCode::SUCCESS),
    }
}

/// The file that counts: the first that exists.
fn file_in_force(paths: &Paths) -> Option<&Path> {
    paths.config_files.iter().find(|file| file.exists()).map(AsRef::as_ref)
}

fn check(context: &Context, paths: &Paths) -> Result<ExitCode, Failed> {
    let (config, mut diagnostics) = Config::load(&paths.config_files);
    let here = Here::now(&config);
    diagnostics.extend(here.diagnostics);
    let is_wrong = diagnostics.iter().any(|diagnostic| !diagnostic.is_warning);
    if context.global.json {
        let found: Vec<Value> = diagnostics.iter().map(diagnostic_json).collect();
        let body = json!({ "success": !is_wrong, "diagnostics": found });
        output::print_json(&body.to_string())?;
    } else {
        output::print(&diagnostics.iter().map(diagnostic_line).collect::<String>())?;
        if diagnostics.is_empty() {
            context.say(&match file_in_force(paths) {
                Some(file) => format!("styxy: {} is right", file.display()),
                None => "styxy: there is no configuration file: the built-in one counts".to_owned(),
            });
            if let Some(project) = here.project.filter(|_| !here.services.is_empty()) {
                let file = Path::new(&project).join(SERVICES_FILE);
                context.say(&format!("styxy: {} is right", file.display()));
            }
        }
    }
    Ok(ExitCode::from(if is_wrong { Exit::Config.code() } else { 0 }))
}

fn diagnostic_line(diagnostic: &Diagnostic) -> String {
    format!("{}\n", printable(&diagnostic.to_string()))
}

fn diagnostic_json(diagnostic: &Diagnostic) -> Value {
    json!({
        "file": diagnostic.file.to_string_lossy(),
        "line": diagnostic.line,
        "column": diagnostic.column,
        "severity": if diagnostic.is_warning { "warning" } else { "error" },
        "message": diagnostic.message,
    })
}

/// One path on stdout, so that an editor can be given it; the others are said besides.
fn path(context: &Context, paths: &Paths) -> Result<(), Failed> {
    let in_force = file_in_force(paths);
    let first = paths.config_files.first().map(AsRef::as_ref);
    let file = in_force.or(first);
    if context.global.json {
        let body = json!({
            "config": file.map(Path::to_string_lossy),
            "exists": in_force.is_some(),
            "config_files":
                paths.config_files.iter().map(|file| file.to_string_lossy()).collect::<Vec<_>>(),
            "state_dir": paths.state_dir.to_string_lossy(),
            "socket": paths.socket.to_string_lossy(),
        });
        return output::print_json(&body.to_string());
    }
    if in_force.is_none() {
        context.say("styxy: there is no such file yet: the built-in configuration counts");
    }
    let view = View::current();
    context.say(&format!("state   {}", view.path(&paths.state_dir.to_string_lossy())));
    context.say(&format!("socket  {}", view.path(&paths.socket.to_string_lossy())));
    output::print(&file.map(|file| format!("{}\n", file.display())).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_said_with_file_line_and_column() {
        let fault = Diagnostic {
            file: "/etc/styxy/config.toml".into(),
            line: 3,
            column: 7,
            message: "'x\x1b' is no port".to_owned(),
            is_warning: false,
        };
        assert_eq!(
            diagnostic_line(&fault),
            "/etc/styxy/config.toml:3:7: error: 'x\\u{1b}' is no port\n"
        );
    }
}
