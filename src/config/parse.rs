//! From the text of config.toml to the configuration.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use toml::de::{DeTable, DeValue};

use super::reader::{Key, Reader, Value, quoted};
use super::{Config, Daemon, ServiceType};

const TOP_KEYS: [&str; 2] = ["daemon", "service"];
const DAEMON_KEYS: [&str; 6] =
    ["listen", "idle_exit", "reap_interval", "default_lease", "avoid", "overflow"];
const SERVICE_KEYS: [&str; 3] = ["description", "preferred_ports", "port_range"];

/// Below this a daemon would end before the client that started it has asked.
const SHORTEST_IDLE_EXIT: Duration = Duration::from_millis(50);
/// The unit in which timers run and leases are kept.
const SHORTEST_PERIOD: Duration = Duration::from_millis(1);
/// How long the name of a service type may be, in bytes.
const LONGEST_NAME: usize = 64;

/// Reads `text` on top of the built-in configuration; see [`Config::parse_beside`].
pub(super) fn parse(
    file: &Path,
    text: &str,
    ephemeral: Option<&RangeInclusive<u16>>,
) -> (Config, Vec<super::Diagnostic>) {
    let (reader, table) = Reader::new(file, text);
    let mut parser = Parser { reader, ephemeral };
    let mut config = Config::built_in();
    parser.top(&table, &mut config);
    (config, parser.reader.into_diagnostics())
}

struct Parser<'t> {
    reader: Reader<'t>,
    ephemeral: Option<&'t RangeInclusive<u16>>,
}

impl<'t> Parser<'t> {
    fn top(&mut self, table: &DeTable<'t>, config: &mut Config) {
        for (key, value) in table {
            match key.get_ref().as_ref() {
                name @ "daemon" => {
                    if let Some(table) = self.reader.table(name, value, "a table [daemon]") {
                        self.daemon(table, &mut config.daemon);
                    }
                }
                name @ "service" => {
                    if let Some(table) = self.reader.table(name, value, "tables [service.NAME]") {
                        self.services(table, config);
                    }
                }
                _ if self.reader.is_doubtful(key, value) => {}
                _ => self.reader.unknown_key(key, &TOP_KEYS, "the configuration"),
            }
        }
    }

    fn daemon(&mut self, table: &DeTable<'t>, daemon: &mut Daemon) {
        for (key, value) in table {
            if self.reader.is_doubtful(key, value) {
                continue;
            }
            let reader = &mut self.reader;
            match key.get_ref().as_ref() {
                "listen" => set(&mut daemon.listen, self.listen(value)),
                "idle_exit" => self.idle_exit(value, &mut daemon.idle_exit),
                name @ "reap_interval" => {
                    set(&mut daemon.reap_interval, reader.duration(name, value, SHORTEST_PERIOD));
                }
                name @ "default_lease" => {
                    set(&mut daemon.default_lease, reader.duration(name, value, SHORTEST_PERIOD));
                }
                name @ "avoid" => set(&mut daemon.avoid, reader.ports_and_ranges(name, value)),
                name @ "overflow" => set(&mut daemon.overflow, self.range(name, value)),
                _ => reader.unknown_key(key, &DAEMON_KEYS, "[daemon]"),
            }
        }
    }

    fn services(&mut self, table: &DeTable<'t>, config: &mut Config) {
        for (key, value) in table {
            if self.reader.is_doubtful(key, value) || !self.is_service_name(key) {
                continue;
            }
            let name = key.get_ref();
            let Some(table) = self.reader.table(name, value, "a table [service.NAME]") else {
                continue;
            };
            self.service(table, config.services.entry(name.clone().into_owned()).or_default());
        }
    }

    fn service(&mut self, table: &DeTable<'t>, service: &mut ServiceType) {
        for (key, value) in table {
            if self.reader.is_doubtful(key, value) {
                continue;
            }
            match key.get_ref().as_ref() {
                name @ "description" => {
                    set(&mut service.description, self.reader.string(name, value));
                }
                name @ "preferred_ports" => {
                    set(&mut service.preferred_ports, self.reader.ports(name, value));
                }
                name @ "port_range" => {
                    set(&mut service.port_range, self.range(name, value).map(Some));
                }
                _ => self.reader.unknown_key(key, &SERVICE_KEYS, "a [service.NAME] table"),
            }
        }
    }

    /// A service type's name is part of URLs, logs and command lines, so it needs no quoting.
    fn is_service_name(&mut self, key: &Key<'t>) -> bool {
        let name = key.get_ref();
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        let is_right = !name.is_empty() && name.len() <= LONGEST_NAME && name.bytes().all(is_plain);
        if !is_right {
            let given = quoted(name);
            self.reader.error(
                key.span(),
                format!(
                    "{given} can't name a service type: \
                     a name has 1 to {LONGEST_NAME} ASCII letters, digits, '-' and '_'"
                ),
            );
        }
        is_right
    }

    fn listen(&mut self, value: &Value<'t>) -> Option<SocketAddr> {
        const EXAMPLE: &str = r#"an address and a port such as "127.0.0.1:9876""#;
        let DeValue::String(text) = value.get_ref() else {
            return self.reader.wrong_type("listen", value, EXAMPLE);
        };
        let given = quoted(text);
        let wrong = match text.parse::<SocketAddr>() {
            Ok(address) if !address.ip().is_loopback() => {
                format!(
                    "{given} is not a loopback address: other machines must not reach the daemon"
                )
            }
            Ok(address) if address.port() == 0 => format!("{given} names no port"),
            Ok(address) => return Some(address),
            Err(_) => format!("{given} is not {EXAMPLE}"),
        };
        self.reader.error(value.span(), format!("listen: {wrong}"));
        None
    }

    fn idle_exit(&mut self, value: &Value<'t>, idle_exit: &mut Option<Duration>) {
        const NAME: &str = "idle_exit";
        match value.get_ref() {
            DeValue::String(text) if text == "never" => *idle_exit = None,
            DeValue::String(_) => {
                set(idle_exit, self.reader.duration(NAME, value, SHORTEST_IDLE_EXIT).map(Some));
            }
            _ => {
                let expected = r#"a duration such as "10m", or "never""#;
                self.reader.wrong_type::<()>(NAME, value, expected);
            }
        }
    }

    /// A range, with a warning where the kernel picks from it too.
    ///
    /// An outgoing connection may sit on such a port just when a server wants it. That is rare, and
    /// whoever chose the range may have no other.
    fn range(&mut self, name: &str, value: &Value<'t>) -> Option<RangeInclusive<u16>> {
        let range = self.reader.range(name, value)?;
        if let Some(kernel) = self.ephemeral
            && range.start() <= kernel.end()
            && kernel.start() <= range.end()
        {
            self.reader.warning(
                value.span(),
                format!(
                    "{name}: {}-{} overlaps {}-{}, from which the kernel takes the ports of \
                     outgoing connections (net.ipv4.ip_local_port_range)",
                    range.start(),
                    range.end(),
                    kernel.start(),
                    kernel.end()
                ),
            );
        }
        Some(range)
    }
}

fn set<T>(slot: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *slot = value;
    }
}

#[cfg(test)]
mod tests;
