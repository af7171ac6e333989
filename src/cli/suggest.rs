//! `styxy suggest`: ports that are free now.

use std::process::ExitCode;

use super::args::Suggest;
use super::context::Context;
use super::failure::Failed;
use super::output::url;
use crate::api::SuggestResponse;
use crate::coordinator::Call;

pub(super) fn run(context: &Context, args: &Suggest) -> Result<ExitCode, Failed> {
    let call = Call::Suggest(args.service_type.clone(), args.port, usize::from(args.count));
    let answer = context.ask(&call)?;
    context.answer(&answer, |found: SuggestResponse| {
        if args.port.is_some_and(|wish| !found.suggestions.contains(&wish)) {
            context.say(&format!("styxy: {}", found.message));
        }
        let line = |port: &u16| {
            if args.url { format!("{}\n", url(*port)) } else { format!("{port}\n") }
        };
        found.suggestions.iter().map(line).collect()
    })?;
    Ok(ExitCode::SUCCESS)
}
