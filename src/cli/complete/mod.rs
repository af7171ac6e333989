//! `styxy __complete`: what the completion scripts of the shells ask.
//!
//! A line for each candidate: the whole word, and behind a tab what it is. A line that begins with
//! a colon leaves it to the shell: `:file`, `:directory`, or `:command N` for the command line of
//! somebody else behind N words.
//!
//! It asks no daemon, so it starts none and waits for none: what is allocated is in the journal,
//! which is written before any answer. And it never complains in the middle of somebody's typing.

mod place;
mod values;

use std::process::ExitCode;

use clap::Command;

use self::place::{Own, Place};
use super::args::Complete;
use super::output::{self, printable};

/// A word that can stand there.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Candidate {
    word: String,
    help: String,
}

impl Candidate {
    fn new(word: impl Into<String>, help: impl Into<String>) -> Self {
        Self { word: word.into(), help: help.into() }
    }
}

/// What can stand in one place.
#[derive(Debug)]
enum Choice {
    Words(Vec<Candidate>),
    /// The shell knows it better: the line that says so.
    Shell(&'static str),
}

pub(super) fn run(args: &Complete) -> ExitCode {
    let mut words: Vec<String> =
        args.words.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    let last = words.pop().unwrap_or_default();
    let mut root = super::command();
    root.build();
    let lines = match place::find(&root, &words, &last) {
        Place::Foreign(before) => format!(":command {before}\n"),
        Place::Value { arg, prefix } => values::of(arg).lines(&prefix, &last[prefix.len()..]),
        Place::Own(own) => own.choice(&words, &last).lines("", &last),
    };
    // A shell that does not listen any more has no use for it.
    let _ = output::print(&lines);
    ExitCode::SUCCESS
}

impl Own<'_> {
    fn choice(&self, before: &[String], last: &str) -> Choice {
        if !self.escaped && last.starts_with('-') {
            return Choice::Words(options(self.command, before));
        }
        let mut candidates: Vec<Candidate> = Vec::new();
        match self.positional.map(values::of) {
            Some(Choice::Words(words)) => candidates.extend(words),
            Some(shell @ Choice::Shell(_)) => return shell,
            None => {}
        }
        candidates.retain(|candidate| !before.contains(&candidate.word));
        if !self.escaped {
            candidates.extend(commands(self.command));
        }
        // Where nothing else can stand, the options are what one may want to know.
        if candidates.is_empty() && last.is_empty() && !self.escaped {
            candidates = options(self.command, before);
        }
        Choice::Words(candidates)
    }
}

impl Choice {
    /// A line for each candidate that begins as `typed` does, with `prefix` before it.
    fn lines(self, prefix: &str, typed: &str) -> String {
        let mut lines = String::new();
        match self {
            Self::Shell(line) => lines.extend([line, "\n"]),
            Self::Words(candidates) => {
                for Candidate { word, help } in candidates {
                    // What would be two lines, or a line for the shell, cannot be completed.
                    let is_plain = !word.starts_with(':') && !word.contains(char::is_control);
                    if word.starts_with(typed) && is_plain {
                        lines.extend([prefix, &word, "\t", &printable(&help), "\n"]);
                    }
                }
            }
        }
        lines
    }
}

fn commands(command: &Command) -> impl Iterator<Item = Candidate> {
    let shown = command.get_subcommands().filter(|command| !command.is_hide_set());
    shown.map(|command| Candidate::new(command.get_name(), first_line(command.get_about())))
}

/// The options that can still be given.
fn options(command: &Command, before: &[String]) -> Vec<Candidate> {
    let mut candidates = Vec::new();
    for arg in command.get_arguments().filter(|arg| !arg.is_hide_set()) {
        let Some(long) = arg.get_long() else { continue };
        let (long, help) = (format!("--{long}"), first_line(arg.get_help()));
        let again = matches!(arg.get_action(), clap::ArgAction::Append | clap::ArgAction::Count);
        let short = arg.get_short().map(|short| format!("-{short}"));
        if again || !before.iter().any(|word| *word == long || short.as_ref() == Some(word)) {
            candidates.push(Candidate::new(long, help));
        }
    }
    candidates
}

fn first_line(text: Option<&clap::builder::StyledStr>) -> String {
    let text = text.map(ToString::to_string).unwrap_or_default();
    text.lines().next().unwrap_or_default().to_owned()
}
