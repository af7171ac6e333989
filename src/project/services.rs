//! `styxy.toml`: the services that a project names.

mod parse;

use std::path::{Path, PathBuf};

use super::port_variable_of;
use crate::config::{Config, Diagnostic, read_file};

/// The file at a project's root.
pub const FILE: &str = "styxy.toml";

/// The services of one project, in the order of its file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Services(Vec<Service>);

/// One service of a project.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Its name within the project.
    pub name: String,
    /// A service type of the configuration.
    pub service_type: String,
    /// Where its requests come from: a directory below the root, relative to it.
    pub dir: Option<PathBuf>,
    /// The port that it has in the main worktree, where nobody else has that.
    pub port: Option<u16>,
    /// The variable that carries its port.
    pub variable: String,
}

impl Service {
    /// A service that is known by its name alone.
    pub fn new(name: &str, service_type: &str) -> Self {
        Self {
            name: name.to_owned(),
            service_type: service_type.to_owned(),
            dir: None,
            port: None,
            variable: port_variable_of(name),
        }
    }
}

impl Services {
    /// Reads the `styxy.toml` at `root`. It never fails: what is wrong is left out and reported, and
    /// where there is no such file there are no services. `config` says which types there are.
    pub fn read(root: &Path, config: &Config) -> (Self, Vec<Diagnostic>) {
        let file = root.join(FILE);
        match read_file(&file) {
            Ok(Some(text)) => Self::parse(&file, &text, config),
            Ok(None) => (Self::default(), Vec::new()),
            Err(diagnostic) => (Self::default(), vec![diagnostic]),
        }
    }

    /// Reads the text of a `styxy.toml`. The diagnostics are in the order of the text.
    pub fn parse(file: &Path, text: &str, config: &Config) -> (Self, Vec<Diagnostic>) {
        let (services, diagnostics) = parse::parse(file, text, config);
        (Self(services), diagnostics)
    }

    /// All of them.
    pub fn all(&self) -> &[Service] {
        &self.0
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The service of that name.
    pub fn named(&self, name: &str) -> Option<&Service> {
        self.0.iter().find(|service| service.name == name)
    }

    /// The service whose directory has `directory`, a path relative to the root: of several the
    /// deepest, and then the first of the file. With `service_type` only those of that type.
    pub fn of_directory(&self, directory: &Path, service_type: Option<&str>) -> Option<&Service> {
        let is_wanted = |service: &&Service| {
            service_type.is_none_or(|wanted| service.service_type == wanted)
                && service.dir.as_ref().is_some_and(|dir| directory.starts_with(dir))
        };
        let depth = |service: &Service| service.dir.as_ref().map_or(0, |dir| dir.iter().count());
        // max_by_key answers the last of equals.
        self.0.iter().rev().filter(is_wanted).max_by_key(|service| depth(service))
    }
}

impl FromIterator<Service> for Services {
    fn from_iter<I: IntoIterator<Item = Service>>(services: I) -> Self {
        Self(services.into_iter().collect())
    }
}

#[cfg(test)]
mod tests;
