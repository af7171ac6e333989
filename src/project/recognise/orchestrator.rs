//! Programs that start several services.

use std::ffi::OsString;
use std::path::Path;

use super::target::{Target, follow};

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

/// The program that this command, started in `directory`, runs in the end, if it starts several
/// services, which must not share one `PORT`.
pub fn orchestrator(
    words: &[OsString],
    directory: &Path,
    root: Option<&Path>,
) -> Option<&'static str> {
    let line = match follow(words, directory, root)? {
        Target::Several(name) => return Some(name),
        Target::OwnCode(..) => return None,
        Target::Program(line) => line,
    };
    let (name, arguments) = line.words.split_first()?;
    let is_it = |(program, argument, _): &&(&str, &str, &str)| {
        *program == name.base()
            && (argument.is_empty() || arguments.iter().any(|word| word.text == *argument))
    };
    ORCHESTRATORS.iter().find(is_it).map(|(_, _, name)| *name)
}
