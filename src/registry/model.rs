//! What the registry keeps: allocations, assignments, instances, and the changes to them.
//!
//! These types are also the journal's records, so a field that is renamed here is a new journal
//! format. Fields may be added with `#[serde(default)]`.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::api::Protocol;

/// What time it is. The registry has no clock: whoever calls it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// `CLOCK_MONOTONIC`, for leases and heartbeats: it stands still while the machine sleeps, and
    /// nobody can set it.
    pub monotonic: Duration,
    /// Milliseconds since the Unix epoch, for people to read.
    pub unix_ms: u64,
}

/// Whole milliseconds, as the journal and the interface count time.
pub(crate) fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// A process of this boot, so exactly that a recycled pid is never mistaken for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Process {
    /// The process id in the daemon's pid namespace.
    pub pid: u32,
    /// Field 22 of `/proc/PID/stat` (proc(5)): clock ticks between boot and its start.
    pub start_ticks: u64,
}

/// The process that an allocation was made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// Who it is.
    pub process: Process,
    /// When it started, in Unix seconds, for people to read.
    pub started_at: u64,
    /// It is the parent of the client that asked, taken because nobody named an owner.
    pub implicit: bool,
}

/// A deadline that keeps an allocation alive while nothing else does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// How long one period is, in milliseconds.
    pub length_ms: u64,
    /// When this period ends, in milliseconds of `CLOCK_MONOTONIC`.
    pub until_ms: u64,
}

/// A port that belongs to somebody now, under one lock id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allocation {
    /// What names and releases it.
    pub lock_id: Uuid,
    /// The port.
    pub port: u16,
    /// The transport protocol.
    pub protocol: Protocol,
    /// The service type.
    pub service_type: String,
    /// The service's name within its project.
    pub service_name: Option<String>,
    /// The project's root.
    pub project_path: Option<String>,
    /// Which of the unnamed allocations of (project, type) it is.
    pub slot: Option<u32>,
    /// The process it was made for.
    pub owner: Option<Owner>,
    /// The registered client that asked. It holds only what has no owner.
    pub instance_id: Option<String>,
    /// The deadline, while there is one.
    pub lease: Option<Lease>,
    /// An own listener was seen: an implicit owner or the first lease holds no longer.
    pub taken_over: bool,
    /// When it was made, in milliseconds since the Unix epoch.
    pub allocated_at_ms: u64,
}

#[cfg(test)]
impl Allocation {
    /// TCP port 3000 without an owner, in a project that is not there.
    pub(crate) fn sample() -> Self {
        Self {
            lock_id: Uuid::from_u128(7),
            port: 3000,
            protocol: Protocol::Tcp,
            service_type: "dev".to_owned(),
            service_name: None,
            project_path: Some("/home/u/shop".to_owned()),
            slot: None,
            owner: None,
            instance_id: None,
            lease: None,
            taken_over: false,
            allocated_at_ms: 0,
        }
    }
}

/// A registered client that proves that it lives, by heartbeat or by its process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Instance {
    /// Its id.
    pub instance_id: String,
    /// Where it works.
    pub working_directory: Option<String>,
    /// The process that proves that it lives; without one, heartbeats do.
    pub process: Option<Process>,
    /// When it was registered, in milliseconds since the Unix epoch.
    pub registered_at_ms: u64,
    /// What the client wanted to be shown.
    pub metadata: Map<String, Value>,
}

/// Which service of a project an assignment is for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct AssignmentKey {
    /// The project's root.
    pub project_path: String,
    /// The service within it.
    pub service: Service,
}

/// A service within a project.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Service {
    /// By its name.
    Named(String),
    /// An unnamed one: the type, and which of its unnamed services, from 0.
    Slot(String, u32),
}

/// A durable (project, service) → port. It holds nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    /// Whose port.
    pub key: AssignmentKey,
    /// The service type.
    pub service_type: String,
    /// The port.
    pub port: u16,
    /// When it was last used, in milliseconds since the Unix epoch.
    pub last_used_ms: u64,
}

/// One change of the registry: what the journal keeps, a line each.
///
/// Every change carries the whole new value, so its inverse is a change too, and a replay needs no
/// more than to make them again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// An allocation was made or is different now.
    Allocation(Allocation),
    /// An allocation ended.
    Released {
        /// Which one.
        lock_id: Uuid,
        /// Why.
        reason: Reason,
    },
    /// An instance was registered or is different now.
    Instance(Instance),
    /// An instance ended.
    InstanceRemoved {
        /// Which one.
        instance_id: String,
    },
    /// A service got a port, or used it again.
    Assignment(Assignment),
    /// A service's port was forgotten.
    AssignmentRemoved {
        /// Whose.
        key: AssignmentKey,
    },
}

impl Change {
    /// Whether it outlives the boot: which port a service gets does, who has a port does not.
    pub fn is_durable(&self) -> bool {
        matches!(self, Self::Assignment(_) | Self::AssignmentRemoved { .. })
    }
}

/// Why an allocation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// Somebody asked for it.
    Released,
    /// `cleanup --force`.
    Forced,
    /// Its owner died, and nothing listened.
    OwnerDied,
    /// Its last own listener went.
    ListenerGone,
    /// Its lease ran out.
    LeaseExpired,
    /// Its instance was lost or removed.
    InstanceLost,
    /// The machine was booted again.
    Rebooted,
    /// The request that made it failed as a whole.
    RolledBack,
    /// One that a later version wrote into the journal: the end counts all the same.
    #[serde(other)]
    Unknown,
}

impl Reason {
    /// The reason as a person reads it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Released => "released",
            Self::Forced => "forced",
            Self::OwnerDied => "owner died",
            Self::ListenerGone => "listener gone",
            Self::LeaseExpired => "lease expired",
            Self::InstanceLost => "instance lost",
            Self::Rebooted => "machine rebooted",
            Self::RolledBack => "rolled back",
            Self::Unknown => "unknown",
        }
    }
}
