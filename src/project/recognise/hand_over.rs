//! How a program is told its port.

use std::ffi::OsString;

use super::Recognised;
use super::table::Program;
use super::target::{Closed, Line};
use super::word::Word;

/// A command that was told its port.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HandOver {
    /// The command, with what was added.
    pub words: Vec<OsString>,
    /// What to set in its environment; `PORT` is there too where the program reads it.
    pub variables: Vec<(&'static str, String)>,
    /// What a person should know of it, in a sentence. It may have foreign text in it.
    pub said: Option<String>,
}

/// How this command line lets its program be told a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Way {
    /// By variables.
    Variables,
    /// By arguments at the end, behind that many `--`, and by variables besides.
    Arguments { separators: usize, instead_of: Option<String> },
    /// By no means: it has a port already. The script says so, or else whoever typed the command.
    HasPort { said: String, port: Option<u16>, script: Option<String> },
    /// By no means: that file alone gives it its ports.
    InFile(&'static str),
    /// By no means: an argument would not get there.
    Closed { reason: Closed, script: Option<String> },
    /// It need not be told, or can't be.
    Nothing,
}

impl Way {
    /// How the program at the end of that line is told its port.
    pub(super) fn of(program: Program, line: &Line) -> Self {
        if let Some(file) = program.file_of_ports() {
            return Self::InFile(file);
        }
        let script = line.script.as_ref().map(|(name, _)| name.clone());
        let has_arguments = program.arguments().next().is_some();
        let arguments = |instead_of| Self::Arguments { separators: line.separators, instead_of };
        match given_port(program, line) {
            Some(given) if given.follows => Self::Nothing,
            Some(Given { text: said, typed, .. }) => {
                let beaten = !typed && has_arguments && line.closed.is_none();
                if beaten && (program.last_option_counts() || !said.starts_with('-')) {
                    return arguments(Some(said));
                }
                let port = port_in(&said);
                Self::HasPort { said, port, script: script.filter(|_| !typed) }
            }
            None if program.reads_variable() => Self::Variables,
            None if !has_arguments => Self::Nothing,
            None => match line.closed {
                None => arguments(None),
                Some(Closed::InnerRun) => Self::Nothing,
                Some(reason) => Self::Closed { reason, script },
            },
        }
    }
}

/// A port that a command line gives its program already.
struct Given {
    /// The words that do.
    text: String,
    /// Whether they were typed.
    typed: bool,
    /// Whether they follow what is set: `{port}`, or a variable.
    follows: bool,
}

fn given_port(program: Program, line: &Line) -> Option<Given> {
    let arguments = line.words.get(1..).unwrap_or_default();
    let marked = arguments.iter().find(|word| word.text.contains("{port}"));
    let given = || (0..arguments.len()).rev().find_map(|at| given_by(program, &arguments[at..]));
    let assigned = || line.assignments.iter().find(|word| assigns_port(program, &word.text));
    marked.map(Given::by).or_else(given).or_else(|| assigned().map(Given::by))
}

/// The port that the first of these arguments gives, perhaps with the next one as its value.
fn given_by(program: Program, arguments: &[Word]) -> Option<Given> {
    let (word, behind) = arguments.split_first()?;
    if word.is_option() {
        let (option, _) = word.text.split_once('=').unwrap_or((&word.text, ""));
        let is_whole = option.len() < word.text.len();
        let has_value_within = option.strip_prefix("-p").is_some_and(is_number);
        if !has_value_within && !program.is_port_option(option) {
            return None;
        }
        let value = behind.first().filter(|_| !is_whole && !has_value_within);
        let value = value.map(|value| format!(" {}", value.text)).unwrap_or_default();
        return Some(Given::by(&Word { text: word.text.clone() + &value, ..*word }));
    }
    (program.takes_bare_port() && is_bare_port(&word.text)).then(|| Given::by(word))
}

/// Whether it sets the variable that the program reads its port from.
fn assigns_port(program: Program, assignment: &str) -> bool {
    let name = assignment.split('=').next();
    let mut variables = program.variables().filter(|(_, value)| value.contains("{port}"));
    variables.any(|(variable, _)| Some(variable) == name)
}

impl Given {
    fn by(word: &Word) -> Self {
        let follows = word.text.contains("{port}") || word.text.contains('$');
        Self { text: word.text.clone(), typed: word.typed, follows }
    }
}

/// `8000`, `127.0.0.1:8000`
fn is_bare_port(text: &str) -> bool {
    is_number(text.rsplit(':').next().unwrap_or(text))
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// The port in what gives one: its last number.
fn port_in(text: &str) -> Option<u16> {
    let number = text.rsplit(|letter: char| !letter.is_ascii_digit()).next()?;
    number.parse().ok().filter(|port| *port != 0)
}

impl Recognised {
    /// The port that the command takes whatever it is told, where its words say so.
    pub fn given_port(&self) -> Option<u16> {
        match self.way {
            Way::HasPort { port, .. } => port,
            _ => None,
        }
    }

    /// The command as it has to be started for that port. `words` are those that were recognised.
    pub fn hand_over(&self, words: &[OsString], port: u16) -> HandOver {
        let mut told = self.hand_over_alone(words, port);
        if self.has_more {
            let more = "of the Procfile's programs only the first one's PORT is kept".to_owned();
            told.said = Some(match told.said {
                Some(said) => format!("{said}; {more}"),
                None => more,
            });
        }
        told
    }

    fn hand_over_alone(&self, words: &[OsString], port: u16) -> HandOver {
        let mut words = words.to_vec();
        let filled = |text: &str| text.replace("{port}", &port.to_string());
        let variables = || {
            self.program.variables().map(|(name, value)| (name, filled(value))).collect::<Vec<_>>()
        };
        let name = self.program.name;
        match &self.way {
            Way::Nothing => HandOver { words, ..HandOver::default() },
            Way::Variables => {
                let variables = variables();
                let set = variables.iter().filter(|(name, _)| *name != "PORT");
                let set: Vec<_> = set.map(|(name, value)| format!("{name}={value}")).collect();
                let said = (!set.is_empty()).then(|| format!("{} set for {name}", set.join(" ")));
                HandOver { words, variables, said }
            }
            Way::Arguments { separators, instead_of } => {
                let arguments = self.program.arguments().map(filled);
                let added: Vec<_> =
                    std::iter::repeat_n("--".to_owned(), *separators).chain(arguments).collect();
                let mut said = format!("{} added for {name}", added.join(" "));
                if let Some(given) = instead_of {
                    said = format!("{said}, instead of its script's {given}");
                }
                words.extend(added.into_iter().map(OsString::from));
                HandOver { words, variables: variables(), said: Some(said) }
            }
            Way::HasPort { port: given, .. } if *given == Some(port) => {
                HandOver { words, ..HandOver::default() }
            }
            Way::HasPort { said, script, .. } => {
                let who = match script {
                    Some(script) => format!("script '{script}'"),
                    None => "the command".to_owned(),
                };
                let said = format!("{who} gives {name} another port: {said}");
                HandOver { words, variables: Vec::new(), said: Some(said) }
            }
            Way::InFile(file) => {
                let said = format!(
                    "{name} is not told its port: its ports are in {file}, and a second one has \
                     the same"
                );
                HandOver { words, variables: Vec::new(), said: Some(said) }
            }
            Way::Closed { reason, script } => {
                let said =
                    format!("{name} is not told its port: {}", reason.in_words(script.as_deref()));
                HandOver { words, variables: variables(), said: Some(said) }
            }
        }
    }
}

impl Closed {
    fn in_words(self, script: Option<&str>) -> String {
        match (self, script) {
            (Self::SeveralCommands, Some(script)) => {
                format!("script '{script}' is several commands")
            }
            (Self::SeveralCommands, None) => "there are several commands".to_owned(),
            (Self::OptionsEnded, _) => "a -- ends the options".to_owned(),
            (Self::InnerRun, _) => "a styxy run within does that".to_owned(),
        }
    }
}
