//! `styxy cleanup`: releases what nothing holds any more, or with `--force` what lives.

use std::process::ExitCode;

use super::args::Cleanup;
use super::context::{Context, Scope};
use super::failure::{Exit, Failed};
use super::output::printable;
use super::words;
use crate::api::{CleanupRequest, CleanupResponse};
use crate::coordinator::Call;

pub(super) fn run(context: &Context, args: &Cleanup) -> Result<ExitCode, Failed> {
    let request = request(args, || Scope::here(args.instance.id()))?;
    let answer = context.ask(&Call::Cleanup(request))?;
    context.answer(&answer, |cleaned: CleanupResponse| {
        context.say(&format!("styxy: {}", cleaned.message));
        let verb = if args.dry_run { "would release" } else { "released" };
        let released = cleaned.released.iter();
        let line = |one| format!("{verb} {}\n", of(one));
        released.map(line).collect::<String>()
    })?;
    Ok(ExitCode::SUCCESS)
}

/// A port and what it was for.
fn of(allocation: &crate::api::Allocation) -> String {
    format!("{} ({})", allocation.port, words::service_of(allocation))
}

/// What to ask for. `--force` touches one instance or one project, unless `--all` is said.
fn request(args: &Cleanup, scope: impl FnOnce() -> Scope) -> Result<CleanupRequest, Failed> {
    let request =
        CleanupRequest { force: args.force, dry_run: args.dry_run, ..CleanupRequest::default() };
    if !args.force || args.all {
        return Ok(request);
    }
    match scope() {
        // The narrower one: the other instances in this project are not this one's to end.
        Scope { instance: Some(instance), .. } => {
            Ok(CleanupRequest { instance_id: Some(instance), ..request })
        }
        Scope { project: Some(project), .. } => {
            Ok(CleanupRequest { project_path: Some(project), ..request })
        }
        Scope { project: None, instance: None } => {
            let fact = "cleanup --force: the working directory is in no project";
            let next =
                "cleanup --force in the project's directory, or --force --all for everything";
            Err(Failed::new(Exit::Usage, fact).next(printable(next)))
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::args::{Cli, Command, Deferred};
    use super::*;

    /// An empty instance in place of whatever `STYXY_INSTANCE` the tests run with.
    fn asked(
        line: &[&str],
        instance: &str,
        project: Option<&str>,
    ) -> Result<CleanupRequest, Failed> {
        let line = [&["styxy", "cleanup", "--instance", instance], line].concat();
        let cli = Cli::try_parse_from(line).expect("it parses");
        let Command::Cleanup(Deferred(args)) = cli.command else { panic!("{:?}", cli.command) };
        let instance = args.instance.id().map(str::to_owned);
        request(&args, || Scope { project: project.map(str::to_owned), instance })
    }

    #[test]
    fn force_touches_one_instance_or_one_project_unless_all_is_said() {
        let shop = Some("/src/shop");
        let parts = |line: &[&str], instance: &str| {
            let request = asked(line, instance, shop).expect("a request");
            (request.force, request.project_path, request.instance_id)
        };
        assert_eq!(parts(&[], ""), (false, None, None));
        assert_eq!(parts(&["--force"], ""), (true, shop.map(str::to_owned), None));
        assert_eq!(parts(&["--force"], "a"), (true, None, Some("a".to_owned())));
        assert_eq!(parts(&["--force", "--all"], "a"), (true, None, None));
    }

    #[test]
    fn force_outside_of_a_project_is_wrong_usage() {
        let failed = asked(&["--force"], "", None).expect_err("refused");
        assert_eq!(failed.exit, Exit::Usage);
    }
}
