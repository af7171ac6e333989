//! `styxy completions`: what a shell completes.

use std::process::ExitCode;

use clap_complete::Shell;

use super::args::Completions;
use super::failure::{Exit, Failed};
use super::output;

/// The scripts that a package installs. They ask `styxy __complete`, and so know live values.
const BASH: &str = include_str!("../../packaging/completions/styxy.bash");
const FISH: &str = include_str!("../../packaging/completions/styxy.fish");
const ZSH: &str = include_str!("../../packaging/completions/_styxy");

pub(super) fn run(args: &Completions) -> Result<ExitCode, Failed> {
    match args.shell {
        Shell::Bash => output::print(BASH)?,
        Shell::Fish => output::print(FISH)?,
        Shell::Zsh => output::print(ZSH)?,
        other => output::print(&generated(other)?)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The script for a shell that no package installs one for: commands and options, no values.
fn generated(shell: Shell) -> Result<String, Failed> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut super::command(), "styxy", &mut script);
    String::from_utf8(script).map_err(|error| Failed::new(Exit::No, error.to_string()))
}
