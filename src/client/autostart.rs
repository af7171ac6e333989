//! Having a daemon when none answers: the user's units, else one in the background.

use super::background;
use super::discover::Lookup;
use super::link::Link;
use super::units::Manager;
use crate::paths::Paths;

/// A daemon that answers now.
#[derive(Debug)]
pub(super) struct Started {
    pub(super) link: Link,
    pub(super) by: Means,
}

/// How it came to answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Means {
    /// The user's service manager listens for it.
    Units,
    /// It was started in the background, with this process id.
    Background(u32),
    /// Somebody else started it at the same time.
    SomebodyElse,
}

/// Starts the units where there are any, else a daemon in the background.
///
/// # Errors
///
/// What was tried, and how it failed.
pub(super) fn start(lookup: &Lookup, paths: &Paths) -> Result<Started, String> {
    let mut failed = String::new();
    if let Some(manager) = Manager::find(paths).filter(|manager| manager.serves(lookup)) {
        let result = manager.start();
        // Where the TCP port is taken, one of the two still works.
        match Link::find(lookup) {
            Ok(link) => return Ok(Started { link, by: Means::Units }),
            Err(absence) => {
                failed = result
                    .err()
                    .unwrap_or_else(|| format!("the units were started, but {}", absence.tried))
                    + "; ";
            }
        }
    }
    match background::start(lookup, paths) {
        Ok(background::Started { link, pid }) => {
            Ok(Started { link, by: pid.map_or(Means::SomebodyElse, Means::Background) })
        }
        Err(reason) => Err(format!("{failed}a background daemon: {reason}")),
    }
}
