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

use clap::CommandFactory;

use args::{Cli, Command, Deferred};
use context::Context;
use failure::Failed;

/// Parses the arguments, does what they say, and tells the exit code.
pub fn main() -> ExitCode {
    output::honour_force_color();
    let line: Vec<_> = std::env::args_os().collect();
    let cli = match Cli::of(&line) {
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
        Command::Run(Deferred(args)) => run::run(context, &args),
        Command::Allocate(Deferred(args)) => allocate::run(context, &args),
        Command::Get(Deferred(args)) => get::run(context, &args),
        Command::Wait(Deferred(args)) => wait::run(context, &args),
        Command::Release(Deferred(args)) => release::run(context, &args),
        Command::Check(Deferred(args)) => check::run(context, &args),
        Command::Suggest(Deferred(args)) => suggest::run(context, &args),
        Command::List(Deferred(args)) => list::run(context, &args),
        Command::Watch(Deferred(_)) => watch::run(context),
        Command::Scan(Deferred(args)) => scan::run(context, &args),
        Command::Env(Deferred(args)) => env::run(context, &args),
        Command::Instance(Deferred(args)) => instance::run(context, args),
        Command::Cleanup(Deferred(args)) => cleanup::run(context, &args),
        Command::Daemon(Deferred(args)) => daemon::run(context, args),
        Command::Config(Deferred(args)) => config::run(context, &args),
        Command::Doctor => doctor::run(context),
        Command::Completions(Deferred(args)) => completions::run(&args),
        Command::Complete(Deferred(args)) => Ok(complete::run(&args)),
    }
}
