//! What every command needs: where things are, the configuration, a way to ask, a way to answer.

use std::cell::OnceCell;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::args::Global;
use super::failure::{Exit, Failed};
use super::output::{self, printable};
use crate::client::fallback::Fallback;
use crate::client::{Autostart, Client, Failure};
use crate::config::{Config, Diagnostic};
use crate::coordinator::{Answer, Call};
use crate::paths::Paths;
use crate::project;

/// The surroundings of one command. Nothing is read before it is needed.
#[derive(Debug)]
pub(super) struct Context {
    /// The options that every command has.
    pub(super) global: Global,
    config: OnceCell<Config>,
}

impl Context {
    /// The surroundings of a command with these options.
    pub(super) fn new(global: Global) -> Self {
        Self { global, config: OnceCell::new() }
    }

    /// Where things are.
    ///
    /// # Errors
    ///
    /// [`Failure::Unreachable`]: without these places there is no way to a daemon.
    pub(super) fn paths() -> Result<Paths, Failure> {
        Paths::from_env().map_err(|reason| Failure::Unreachable { reason, holder: None })
    }

    /// The configuration. A wrong file is a warning, and the rest of it counts.
    pub(super) fn config(&self, paths: &Paths) -> &Config {
        self.config.get_or_init(|| {
            let (config, diagnostics) = Config::load(&paths.config_files);
            self.warn_of(&diagnostics);
            config
        })
    }

    /// The configuration, also where nobody can say where it is: then the built-in one counts.
    pub(super) fn settings(&self) -> &Config {
        if let Some(config) = self.config.get() {
            return config;
        }
        match Self::paths() {
            Ok(paths) => self.config(&paths),
            Err(_) => self.config.get_or_init(Config::built_in),
        }
    }

    /// What picks ports where there is neither a daemon nor a journal to write; what can be read of
    /// the journal counts.
    pub(super) fn fallback(&self) -> Fallback {
        let fallback = Fallback::new(self.settings());
        match Self::paths() {
            Ok(paths) => fallback.with_assignments(&paths.state_dir),
            Err(_) => fallback,
        }
    }

    /// Says the first fault of the configuration, and how to see the others.
    pub(super) fn warn_of(&self, diagnostics: &[Diagnostic]) {
        let mut faults = diagnostics.iter().filter(|diagnostic| !diagnostic.is_warning);
        let Some(first) = faults.next() else { return };
        let more = match faults.count() {
            0 => String::new(),
            count => format!(" (and {count} more: styxy config check)"),
        };
        self.say(&format!("warning: {}{more}", fault(first)));
    }

    /// Finds a daemon, starts one, or does without.
    ///
    /// # Errors
    ///
    /// [`Failure::Unreachable`].
    pub(super) fn connect(&self) -> Result<Client, Failure> {
        let wanted = std::env::var_os("STYXY_AUTOSTART").is_none_or(|value| value != "0");
        self.connect_with(if wanted { Autostart::Allowed } else { Autostart::JournalOnly })
    }

    /// Finds a daemon, and does what `autostart` says where there is none.
    ///
    /// # Errors
    ///
    /// [`Failure::Unreachable`].
    pub(super) fn connect_with(&self, autostart: Autostart) -> Result<Client, Failure> {
        let paths = Self::paths()?;
        Client::connect(&paths, self.config(&paths), autostart)
    }

    /// Asks one thing of a daemon that is found for it.
    ///
    /// # Errors
    ///
    /// Both kinds of [`Failure`].
    pub(super) fn ask(&self, call: &Call) -> Result<Answer, Failure> {
        self.connect()?.call(call)
    }

    /// Answers with the body as it is where JSON is wanted, else with what `words` makes of it.
    ///
    /// # Errors
    ///
    /// When the answer can't be read or written.
    pub(super) fn answer<T: DeserializeOwned>(
        &self,
        answer: &Answer,
        words: impl FnOnce(T) -> String,
    ) -> Result<(), Failed> {
        if self.global.json {
            return output::print_json(&answer.body);
        }
        output::print(&words(read(answer)?))
    }

    /// Says something besides the answer, on stderr; foreign text in it is made harmless.
    pub(super) fn say(&self, line: &str) {
        if !self.global.quiet {
            output::print_error_line(&printable(line));
        }
    }
}

/// A fault of a configuration file, with its place.
pub(super) fn fault(diagnostic: &Diagnostic) -> String {
    let Diagnostic { file, line, column, message, .. } = diagnostic;
    format!("{}:{line}:{column}: {message}", file.display())
}

/// Reads an answer.
///
/// # Errors
///
/// [`Failure::Unreachable`] for what is no answer of this interface.
pub(super) fn read<T: DeserializeOwned>(answer: &Answer) -> Result<T, Failure> {
    serde_json::from_str(&answer.body).map_err(|error| Failure::Unreachable {
        reason: format!("the daemon's answer can't be read: {error}"),
        holder: None,
    })
}

/// A part of an answer, as the wire has it.
///
/// # Errors
///
/// None in practice: the wire's types have no values that JSON lacks.
pub(super) fn to_json(part: &impl Serialize) -> Result<String, Failed> {
    serde_json::to_string(part).map_err(|error| Failed::new(Exit::No, error.to_string()))
}

/// The project of the working directory, if there is one.
///
/// The wire knows only UTF-8 paths (RFC 8259), so a project with another name counts as none.
pub(super) fn project_here() -> Option<String> {
    let directory = std::env::current_dir().ok()?;
    project::root_of(&directory)?.into_os_string().into_string().ok()
}

/// The instance that `STYXY_INSTANCE` names. An empty one is none.
pub(super) fn instance_here() -> Option<String> {
    std::env::var("STYXY_INSTANCE").ok().filter(|id| !id.is_empty())
}

/// The project that `--project` names, or else that of the working directory.
///
/// # Errors
///
/// When the directory that was named is none.
pub(super) fn project_at(directory: Option<&Path>) -> Result<Option<String>, Failed> {
    let Some(directory) = directory else { return Ok(project_here()) };
    let shown = directory.display();
    let wrong = |reason: &str| Failed::new(Exit::Usage, format!("--project {shown}: {reason}"));
    let path = directory.canonicalize().map_err(|error| wrong(&error.to_string()))?;
    if !path.is_dir() {
        return Err(wrong("not a directory"));
    }
    let path = path.into_os_string().into_string();
    path.map(Some).map_err(|_| wrong("its name is not UTF-8"))
}

/// Whose things a command may touch: this project's, or this instance's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Scope {
    /// The project of the working directory.
    pub(super) project: Option<String>,
    /// `--instance`, or `STYXY_INSTANCE`.
    pub(super) instance: Option<String>,
}

impl Scope {
    /// The scope of a command that was typed here.
    pub(super) fn here(instance: Option<&str>) -> Self {
        Self { project: project_here(), instance: instance.map(str::to_owned) }
    }

    /// Whether that allocation is in it.
    pub(super) fn has(&self, allocation: &crate::api::Allocation) -> bool {
        self.covers(allocation.project_path.as_deref(), allocation.instance_id.as_deref())
    }

    /// Whether what belongs to that project and instance is in it. What belongs to no project and
    /// to no instance may be touched from outside of any project.
    pub(super) fn covers(&self, project: Option<&str>, instance: Option<&str>) -> bool {
        match (&self.project, instance) {
            (_, Some(instance)) if self.instance.as_deref() == Some(instance) => true,
            (None, Some(_)) => false,
            _ => self.project.as_deref() == project,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::words::tests::web;
    use super::*;
    use crate::api::Allocation;

    #[test]
    fn a_scope_has_what_its_project_or_its_instance_made() {
        let scope = |project: Option<&str>, instance: Option<&str>| Scope {
            project: project.map(str::to_owned),
            instance: instance.map(str::to_owned),
        };
        let shop = Some("/home/ada/src/shop");
        let made_by = |project: Option<&str>, instance: Option<&str>| Allocation {
            project_path: project.map(str::to_owned),
            instance_id: instance.map(str::to_owned),
            ..web()
        };
        let table = [
            (scope(shop, None), made_by(shop, None), true),
            (scope(shop, None), made_by(shop, Some("a")), true),
            (scope(shop, None), made_by(Some("/srv"), None), false),
            (scope(shop, None), made_by(None, None), false),
            (scope(shop, Some("a")), made_by(Some("/srv"), Some("a")), true),
            (scope(shop, Some("a")), made_by(Some("/srv"), Some("b")), false),
            (scope(None, None), made_by(None, None), true),
            (scope(None, None), made_by(None, Some("a")), false),
            (scope(None, Some("a")), made_by(None, Some("a")), true),
            (scope(None, None), made_by(shop, None), false),
        ];
        for (scope, allocation, expected) in table {
            assert_eq!(scope.has(&allocation), expected, "{scope:?} {allocation:?}");
        }
    }

    #[test]
    fn a_project_that_was_named_must_be_a_directory() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("file");
        std::fs::write(&file, "").expect("a file");
        let link = directory.path().join("link");
        std::os::unix::fs::symlink(directory.path(), &link).expect("a link");

        let real = directory.path().canonicalize().expect("it exists");
        let found = project_at(Some(&link)).expect("a directory");
        assert_eq!(found.as_deref(), real.to_str());
        for wrong in [file, directory.path().join("missing")] {
            let failed = project_at(Some(&wrong)).expect_err("no directory");
            assert_eq!(failed.exit, Exit::Usage);
        }
    }
}
