//! Programs that start several services.

use std::path::Path;

use super::files;
use super::word::Word;

/// A program, one of its arguments where not all of its commands start services, and what it is
/// called.
///
/// foreman, honcho and overmind are in the table of programs: they give each service a `PORT` of its
/// own, and are told the first.
const ORCHESTRATORS: &[(&str, &str, &str)] = &[
    ("concurrently", "", "concurrently"),
    ("conc", "", "concurrently"),
    ("docker", "compose", "docker compose"),
    ("docker-compose", "", "docker compose"),
    ("lerna", "run", "lerna"),
    ("lerna", "exec", "lerna"),
    ("moon", "run", "moon"),
    ("mprocs", "", "mprocs"),
    ("npm-run-all", "", "npm-run-all"),
    ("npm-run-all2", "", "npm-run-all"),
    ("nx", "run-many", "nx"),
    ("nx", "affected", "nx"),
    ("podman", "compose", "podman compose"),
    ("podman-compose", "", "podman compose"),
    ("process-compose", "", "process-compose"),
    ("run-p", "", "npm-run-all"),
    ("skaffold", "dev", "skaffold"),
    ("tilt", "up", "tilt"),
    ("turbo", "", "turbo"),
];

/// What the program at the front of these words is called, if it starts several services.
pub(super) fn named(words: &[Word]) -> Option<&'static str> {
    let (name, arguments) = words.split_first()?;
    let is_it = |(program, argument, _): &&(&str, &str, &str)| {
        *program == name.base()
            && (argument.is_empty() || arguments.iter().any(|word| word.text == *argument))
    };
    ORCHESTRATORS.iter().find(is_it).map(|(_, _, name)| *name)
}

/// Whether the Procfile of that directory has more than one program. One that can't be read, or has
/// another name, may have.
pub(super) fn has_many(directory: &Path) -> bool {
    let Some(text) = files::text(&directory.join("Procfile")) else { return true };
    // foreman takes a line for a program when it begins with a name and a colon.
    let is_name = |name: &str| {
        !name.is_empty()
            && name.chars().all(|letter| letter.is_alphanumeric() || matches!(letter, '_' | '-'))
    };
    let names = text.lines().filter_map(|line| line.split_once(':')).map(|(name, _)| name);
    names.filter(|name| is_name(name)).count() > 1
}
