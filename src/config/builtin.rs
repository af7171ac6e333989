//! What holds without any configuration file.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

use super::{Daemon, ServiceType};

/// Name, description, preferred ports, range. Nothing is reserved by being listed here.
type Row = (&'static str, &'static str, &'static [u16], RangeInclusive<u16>);

/// The names are part of the interface: programs send them.
const SERVICE_TYPES: [Row; 19] = [
    (
        "dev",
        "Development servers, such as Vite, Next.js, Rails or Django.",
        &[3000, 8000, 8080],
        8000..=8099,
    ),
    ("storybook", "Storybook and other component workshops.", &[6006], 6006..=6010),
    ("test", "Servers that a test run starts and stops.", &[9000, 9001, 9002], 9000..=9099),
    ("api", "Back ends that answer other programs over HTTP.", &[4000, 3001], 8100..=8199),
    ("docs", "Documentation sites while they are written.", &[3030], 8200..=8299),
    ("preview", "Servers that show a production build before it ships.", &[4173], 4173..=4199),
    ("ui", "User interfaces of tools, such as notebooks and dashboards.", &[8888], 8300..=8399),
    ("proxy", "Reverse proxies, gateways and tunnels.", &[], 8400..=8499),
    (
        "database",
        "Databases, such as PostgreSQL, MySQL or MongoDB.",
        &[5432, 3306, 27017],
        5430..=5499,
    ),
    (
        "debug",
        "Debuggers and inspectors that a development tool attaches to.",
        &[9229],
        9229..=9299,
    ),
    ("cache", "Caches, such as Redis, Valkey or memcached.", &[6379, 11211], 6370..=6399),
    ("auth", "Sign-in services and identity providers.", &[], 8500..=8599),
    ("functions", "Emulators of serverless functions and workers.", &[8787, 5001], 8600..=8699),
    ("hub", "Hubs of emulator suites, which know the other emulators.", &[4400], 4400..=4499),
    ("build", "Build tools that serve bundles, assets or hot updates.", &[], 7100..=7199),
    ("monitoring", "Metrics, tracing and log viewers, such as Prometheus.", &[9090], 7200..=7299),
    (
        "messaging",
        "Message brokers, such as RabbitMQ, NATS or Kafka.",
        &[5672, 4222, 9092],
        7300..=7399,
    ),
    ("ai", "Language models and other inference servers, such as Ollama.", &[11434], 11400..=11499),
    ("infrastructure", "Local stand-ins for cloud services and clusters.", &[], 7400..=7499),
];

/// The `[daemon]` table without any file.
pub(super) fn daemon() -> Daemon {
    Daemon {
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 9876)),
        idle_exit: Some(Duration::from_secs(10 * 60)),
        reap_interval: Duration::from_secs(10),
        default_lease: Duration::from_secs(10 * 60),
        avoid: Vec::new(),
        overflow: 20000..=29999,
    }
}

/// The service types without any file.
pub(super) fn services() -> BTreeMap<String, ServiceType> {
    let types = SERVICE_TYPES.map(|(name, description, preferred_ports, port_range)| {
        let service_type = ServiceType {
            description: description.to_owned(),
            preferred_ports: preferred_ports.to_vec(),
            port_range: Some(port_range),
        };
        (name.to_owned(), service_type)
    });
    types.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fixed_types_have_their_fixed_ranges() {
        let services = services();
        assert_eq!(services.len(), SERVICE_TYPES.len(), "no name twice");
        for (name, preferred_ports, port_range) in [
            ("dev", vec![3000, 8000, 8080], 8000..=8099),
            ("storybook", vec![6006], 6006..=6010),
            ("test", vec![9000, 9001, 9002], 9000..=9099),
        ] {
            assert_eq!(services[name].preferred_ports, preferred_ports, "{name}");
            assert_eq!(services[name].port_range, Some(port_range), "{name}");
        }
    }

    #[test]
    fn ranges_do_not_overlap() {
        let mut ranges = SERVICE_TYPES.map(|(_, _, _, range)| range);
        ranges.sort_by_key(|range| *range.start());
        for pair in ranges.windows(2) {
            assert!(pair[0].end() < pair[1].start(), "{pair:?}");
        }
    }

    #[test]
    fn manual_lists_the_types() {
        let manual = include_str!("../../man/styxy.toml.5");
        for (name, _, preferred_ports, range) in SERVICE_TYPES {
            let ports: Vec<_> = preferred_ports.iter().map(ToString::to_string).collect();
            let ports = ports.join(", ");
            let gap = if ports.is_empty() { "" } else { " " };
            let (first, last) = range.into_inner();
            let row = format!(".It {name} Ta {ports}{gap}Ta {first}\\(en{last}\n");
            assert!(manual.contains(&row), "{row}");
        }
    }
}
