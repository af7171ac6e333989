//! The configuration in force as JSON and as TOML.

use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::{Config, Daemon, ServiceType};

impl Config {
    /// The configuration as `GET /config` and `styxy config show --json` say it: in the shape of
    /// the file, durations as `10m`. A type without a range has `"port_range": null`.
    pub fn to_json(&self) -> Value {
        let Daemon { listen, idle_exit, reap_interval, default_lease, avoid, overflow } =
            &self.daemon;
        let services = self.services.iter().map(|(name, service)| {
            let ServiceType { description, preferred_ports, port_range } = service;
            let service = json!({
                "description": description,
                "preferred_ports": preferred_ports,
                "port_range": port_range.as_ref().map(ends),
            });
            (name.clone(), service)
        });
        json!({
            "daemon": {
                "listen": listen,
                "idle_exit": duration_or_never(*idle_exit),
                "reap_interval": duration(*reap_interval),
                "default_lease": duration(*default_lease),
                "avoid": avoid.iter().map(port_or_range).collect::<Vec<_>>(),
                "overflow": ends(overflow),
            },
            "service": services.collect::<Map<_, _>>(),
        })
    }

    /// The configuration as a file that [`Config::parse`] reads back as it is.
    pub fn to_toml(&self) -> String {
        Toml(self).to_string()
    }
}

struct Toml<'a>(&'a Config);

impl fmt::Display for Toml<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Daemon { listen, idle_exit, reap_interval, default_lease, avoid, overflow } =
            &self.0.daemon;
        writeln!(f, "[daemon]")?;
        writeln!(f, "listen = \"{listen}\"")?;
        writeln!(f, "idle_exit = \"{}\"", duration_or_never(*idle_exit))?;
        writeln!(f, "reap_interval = \"{}\"", duration(*reap_interval))?;
        writeln!(f, "default_lease = \"{}\"", duration(*default_lease))?;
        writeln!(f, "avoid = {}", list(avoid.iter().map(port_or_range)))?;
        writeln!(f, "overflow = {}", list(ends(overflow)))?;
        for (name, service) in &self.0.services {
            let ServiceType { description, preferred_ports, port_range } = service;
            writeln!(f, "\n[service.{name}]")?;
            writeln!(f, "description = {}", string(description))?;
            writeln!(f, "preferred_ports = {}", list(preferred_ports))?;
            if let Some(range) = port_range {
                writeln!(f, "port_range = {}", list(ends(range)))?;
            }
        }
        Ok(())
    }
}

fn duration(duration: Duration) -> String {
    humantime::format_duration(duration).to_string()
}

fn duration_or_never(idle_exit: Option<Duration>) -> String {
    idle_exit.map_or_else(|| "never".to_owned(), duration)
}

fn ends(range: &RangeInclusive<u16>) -> [u16; 2] {
    [*range.start(), *range.end()]
}

fn port_or_range(range: &RangeInclusive<u16>) -> Value {
    let [first, last] = ends(range);
    if first == last { first.into() } else { format!("{first}-{last}").into() }
}

fn list(items: impl IntoIterator<Item: ToString>) -> String {
    let items: Vec<_> = items.into_iter().map(|item| item.to_string()).collect();
    format!("[{}]", items.join(", "))
}

/// A basic string of TOML. JSON's escapes are all TOML's too, and TOML wants one more: DEL.
fn string(text: &str) -> String {
    Value::from(text).to_string().replace('\x7f', "\\u007f")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn json_has_the_shape_of_the_file() {
        let mut config = Config::built_in();
        config.daemon.idle_exit = None;
        config.daemon.default_lease = Duration::from_secs(90 * 60);
        config.daemon.avoid = vec![5000..=5000, 6000..=6005];
        config.services.insert("bare".to_owned(), ServiceType::default());

        let json = config.to_json();
        assert_eq!(
            json["daemon"],
            json!({
                "listen": "127.0.0.1:9876",
                "idle_exit": "never",
                "reap_interval": "10s",
                "default_lease": "1h 30m",
                "avoid": [5000, "6000-6005"],
                "overflow": [20000, 29999],
            })
        );
        assert_eq!(json["service"]["dev"]["preferred_ports"], json!([3000, 8000, 8080]));
        assert_eq!(json["service"]["dev"]["port_range"], json!([8000, 8099]));
        assert_eq!(json["service"]["bare"]["port_range"], Value::Null);
    }

    fn range() -> impl Strategy<Value = RangeInclusive<u16>> {
        (1..=u16::MAX, 1..=u16::MAX).prop_map(|(a, b)| a.min(b)..=a.max(b))
    }

    fn service() -> impl Strategy<Value = ServiceType> {
        let ports = proptest::collection::vec(1..=u16::MAX, 0..4);
        (any::<String>(), ports, proptest::option::of(range())).prop_map(
            |(description, preferred_ports, port_range)| ServiceType {
                description,
                preferred_ports,
                port_range,
            },
        )
    }

    fn daemon() -> impl Strategy<Value = Daemon> {
        let idle_exit = proptest::option::of(50..31_000_000_000_u64);
        let avoid = proptest::collection::vec(range(), 0..4);
        let periods = (1..31_000_000_000_u64, 1..31_000_000_000_u64);
        (1..=u16::MAX, idle_exit, periods, avoid, range()).prop_map(
            |(port, idle_exit, (reap_interval, default_lease), avoid, overflow)| Daemon {
                listen: ([127, 0, 0, 1], port).into(),
                idle_exit: idle_exit.map(Duration::from_millis),
                reap_interval: Duration::from_millis(reap_interval),
                default_lease: Duration::from_millis(default_lease),
                avoid,
                overflow,
            },
        )
    }

    proptest! {
        #[test]
        fn toml_reads_back_as_it_was(
            daemon in daemon(),
            added in proptest::collection::btree_map("[A-Za-z0-9_-]{1,64}", service(), 0..4),
        ) {
            let mut config = Config { daemon, ..Config::built_in() };
            config.services.extend(added);
            let text = config.to_toml();
            let (read, diagnostics) = Config::parse_beside(Path::new("config.toml"), &text, None);
            prop_assert_eq!(diagnostics, []);
            prop_assert_eq!(read, config);
        }
    }
}
