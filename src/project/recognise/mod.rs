//! What a command or a directory is: which program runs there, of which service type its servers
//! are, and how it is told its port.
//!
//! The program that the command line names comes first, then the one in the package script that it
//! runs. Only where that is code of the project itself do dependencies and marker files count. What
//! is known of each program stands in one table, `programs.txt`.

mod evidence;
mod files;
mod hand_over;
mod manager;
mod manifests;
mod orchestrator;
mod package;
mod runtime;
mod script;
mod table;
mod target;
#[cfg(test)]
mod tests;
mod word;
mod wrapper;

use std::ffi::OsString;
use std::path::Path;

use evidence::{Evidence, Found};
pub use hand_over::HandOver;
use hand_over::Way;
use table::{Program, started_by};
use target::{Line, Target, follow};

/// What a command or directory was recognised as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recognised {
    program: Program,
    why: String,
    way: Way,
    /// It starts more programs than the one that is told its port.
    has_more: bool,
}

impl Recognised {
    /// Arguments are for a program that a command line names; code of the project reads variables.
    fn by_evidence(Found { program, why }: Found) -> Self {
        Self { program, why, way: Way::Variables, has_more: false }
    }

    /// Whether it starts several programs, with a `PORT` for each. Theirs are other ports than this
    /// one, but for the first.
    pub fn starts_row(&self) -> bool {
        self.program.starts_row()
    }

    /// A built-in service type.
    pub fn service_type(&self) -> &'static str {
        self.program.service_type
    }

    /// The program, as people call it.
    pub fn program(&self) -> &'static str {
        self.program.name
    }

    /// Why, in words: `script 'dev' of package.json runs vite`. They may have foreign text in them.
    pub fn why(&self) -> &str {
        &self.why
    }

    /// The port that the program takes when nobody tells it another.
    pub fn default_port(&self) -> Option<u16> {
        self.program.default_port
    }
}

/// What a command runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Runs {
    /// A program with one server, perhaps.
    Program(Recognised),
    /// A program of that name, which starts several services. They must not share one `PORT`.
    Several(&'static str),
}

/// What that command, started in `directory`, runs. Nothing above `root`, the project's, is read;
/// without a project nothing above `directory`.
pub fn of_command(words: &[OsString], directory: &Path, root: Option<&Path>) -> Option<Runs> {
    match follow(words, directory, root)? {
        Target::Several(name) => Some(Runs::Several(name)),
        Target::Program(line) => match orchestrator::named(&line.words) {
            Some(name) => Some(Runs::Several(name)),
            None => of_program(&line).map(Runs::Program),
        },
        Target::OwnCode(line, kind) => {
            let package = evidence::package(&line.directory, root)?;
            let found = Evidence::of(&package).find(kind)?;
            Some(Runs::Program(Recognised::by_evidence(found)))
        }
    }
}

/// What is worked on in `directory`: what its script `dev` or `start` runs, else what its
/// dependencies and marker files tell.
pub fn of_directory(directory: &Path, root: Option<&Path>) -> Option<Recognised> {
    let package = evidence::package(directory, root)?;
    let found = Evidence::of(&package).find(None);
    let has_backend = found
        .as_ref()
        .is_some_and(|found| found.program.dependencies().any(|(kind, _)| kind != "npm"));
    // A package that depends on many tools says by its scripts which of them serves; a back end's
    // package.json is about its assets.
    let scripts = if has_backend { &[][..] } else { &["dev", "start"] };
    let by_script = scripts.iter().find_map(|script| {
        match follow(&["npm", "run", script].map(OsString::from), &package, Some(&package))? {
            Target::Program(line) => of_program(&line),
            Target::OwnCode(..) | Target::Several(_) => None,
        }
    });
    by_script.or_else(|| found.map(Recognised::by_evidence))
}

fn of_program(line: &Line) -> Option<Recognised> {
    let (name, arguments) = line.words.split_first()?;
    let name = name.base();
    let arguments: Vec<_> = arguments.iter().map(|word| word.text.as_str()).collect();
    let program = started_by(name, &arguments)?;
    let why = match &line.script {
        Some((script, manifest)) => format!("script '{script}' of {manifest} runs {name}"),
        None => format!("the command runs {name}"),
    };
    let has_more = program.starts_row() && orchestrator::has_many(&line.directory);
    Some(Recognised { program, why, way: Way::of(program, line), has_more })
}
