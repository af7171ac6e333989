//! Programs that start several services.

use super::word::Word;

/// A program, one of its arguments where not all of its commands start services, and what it is
/// called.
///
/// foreman, overmind, hivemind and honcho are missing on purpose: they take `PORT` for the first of
/// a row and give each service a port of its own.
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
