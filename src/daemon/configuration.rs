//! A configuration with errors: what is right of it counts, and it is read again until all of it is.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::upkeep::RETRY_INTERVAL;
use crate::config::{Config, Diagnostic};
use crate::coordinator::Coordinator;
use crate::text::printable;

/// What was read last, and what is to be read again.
pub(super) struct Configuration {
    pub(super) files: Vec<PathBuf>,
    pub(super) diagnostics: Vec<Diagnostic>,
    /// What is wrong besides, a sentence each.
    pub(super) problems: Vec<String>,
    /// The address of the configuration that this daemon bound itself.
    pub(super) bound: Option<SocketAddr>,
}

impl Configuration {
    /// What is wrong with the daemon, a sentence each.
    pub(super) fn problems(&self, config: &Config) -> Vec<String> {
        let errors = self.diagnostics.iter().filter(|one| !one.is_warning);
        let listen = config.daemon.listen;
        let moved = self.bound.filter(|bound| *bound != listen).map(|bound| {
            format!(
                "{bound} is served until `styxy daemon restart`: the configuration says {listen}"
            )
        });
        let other = self.problems.iter().cloned();
        other.chain(errors.map(ToString::to_string)).chain(moved).collect()
    }

    /// Tells the log of everything that is doubtful in the files.
    pub(super) fn log(&self) {
        for diagnostic in &self.diagnostics {
            tracing::warn!("{}", printable(&diagnostic.to_string()));
        }
    }

    /// Whether something is left out.
    pub(super) fn has_errors(&self) -> bool {
        self.diagnostics.iter().any(|one| !one.is_warning)
    }

    /// Reads the files again until they have no errors, and puts in force what they say.
    pub(super) async fn mend(mut self, coordinator: Arc<Coordinator>) {
        while self.has_errors() {
            sleep(RETRY_INTERVAL).await;
            let files = self.files.clone();
            // A file system may hang, so not on this thread.
            let (config, diagnostics) = match spawn_blocking(move || Config::load(&files)).await {
                Ok(loaded) => loaded,
                Err(error) => {
                    tracing::error!("the configuration is not read again: {error}");
                    return;
                }
            };
            if diagnostics != self.diagnostics || config != *coordinator.config() {
                self.diagnostics = diagnostics;
                self.log();
                coordinator.reconfigure(config.clone(), self.problems(&config));
            }
        }
        tracing::info!("the configuration has no errors any more and is in force");
    }
}
