//! The values that there are now, for an argument whose value name says of what kind they are.

use std::path::Path;

use clap::Arg;

use super::super::context::{Scope, instance_here};
use super::super::output::View;
use super::super::words;
use super::{Candidate, Choice};
use crate::config::Config;
use crate::detect::process;
use crate::paths::Paths;
use crate::project::Services;
use crate::registry::{Allocation, Policy, Registry, Service};
use crate::store;

/// What `arg` can be.
pub(super) fn of(arg: &Arg) -> Choice {
    let possible = arg.get_possible_values();
    if !possible.is_empty() {
        let shown = possible.iter().filter(|value| !value.is_hide_set());
        return Choice::Words(shown.map(|value| Candidate::new(value.get_name(), "")).collect());
    }
    let kind = arg.get_value_names().and_then(|names| names.first());
    Choice::Words(match kind.map_or("", |name| name.as_str()) {
        "TYPE" => Known::read().types(),
        "NAME" => Known::read().names(),
        "NAME|PORT|LOCK_ID" => Known::read().targets(),
        // The port of an option is one that nobody has yet.
        "PORT" if arg.is_positional() => Known::read().ports(|_| true),
        "ID" => Known::read().instances(),
        "DIR" => return Choice::Shell(":directory"),
        "PATH" | "FILE" => return Choice::Shell(":file"),
        _ => Vec::new(),
    })
}

/// The configuration and the list, as they stand now.
struct Known {
    config: Config,
    registry: Registry,
    /// What styxy.toml says.
    services: Services,
    scope: Scope,
    view: View,
}

impl Known {
    /// Reads what there is. What cannot be read is nothing to choose from.
    fn read() -> Self {
        let paths = Paths::from_env().ok();
        let (config, _) = Config::load(paths.as_ref().map_or(&[], |paths| &paths.config_files));
        let mut registry = Registry::new(Policy::new(&config, []));
        if let (Some(paths), Ok(boot_id)) = (&paths, process::boot_id()) {
            let changes = store::peek_in_boot(&paths.state_dir, &boot_id).unwrap_or_default();
            for change in changes {
                registry.replay(change);
            }
        }
        let scope = Scope::here(instance_here().as_deref());
        let root = scope.project.as_deref().map(Path::new);
        let services = root.map(|root| Services::read(root, &config).0).unwrap_or_default();
        Self { config, registry, services, scope, view: View::current() }
    }

    /// The service types, and the services of styxy.toml, which name their type too.
    fn types(&self) -> Vec<Candidate> {
        let types = self.config.services.iter();
        let types = types.map(|(name, service)| Candidate::new(name, &service.description));
        let services = self.declared().into_iter();
        services.filter(|one| !self.config.services.contains_key(&one.word)).chain(types).collect()
    }

    /// The services of styxy.toml.
    fn declared(&self) -> Vec<Candidate> {
        let help = |kind: &str| format!("{kind}, of styxy.toml");
        let services = self.services.all().iter();
        services.map(|one| Candidate::new(&one.name, help(&one.service_type))).collect()
    }

    /// The services of this project: those of styxy.toml, those that run, and those that ran.
    fn names(&self) -> Vec<Candidate> {
        let mut names = self.declared();
        let mut add = |name: &str, help: String| {
            if names.iter().all(|known| known.word != name) {
                names.push(Candidate::new(name, help));
            }
        };
        for allocation in self.registry.allocations().filter(|one| self.is_here(one)) {
            if let Some(name) = &allocation.service_name {
                add(name, format!("{}, port {}", allocation.service_type, allocation.port));
            }
        }
        for assignment in self.registry.assignments() {
            if let Service::Named(name) = &assignment.key.service
                && self.scope.project.as_ref() == Some(&assignment.key.project_path)
            {
                let (kind, port) = (&assignment.service_type, assignment.port);
                add(name, format!("{kind}, port {port}, not running"));
            }
        }
        names
    }

    /// What names an allocation: a name or a port of this project, and any lock id.
    fn targets(&self) -> Vec<Candidate> {
        let lock_ids = self.registry.allocations().map(|allocation| {
            let help = format!("port {}, {}", allocation.port, self.describe(allocation));
            Candidate::new(allocation.lock_id.to_string(), help)
        });
        let mut targets = self.names();
        targets.extend(self.ports(|allocation| self.is_here(allocation)));
        targets.extend(lock_ids);
        targets
    }

    /// The ports of those allocations.
    fn ports(&self, which: impl Fn(&Allocation) -> bool) -> Vec<Candidate> {
        let mut allocations: Vec<&Allocation> =
            self.registry.allocations().filter(|allocation| which(allocation)).collect();
        allocations.sort_by_key(|allocation| allocation.port);
        let port = |one: &&Allocation| Candidate::new(one.port.to_string(), self.describe(one));
        allocations.iter().map(port).collect()
    }

    fn instances(&self) -> Vec<Candidate> {
        let directory = |path: &String| self.view.path(path);
        let instances = self.registry.instances().map(|instance| {
            let help = instance.working_directory.as_ref().map(directory);
            Candidate::new(&instance.instance_id, help.unwrap_or_default())
        });
        instances.collect()
    }

    fn is_here(&self, allocation: &Allocation) -> bool {
        let project = allocation.project_path.as_deref();
        self.scope.covers(project, allocation.instance_id.as_deref())
    }

    fn describe(&self, allocation: &Allocation) -> String {
        let name = allocation.service_name.as_deref();
        let service = words::service(&allocation.service_type, name);
        match &allocation.project_path {
            Some(project) => format!("{service} in {}", self.view.path(project)),
            None => service,
        }
    }
}
