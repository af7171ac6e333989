//! Where a command was typed: the project, the services that it names, and which of them is meant.

use std::path::{Path, PathBuf};

use super::context::{Context, project_at};
use super::failure::{Exit, Failed};
use crate::config::{Config, Diagnostic};
use crate::project::{self, Services};

/// Where a command was typed.
#[derive(Debug, Default)]
pub(super) struct Here {
    /// The working directory, or the one that `--project` names, without symlinks.
    pub(super) directory: PathBuf,
    /// The project's root, as the wire has it.
    pub(super) project: Option<String>,
    /// The services of its styxy.toml.
    pub(super) services: Services,
    /// What is wrong in that file.
    pub(super) diagnostics: Vec<Diagnostic>,
}

/// The service that a command means.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Meant {
    /// Its type, where it was typed or stands in styxy.toml.
    pub(super) service_type: Option<String>,
    /// Its name.
    pub(super) name: Option<String>,
    /// Somebody typed the name. One that the directory says is only what the service is called.
    pub(super) is_named: bool,
}

impl Here {
    /// The working directory.
    pub(super) fn now(config: &Config) -> Self {
        Self::of(super::context::project_here(), config)
    }

    /// The directory that `--project` names, or else the working directory.
    ///
    /// # Errors
    ///
    /// When the directory that was named is none.
    pub(super) fn at(directory: Option<&Path>, config: &Config) -> Result<Self, Failed> {
        let project = project_at(directory)?;
        let here = Self::of(project, config);
        Ok(match directory {
            // Whoever names the project from elsewhere is in none of its directories.
            Some(_) => Self { directory: PathBuf::new(), ..here },
            None => here,
        })
    }

    fn of(project: Option<String>, config: &Config) -> Self {
        // The kernel tells the working directory without symlinks (getcwd(2)).
        let directory = std::env::current_dir().unwrap_or_default();
        let read = project.as_deref().map(|root| Services::read(Path::new(root), config));
        let (services, diagnostics) = read.unwrap_or_default();
        Self { directory, project, services, diagnostics }
    }

    /// Says the first mistake of styxy.toml; what is right in it counts.
    pub(super) fn warn(&self, context: &Context) {
        context.warn_of(&self.diagnostics);
    }

    /// Whether this is a linked worktree, which leaves the ports of styxy.toml to the main one.
    pub(super) fn is_linked(&self) -> bool {
        self.project.as_deref().is_some_and(|root| project::is_linked(Path::new(root)))
    }

    /// The ports of styxy.toml that are not for the service `name`. In a linked worktree none is for
    /// any: whoever comes first there must not have what is the main one's.
    pub(super) fn ports_of_others(&self, name: Option<&str>) -> Vec<u16> {
        let services = self.services.all();
        if services.iter().all(|service| service.port.is_none()) {
            return Vec::new();
        }
        let own = name.filter(|_| !self.is_linked());
        let others = services.iter().filter(|service| Some(service.name.as_str()) != own);
        others.filter_map(|service| service.port).collect()
    }

    /// The service that `-s` and `-n` mean: `-s` takes a service type, and a word that is none but a
    /// service of styxy.toml names that. Where no name was typed, the directory may say it.
    pub(super) fn meant(
        &self,
        service: Option<&str>,
        name: Option<&str>,
        config: &Config,
    ) -> Meant {
        let declared = |name| self.services.named(name).map(|it| it.service_type.clone());
        let typed = |service_type: Option<String>, name: &str| Meant {
            service_type,
            name: Some(name.to_owned()),
            is_named: true,
        };
        match (service, name) {
            (service, Some(name)) => {
                typed(service.map(str::to_owned).or_else(|| declared(name)), name)
            }
            (Some(word), None) if !config.services.contains_key(word) => match declared(word) {
                Some(service_type) => typed(Some(service_type), word),
                None => Meant { service_type: Some(word.to_owned()), ..Meant::default() },
            },
            (service, None) => self.of_directory(service),
        }
    }

    /// The service whose `dir` has the working directory.
    fn of_directory(&self, service_type: Option<&str>) -> Meant {
        let relative =
            self.project.as_ref().and_then(|root| self.directory.strip_prefix(root).ok());
        let found = relative.and_then(|it| self.services.of_directory(it, service_type));
        Meant {
            service_type: found.map(|it| it.service_type.as_str()).or(service_type).map(Into::into),
            name: found.map(|it| it.name.clone()),
            is_named: false,
        }
    }

    /// What a command without a name is called that works in a package of its own below the root:
    /// by that package's directory, so that each of a monorepo's has its own port again. What else
    /// than `dev` runs there is told apart by its type, and a test run needs no port again.
    pub(super) fn package_name(&self, service_type: &str) -> Option<String> {
        let root = Path::new(self.project.as_deref()?);
        let package = project::package_of(&self.directory, root)?.to_str()?;
        match service_type {
            "test" => None,
            "dev" => Some(package.to_owned()),
            other => Some(format!("{package}:{other}")),
        }
    }

    /// The project, for a command that works on its services.
    ///
    /// # Errors
    ///
    /// [`Exit::Usage`] outside of any.
    pub(super) fn project_or_fail(&self) -> Result<&str, Failed> {
        let fact = "the working directory is in no project: no git worktree, and no styxy.toml, \
                    package.json or the like";
        self.project.as_deref().ok_or_else(|| Failed::new(Exit::Usage, fact).next("git init"))
    }
}
