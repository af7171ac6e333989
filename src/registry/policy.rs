//! The rules that the configuration sets, in the form that the registry works with.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::port_set::PortSet;
use crate::config::{Config, ServiceType};

/// Ports that browsers refuse to connect to (WHATWG Fetch, "bad port"). A server there would look
/// broken, so they are never handed out.
const BAD_PORTS: [u16; 82] = [
    1, 7, 9, 11, 13, 15, 17, 19, 20, 21, 22, 23, 25, 37, 42, 43, 53, 69, 77, 79, 87, 95, 101, 102,
    103, 104, 109, 110, 111, 113, 115, 117, 119, 123, 135, 137, 139, 143, 161, 179, 389, 427, 465,
    512, 513, 514, 515, 526, 530, 531, 532, 540, 548, 554, 556, 563, 587, 601, 636, 989, 990, 993,
    995, 1719, 1720, 1723, 2049, 3659, 4045, 4190, 5060, 5061, 6000, 6566, 6665, 6666, 6667, 6668,
    6669, 6679, 6697, 10080,
];

/// How often a registered client without a process must be heard of.
pub const HEARTBEAT: Duration = Duration::from_secs(30);

/// How long an instance without a process lives after it was last heard of: three heartbeats.
pub(super) const HEARTBEAT_PATIENCE: Duration = Duration::from_secs(90);

/// How long an assignment is kept without being used.
pub(super) const ASSIGNMENT_AGE_MS: u64 = 90 * 24 * 60 * 60 * 1000;

/// How many assignments are kept.
pub(super) const MAX_ASSIGNMENTS: usize = 4096;

/// How old `last_used` must be before it is worth a line in the journal.
pub(super) const LAST_USED_RESOLUTION_MS: u64 = 24 * 60 * 60 * 1000;

/// How many ports after a wish that was taken are tried before the type's own.
pub(super) const NEAR_WISH: u16 = 10;

/// What may be handed out, and for how long.
#[derive(Debug, Clone)]
pub struct Policy {
    /// The service types, by name.
    pub services: BTreeMap<String, ServiceType>,
    /// Where any type goes when its own range is full.
    pub overflow: RangeInclusive<u16>,
    /// The lease of what nothing else holds.
    pub default_lease: Duration,
    avoid: PortSet,
    own: PortSet,
    bad: PortSet,
}

impl Policy {
    /// The rules of `config`; `own` are the ports that the daemon itself serves.
    pub fn new(config: &Config, own: impl IntoIterator<Item = u16>) -> Self {
        Self {
            services: config.services.clone(),
            overflow: config.daemon.overflow.clone(),
            default_lease: config.daemon.default_lease,
            avoid: config.daemon.avoid.iter().cloned().flatten().collect(),
            own: own.into_iter().collect(),
            bad: BAD_PORTS.into_iter().collect(),
        }
    }

    /// Why a port is never handed out, as the end of a sentence that begins with the port.
    pub(super) fn forbids(&self, port: u16) -> Option<&'static str> {
        if self.bad.contains(port) {
            Some("is one that browsers refuse to connect to")
        } else if self.own.contains(port) {
            Some("is the one that Styxy itself listens on")
        } else if self.avoid.contains(port) {
            Some("is on the avoid list of the configuration")
        } else {
            None
        }
    }
}
