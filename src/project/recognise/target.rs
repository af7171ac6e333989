//! Where a command line leads: through wrappers, package managers and scripts, to a program.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::manager::{self, Call};
use super::package::Package;
use super::runtime::{self, Run};
use super::script::{self, Script};
use super::word::Word;
use super::wrapper;

/// Wrappers and scripts, one behind the other, before it is given up.
const DEEPEST: usize = 10;

/// What a command line runs in the end.
#[derive(Debug)]
pub(super) enum Target {
    /// A program that goes by its name.
    Program(Line),
    /// Code of the project, or a script that only a shell can read. The kind of code is that of its
    /// dependencies.
    OwnCode(Line, Option<&'static str>),
    /// Something in several packages at once, by what is named.
    Several(&'static str),
}

/// A command line, and the way to it.
#[derive(Debug)]
pub(super) struct Line {
    /// The program and its arguments.
    pub(super) words: Vec<Word>,
    /// `NAME=VALUE` before it.
    pub(super) assignments: Vec<Word>,
    /// Where it is started.
    pub(super) directory: PathBuf,
    /// The script that was named first, if it stands in one, and the manifest that has it.
    pub(super) script: Option<(String, &'static str)>,
    /// How many `--` have to stand before an argument, for it to get here.
    pub(super) separators: usize,
    /// Why an argument would not get here.
    pub(super) closed: Option<Closed>,
}

/// Why nothing can be added to a command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Closed {
    /// A script runs several commands.
    SeveralCommands,
    /// A `--` has ended the options.
    OptionsEnded,
    /// A `styxy run` of its own gives it a port.
    InnerRun,
}

/// Follows a command that was typed. `None` where it leads nowhere that is known.
pub(super) fn follow(words: &[OsString], directory: &Path, root: Option<&Path>) -> Option<Target> {
    let mut line = Line {
        words: Word::typed(words),
        assignments: Vec::new(),
        directory: directory.to_owned(),
        script: None,
        separators: 0,
        closed: None,
    };
    for _ in 0..DEEPEST {
        line.take_assignments();
        if let Some(behind) = wrapper::behind(&line.words) {
            line.words = behind.to_vec();
        } else if line.words.first()?.base() == "styxy" {
            line.enter_inner_run()?;
        } else if let Some(call) = manager::call(&line.words, &line.directory) {
            match line.enter(call, root)? {
                Step::Further => {}
                Step::OwnCode(kind) => return Some(Target::OwnCode(line, kind)),
                Step::Several(name) => return Some(Target::Several(name)),
            }
        } else {
            match runtime::run(&line.words) {
                Some(Run::OwnCode(kind)) => return Some(Target::OwnCode(line, Some(kind))),
                Some(Run::Program(words)) => line.words = words,
                Some(Run::Nothing) => return None,
                None => {}
            }
            return Some(Target::Program(line.closed_by_arguments()));
        }
    }
    None
}

/// Where a package manager leads.
enum Step {
    Further,
    OwnCode(Option<&'static str>),
    Several(&'static str),
}

impl Line {
    fn take_assignments(&mut self) {
        let count = self.words.iter().take_while(|word| word.is_assignment()).count();
        self.assignments.extend(self.words.drain(..count));
    }

    /// `styxy run … -- COMMAND` inside of a script.
    fn enter_inner_run(&mut self) -> Option<()> {
        let end = self.words.iter().position(|word| word.text == "--")?;
        self.words.drain(..=end);
        self.closed = Some(Closed::InnerRun);
        Some(())
    }

    /// Goes where a package manager leads.
    fn enter(&mut self, call: Call, root: Option<&Path>) -> Option<Step> {
        match call {
            Call::Elsewhere => None,
            Call::Several(name) => Some(Step::Several(name)),
            Call::Program { words, needs_separator } => {
                self.words = words;
                self.separators += usize::from(needs_separator);
                Some(Step::Further)
            }
            Call::Script { manifest, name, arguments, directory, needs_separator, or_program } => {
                self.separators += usize::from(needs_separator);
                let package = Package::nearest(manifest, &directory, root);
                self.directory = directory;
                match package.and_then(|package| Some((package.script(&name.text)?, package))) {
                    Some((script, package)) => {
                        self.script.get_or_insert((name.text, manifest));
                        self.directory = package.directory;
                        Some(self.enter_script(&script, arguments))
                    }
                    None if !or_program => None,
                    None if runtime::is_javascript(&name.text) => Some(Step::OwnCode(Some("npm"))),
                    None => {
                        self.words = [vec![name], arguments].concat();
                        Some(Step::Further)
                    }
                }
            }
        }
    }

    fn enter_script(&mut self, script: &str, arguments: Vec<Word>) -> Step {
        let words = match script::read(script) {
            Script::Opaque => return Step::OwnCode(None),
            Script::One(words) => words,
            Script::Last(words, place) => {
                self.closed.get_or_insert(Closed::SeveralCommands);
                self.directory.extend(place);
                words
            }
        };
        self.words = [Word::written(words), arguments].concat();
        Step::Further
    }

    fn closed_by_arguments(mut self) -> Self {
        if self.words.iter().any(|word| word.text == "--") {
            self.closed.get_or_insert(Closed::OptionsEnded);
        }
        self
    }
}
