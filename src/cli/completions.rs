//! `styxy completions`: what a shell completes.

use std::process::ExitCode;

use super::args::Completions;
use super::failure::{Exit, Failed};
use super::output;

pub(super) fn run(args: &Completions) -> Result<ExitCode, Failed> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut super::command(), "styxy", &mut script);
    let script = String::from_utf8(script);
    output::print(&script.map_err(|error| Failed::new(Exit::No, error.to_string()))?)?;
    Ok(ExitCode::SUCCESS)
}
