//! The wire types: what client and daemon say to each other, as JSON.
//!
//! Programs that Styxy's authors did not write speak this interface. Fields may be added, never
//! renamed. An absent value is `null` in an answer, and may be absent or `null` in a request.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

/// The transport protocols of one allocation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP alone.
    #[default]
    Tcp,
    /// UDP alone.
    Udp,
    /// The same number for TCP and UDP.
    Both,
}

impl Protocol {
    /// Whether TCP is part of it.
    pub fn has_tcp(self) -> bool {
        self != Self::Udp
    }

    /// Whether UDP is part of it.
    pub fn has_udp(self) -> bool {
        self != Self::Tcp
    }

    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Both => "both",
        }
    }
}

/// What a named request wants when that service runs already.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IfRunning {
    /// Make a second allocation and list the first in `also_running`.
    #[default]
    Another,
    /// Answer `already_running`.
    Refuse,
    /// Answer the running one as it is.
    Reuse,
}

/// What is known of the port of an allocation now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AllocationState {
    /// Nothing listens yet.
    Reserved,
    /// An own listener is there.
    Listening,
    /// A stranger listens there.
    Conflict,
}

impl AllocationState {
    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reserved => "reserved",
            Self::Listening => "listening",
            Self::Conflict => "conflict",
        }
    }
}

/// `POST /allocate`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct AllocateRequest {
    /// A service type of the configuration, such as `dev`.
    pub service_type: String,
    /// The service's name within its project; only named requests are reused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_name: Option<String>,
    /// The port wished for.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "port")]
    pub preferred_port: Option<u16>,
    /// Refuse rather than take another port than `preferred_port`.
    #[serde(default, skip_serializing_if = "is_false", deserialize_with = "null_as_default")]
    pub exact: bool,
    /// Ports that are not picked for this, because others of the project are to have them. What
    /// is wished for and what is the service's own already is not picked.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "ports")]
    pub avoid_ports: Vec<u16>,
    /// The owner's process id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process_id: Option<u32>,
    /// When the owner started, in Unix seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process_start_time: Option<u64>,
    /// The owner is the client's parent, taken because nobody named one.
    #[serde(default, skip_serializing_if = "is_false", deserialize_with = "null_as_default")]
    pub implicit_owner: bool,
    /// The inode of the pid namespace that `process_id` was read in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid_namespace: Option<u64>,
    /// The registered client that asks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance_id: Option<String>,
    /// The project's root, an absolute path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project_path: Option<String>,
    /// A lease, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_seconds: Option<u64>,
    /// The transport protocol.
    #[serde(default, deserialize_with = "null_as_default")]
    pub protocol: Protocol,
    /// What to do when that service runs already.
    #[serde(default, deserialize_with = "null_as_default")]
    pub if_running: IfRunning,
    /// A UUID that the client chose, so that it may ask again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lock_id: Option<String>,
    /// The owner from whom the allocation `lock_id` goes over to `process_id`: only if it is still
    /// that one's, or a dead one's, and nothing listens on its port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_process_id: Option<u32>,
    /// Say what the answer would be, and change nothing.
    #[serde(default, skip_serializing_if = "is_false", deserialize_with = "null_as_default")]
    pub dry_run: bool,
}

/// The answer to `POST /allocate`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AllocateResponse {
    /// Always true.
    pub success: bool,
    /// The port.
    pub port: u16,
    /// What names and releases the allocation.
    pub lock_id: String,
    /// One sentence for a person.
    pub message: String,
    /// The allocation was there before this request.
    pub reused: bool,
    /// The allocation itself.
    pub allocation: Allocation,
    /// The other running allocations of the same service.
    pub also_running: Vec<Allocation>,
    /// Sentences a person wants to know besides: why not the port asked for, what moved.
    pub notes: Vec<String>,
}

/// `POST /allocate/batch`: all or none.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct BatchRequest {
    /// 1 to 64 requests.
    pub requests: Vec<AllocateRequest>,
}

/// The answer to `POST /allocate/batch`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BatchResponse {
    /// Always true.
    pub success: bool,
    /// One answer a request, in their order.
    pub allocations: Vec<AllocateResponse>,
}

/// An allocation as the interface shows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Allocation {
    /// The port.
    pub port: u16,
    /// The transport protocol.
    pub protocol: Protocol,
    /// The service type.
    pub service_type: String,
    /// The service's name within its project.
    pub service_name: Option<String>,
    /// The owner's process id.
    pub process_id: Option<u32>,
    /// When the owner started, in Unix seconds.
    pub process_start_time: Option<u64>,
    /// The registered client that asked.
    pub instance_id: Option<String>,
    /// The project's root.
    pub project_path: Option<String>,
    /// When it was made, RFC 3339 UTC with milliseconds.
    pub allocated_at: String,
    /// What names and releases it.
    pub lock_id: String,
    /// When the lease ends, RFC 3339 UTC with milliseconds.
    pub expires_at: Option<String>,
    /// The owner is the parent of the client that asked.
    pub implicit_owner: bool,
    /// What is known of its port.
    pub state: AllocationState,
    /// Who listens there.
    pub listener: Option<Listener>,
    /// Where its program listens instead, while nobody listens there.
    #[serde(default)]
    pub elsewhere: Option<Listener>,
}

/// A process that listens on an allocated port. What cannot be seen is null.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listener {
    /// Its process id.
    pub pid: Option<u32>,
    /// Its program's name.
    pub name: Option<String>,
    /// Address and port, such as `127.0.0.1:3000` or `[::]:3000`.
    pub local_address: String,
}

/// What the system says of a used port, whoever holds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SystemUsage {
    /// `tcp` or `udp`.
    pub protocol: Protocol,
    /// Address and port.
    pub local_address: String,
    /// The user of the socket.
    pub uid: u32,
    /// The process, or null where it cannot be seen.
    pub process: Option<ProcessInfo>,
    /// The container that publishes the port.
    pub container: Option<ContainerInfo>,
}

/// A process that holds a port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessInfo {
    /// Its process id.
    pub pid: u32,
    /// Its program's name.
    pub name: String,
    /// Its command line, arguments separated by spaces.
    pub command: Option<String>,
    /// Its working directory.
    pub cwd: Option<String>,
    /// The root of the project that it works in; null also for a process in a container, which has
    /// other directories.
    #[serde(default)]
    pub project_path: Option<String>,
}

/// A container that publishes a port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerInfo {
    /// `docker` or `podman`.
    pub engine: String,
    /// The container's id.
    pub id: String,
    /// The container's name.
    pub name: String,
    /// The port inside the container.
    pub container_port: u16,
}

/// `POST /allocate/{lockId}/renew`. The body may be absent.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct RenewRequest {
    /// The new lease in seconds; absent: as long as the last one, or `default_lease`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_seconds: Option<u64>,
}

/// The answer to a renewal.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RenewResponse {
    /// Always true.
    pub success: bool,
    /// The allocation.
    pub lock_id: String,
    /// When the lease ends now.
    pub expires_at: String,
}

/// The answer to `DELETE /allocate/{lockId}`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ReleaseResponse {
    /// Always true.
    pub success: bool,
    /// The port that is free now.
    pub port: u16,
    /// The allocation that ended.
    pub lock_id: String,
    /// One sentence for a person.
    pub message: String,
}

/// The answer to `GET /check/{port}`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CheckResponse {
    /// The port.
    pub port: u16,
    /// Nobody has it, and a server could bind it now.
    pub available: bool,
    /// The allocation that has it.
    pub allocated_to: Option<Allocation>,
    /// Who uses it.
    pub system_usage: Option<SystemUsage>,
}

/// The answer to `GET /suggest/{serviceType}`. Nothing is reserved.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SuggestResponse {
    /// The service type.
    pub service_type: String,
    /// Free ports, the likeliest pick first.
    pub suggestions: Vec<u16>,
    /// How many there are.
    pub count: usize,
    /// What speaks for each of them, in the same order.
    #[serde(default)]
    pub reasons: Vec<Reasoned>,
    /// One sentence for a person.
    pub message: String,
}

/// A suggested port, with what speaks for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reasoned {
    /// The port.
    pub port: u16,
    /// A few words for a person.
    pub reason: String,
}

/// `POST /instance/register`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct RegisterRequest {
    /// The client's own id; absent: the daemon makes one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance_id: Option<String>,
    /// Where the client works, an absolute path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub working_directory: Option<String>,
    /// The process that proves that it lives; without it heartbeats do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process_id: Option<u32>,
    /// Whatever the client wants to be shown beside its id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Map<String, Value>>,
}

/// The answer to `POST /instance/register`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RegisterResponse {
    /// Always true.
    pub success: bool,
    /// The instance.
    pub instance_id: String,
    /// How often a heartbeat is due, in seconds.
    pub heartbeat_seconds: u64,
    /// One sentence for a person.
    pub message: String,
}

/// `POST /instance/heartbeat`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct HeartbeatRequest {
    /// The instance.
    pub instance_id: String,
}

/// The answer to a heartbeat.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct HeartbeatResponse {
    /// Always true.
    pub success: bool,
    /// The instance.
    pub instance_id: String,
    /// When it was last heard of: now.
    pub last_heartbeat: String,
}

/// An instance as the interface shows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Instance {
    /// Its id.
    pub instance_id: String,
    /// Where it works.
    pub working_directory: Option<String>,
    /// The process that proves that it lives.
    pub process_id: Option<u32>,
    /// When it was registered.
    pub registered_at: String,
    /// When it was last heard of.
    pub last_heartbeat: String,
    /// The lock ids of the allocations that carry its id.
    pub active_allocations: Vec<String>,
    /// What the client wanted to be shown.
    pub metadata: Map<String, Value>,
}

/// The answer to `GET /instance/list`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct InstancesResponse {
    /// By id.
    pub instances: Vec<Instance>,
}

/// The answer to `DELETE /instance/{id}`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RemoveInstanceResponse {
    /// Always true.
    pub success: bool,
    /// The instance that is gone.
    pub instance_id: String,
    /// The allocations that ended with it.
    pub released: Vec<Allocation>,
    /// One sentence for a person.
    pub message: String,
}

/// The answer to `GET /status`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StatusResponse {
    /// Always `running`.
    pub status: String,
    /// The daemon's version.
    pub version: String,
    /// The daemon's process id.
    pub pid: u32,
    /// How long it has run, in seconds.
    pub uptime: f64,
    /// How many allocations there are.
    pub allocations: usize,
    /// How many instances there are.
    pub instances: usize,
    /// When it started.
    pub started_at: String,
    /// The addresses it serves: `127.0.0.1:9876`, `unix:/run/user/1000/styxy/styxy.sock`.
    pub listening: Vec<String>,
    /// Where its state is.
    pub state_dir: String,
    /// systemd handed its sockets over.
    #[serde(default)]
    pub socket_activated: bool,
    /// What is wrong with the daemon, a sentence each; empty when all is well.
    #[serde(default)]
    pub problems: Vec<String>,
}

/// `POST /cleanup`. The body may be absent.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct CleanupRequest {
    /// Release also what is held.
    #[serde(default, skip_serializing_if = "is_false", deserialize_with = "null_as_default")]
    pub force: bool,
    /// Only what belongs to this project.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project_path: Option<String>,
    /// Only what carries this instance's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance_id: Option<String>,
    /// Say what would be released, and change nothing.
    #[serde(default, skip_serializing_if = "is_false", deserialize_with = "null_as_default")]
    pub dry_run: bool,
}

/// The answer to `POST /cleanup`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CleanupResponse {
    /// Always true.
    pub success: bool,
    /// How many were released.
    pub cleaned: usize,
    /// Which ones, as they were.
    pub released: Vec<Allocation>,
    /// One sentence for a person.
    pub message: String,
}

/// A durable (project, service) → port. It holds nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    /// The port.
    pub port: u16,
    /// The project's root.
    pub project_path: String,
    /// The service type.
    pub service_type: String,
    /// The service's name, or null for an unnamed one.
    pub service_name: Option<String>,
    /// Which of the unnamed services of that type, from 0; null for a named one.
    pub slot: Option<u32>,
    /// When it was last used.
    pub last_used: String,
}

/// The answer to `GET /assignments`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AssignmentsResponse {
    /// By project and name.
    pub assignments: Vec<Assignment>,
}

/// `POST /assign`: all or none; reserves nothing.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct AssignRequest {
    /// The project's root, an absolute path.
    pub project_path: String,
    /// The services that want a port.
    pub services: Vec<AssignService>,
    /// Ports that none of them gets that does not wish for it.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "ports")]
    pub avoid_ports: Vec<u16>,
}

/// One service of `POST /assign`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct AssignService {
    /// A service type of the configuration.
    pub service_type: String,
    /// The service's name.
    pub service_name: String,
    /// The port wished for.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "port")]
    pub preferred_port: Option<u16>,
}

/// The answer to `POST /assign`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AssignResponse {
    /// Always true.
    pub success: bool,
    /// One a service, in the order asked.
    pub assignments: Vec<Assignment>,
    /// Those that had another port before.
    pub moved: Vec<Moved>,
}

/// An assignment that went to another port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moved {
    /// The project's root.
    pub project_path: String,
    /// The service type.
    pub service_type: String,
    /// The service's name.
    pub service_name: Option<String>,
    /// The port before.
    pub from: u16,
    /// The port now.
    pub to: u16,
}

/// The answer to `GET /allocations`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AllocationsResponse {
    /// By port.
    pub allocations: Vec<Allocation>,
}

/// The answer to `GET /scan`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ScanResponse {
    /// The ports that were looked at, such as `3000-9999`.
    pub scan_range: String,
    /// By port, TCP before UDP: one entry for each port and transport protocol.
    pub ports_in_use: Vec<PortInUse>,
}

/// A port that is allocated, or that a program uses, or both.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PortInUse {
    /// The port.
    pub port: u16,
    /// The allocation that has it.
    pub allocated_to: Option<Allocation>,
    /// Who uses it; null while nobody listens there yet.
    pub system_usage: Option<SystemUsage>,
}

/// The data of the event `released`: the allocation as it was, and why it ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Released {
    /// As it was.
    #[serde(flatten)]
    pub allocation: Allocation,
    /// Why: `released`, `forced`, `owner_died`, `listener_gone`, `lease_expired`, `instance_lost`.
    pub reason: String,
}

/// The data of the event `instance_lost`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceLost {
    /// The instance that died or fell silent.
    pub instance_id: String,
}

/// The data of the event `lagged`: the reader was slower than things happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lagged {
    /// How many events it did not get.
    pub missed: u64,
}

/// Every refusal, whatever its status.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ErrorResponse {
    /// Always false.
    pub success: bool,
    /// One sentence.
    pub error: String,
    /// A name that programs may rely on.
    pub code: String,
    /// The facts, and `suggestions`: what to do next.
    pub context: Map<String, Value>,
}

impl ErrorResponse {
    /// The `suggestions` of the context.
    pub fn suggestions(&self) -> impl Iterator<Item = &str> {
        let list = self.context.get("suggestions").and_then(Value::as_array);
        list.into_iter().flatten().filter_map(Value::as_str)
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
fn is_false(value: &bool) -> bool {
    !*value
}

fn null_as_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// A port or null, with an error that a person understands.
fn port<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u16>, D::Error> {
    let Some(number) = Option::<i64>::deserialize(deserializer)? else {
        return Ok(None);
    };
    port_of(number).map(Some)
}

/// A list of ports or null.
fn ports<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u16>, D::Error> {
    let numbers = Option::<Vec<i64>>::deserialize(deserializer)?.unwrap_or_default();
    numbers.into_iter().map(port_of).collect()
}

fn port_of<E: serde::de::Error>(number: i64) -> Result<u16, E> {
    match u16::try_from(number) {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(E::custom(format_args!("{number} is not a port: ports go from 1 to 65535"))),
    }
}
