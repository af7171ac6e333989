//! The configuration: built-in service types, and what the files change.

mod builtin;
mod file;
mod nearest;
mod parse;
pub(crate) mod reader;
mod render;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub(crate) use file::read as read_file;
pub use nearest::nearest;

/// The configuration in force.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// How the daemon works.
    pub daemon: Daemon,
    /// The service types, by name.
    pub services: BTreeMap<String, ServiceType>,
}

/// How the daemon works: the `[daemon]` table.
#[derive(Debug, Clone, PartialEq)]
pub struct Daemon {
    /// Where it listens on TCP when systemd hands no socket over; a loopback address.
    pub listen: SocketAddr,
    /// How long it stays when nobody needs it; `None` is `"never"`.
    pub idle_exit: Option<Duration>,
    /// How often the safety net looks for what was missed.
    pub reap_interval: Duration,
    /// The lease of an allocation that nothing else holds.
    pub default_lease: Duration,
    /// Ports that are never handed out.
    pub avoid: Vec<RangeInclusive<u16>>,
    /// Where any type goes when its own range is full.
    pub overflow: RangeInclusive<u16>,
}

/// A service type: the `[service.NAME]` table.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ServiceType {
    /// What it is, for people.
    pub description: String,
    /// The ports to try first, in order.
    pub preferred_ports: Vec<u16>,
    /// The range to pick from; `None` for a type of a file that gives none, which then picks from
    /// [`Daemon::overflow`].
    pub port_range: Option<RangeInclusive<u16>>,
}

/// What is wrong in a configuration file, or may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// The file.
    pub file: PathBuf,
    /// The line, from 1.
    pub line: usize,
    /// The column, from 1, in characters.
    pub column: usize,
    /// One sentence.
    pub message: String,
    /// A warning changes nothing; an error means that the value was left out.
    pub is_warning: bool,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = if self.is_warning { "warning" } else { "error" };
        let Self { file, line, column, message, .. } = self;
        write!(f, "{}:{line}:{column}: {severity}: {message}", file.display())
    }
}

impl Config {
    /// The configuration without any file.
    pub fn built_in() -> Self {
        Self { daemon: builtin::daemon(), services: builtin::services() }
    }

    /// Reads the first of `files` that exists on top of the built-in configuration.
    ///
    /// It never fails: what is wrong is left out and reported. A file that exists and cannot be
    /// read is reported, and the files after it are not looked at: another file's settings would
    /// be a surprise.
    pub fn load(files: &[PathBuf]) -> (Self, Vec<Diagnostic>) {
        for path in files {
            match file::read(path) {
                Ok(Some(text)) => return Self::parse(path, &text),
                Ok(None) => {}
                Err(diagnostic) => return (Self::built_in(), vec![diagnostic]),
            }
        }
        (Self::built_in(), Vec::new())
    }

    /// Reads one file's text on top of the built-in configuration, and compares its ranges with
    /// the kernel's [`ephemeral_ports`].
    pub fn parse(file: &Path, text: &str) -> (Self, Vec<Diagnostic>) {
        Self::parse_beside(file, text, ephemeral_ports().as_ref())
    }

    /// [`Config::parse`] on a machine whose kernel takes the ports of outgoing connections from
    /// `ephemeral`.
    ///
    /// The diagnostics are in the order of the text.
    pub fn parse_beside(
        file: &Path,
        text: &str,
        ephemeral: Option<&RangeInclusive<u16>>,
    ) -> (Self, Vec<Diagnostic>) {
        parse::parse(file, text, ephemeral)
    }

    /// The known service type that looks most like `given`.
    pub fn nearest_service_type(&self, given: &str) -> Option<&str> {
        nearest(given, self.services.keys().map(String::as_str))
    }
}

/// The ports that the kernel takes for outgoing connections: `ip_local_port_range` of ip(7).
///
/// `None` where the kernel does not say, as in a sandbox without /proc.
pub fn ephemeral_ports() -> Option<RangeInclusive<u16>> {
    let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").ok()?;
    let mut numbers = text.split_whitespace().map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(first)), Some(Ok(last))) => Some(first..=last),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn diagnostic_is_a_line_that_editors_can_jump_to() {
        let mut diagnostic = Diagnostic {
            file: "/etc/styxy/config.toml".into(),
            line: 3,
            column: 10,
            message: "0 is not a port".into(),
            is_warning: false,
        };
        assert_eq!(diagnostic.to_string(), "/etc/styxy/config.toml:3:10: error: 0 is not a port");
        diagnostic.is_warning = true;
        assert!(diagnostic.to_string().contains(": warning: "));
    }

    #[test]
    fn first_file_that_exists_counts() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let [missing, first, second] =
            ["missing/config.toml", "first.toml", "second.toml"].map(|n| directory.path().join(n));
        std::fs::write(&first, "[daemon]\nidle_exit = \"1h\"\n").expect("write");
        std::fs::write(&second, "[daemon]\nidle_exit = \"2h\"\nreap_interval = \"1m\"\n")
            .expect("write");

        let (config, diagnostics) = Config::load(&[missing.clone(), first, second]);
        assert_eq!(diagnostics, []);
        assert_eq!(config.daemon.idle_exit, Some(Duration::from_secs(3600)));
        assert_eq!(config.daemon.reap_interval, Config::built_in().daemon.reap_interval);

        assert_eq!(Config::load(&[missing]), (Config::built_in(), Vec::new()));
        assert_eq!(Config::load(&[]), (Config::built_in(), Vec::new()));
    }

    #[test]
    fn file_that_cannot_be_read_is_reported_and_ends_the_search() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let second = directory.path().join("second.toml");
        std::fs::write(&second, "[daemon]\nidle_exit = \"2h\"\n").expect("write");

        let (config, diagnostics) = Config::load(&[directory.path().into(), second]);
        assert_eq!(config, Config::built_in());
        let [diagnostic] = diagnostics.as_slice() else { panic!("{diagnostics:?}") };
        assert_eq!(diagnostic.file, directory.path());
        assert!(!diagnostic.is_warning);
    }

    #[test]
    fn kernel_says_its_ephemeral_ports() {
        let ports = ephemeral_ports().expect("/proc/sys is there");
        assert!(!ports.is_empty());
    }

    #[test]
    fn misspelt_service_type_has_a_neighbour() {
        let config = Config::built_in();
        assert_eq!(config.nearest_service_type("stroybook"), Some("storybook"));
        assert_eq!(config.nearest_service_type("kubernetes"), None);
    }
}
