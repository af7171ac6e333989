//! What a person types.

mod allocate;
mod args;
mod assigned;
mod check;
mod cleanup;
mod complete;
mod completions;
mod config;
mod context;
mod daemon;
mod doctor;
mod env;
mod failure;
mod feed;
mod get;
mod here;
mod instance;
mod list;
mod output;
mod owner;
mod release;
mod run;
mod scan;
mod shell;
mod suggest;
mod wait;
mod watch;
mod words;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use args::{Cli, Command};
use context::Context;
use failure::Failed;

/// Parses the arguments, does what they say, and tells the exit code.
pub fn main() -> ExitCode {
    output::honour_force_color();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help that a pager has closed, or a usage error that nobody can read: no more to do.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let context = Context::new(cli.global);
    match dispatch(&context, cli.command) {
        Ok(code) => code,
        Err(failed) => {
            failed.report(context.global.json);
            ExitCode::from(failed.exit.code())
        }
    }
}

/// The command line as clap knows it, for man page and completions.
pub fn command() -> clap::Command {
    Cli::command()
}

fn dispatch(context: &Context, command: Command) -> Result<ExitCode, Failed> {
    match command {
        Command::Run(args) => run::run(context, &args),
        Command::Allocate(args) => allocate::run(context, &args),
        Command::Get(args) => get::run(context, &args),
        Command::Wait(args) => wait::run(context, &args),
        Command::Release(args) => release::run(context, &args),
        Command::Check(args) => check::run(context, &args),
        Command::Suggest(args) => suggest::run(context, &args),
        Command::List(args) => list::run(context, &args),
        Command::Watch(_) => watch::run(context),
        Command::Scan(args) => scan::run(context, &args),
        Command::Env(args) => env::run(context, &args),
        Command::Instance(args) => instance::run(context, args),
        Command::Cleanup(args) => cleanup::run(context, &args),
        Command::Daemon(args) => daemon::run(context, args),
        Command::Config(args) => config::run(context, &args),
        Command::Doctor => doctor::run(context),
        Command::Completions(args) => completions::run(&args),
        Command::Complete(args) => Ok(complete::run(&args)),
    }
}
