//! What can be refused, in the words of the domain.
//!
//! Nothing here knows of HTTP or of exit codes: `http` maps an error once to a status, `cli` once
//! to an exit code, both by [`Error::code`].

use serde_json::{Map, Value, json};

use crate::api::{Allocation, ErrorResponse, SystemUsage};
use crate::text::printable;

/// A refusal.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The request could not be read at all.
    #[error("{0}")]
    MalformedRequest(String),
    /// One field has a value that cannot be.
    #[error("{field}: {reason}")]
    InvalidValue {
        /// The field as the wire names it.
        field: String,
        /// What is wrong with it.
        reason: String,
    },
    /// No such service type.
    #[error("'{given}' is not a service type{}", nearest.as_ref().map(|n| format!("; did you mean '{n}'?")).unwrap_or_default())]
    UnknownServiceType {
        /// What was asked for.
        given: String,
        /// The known type that looks most like it.
        nearest: Option<String>,
        /// All known types.
        known: Vec<String>,
    },
    /// The owner cannot be what the request says.
    #[error("process {pid} {reason}")]
    UnknownProcess {
        /// The process id of the request.
        pid: u32,
        /// Why it cannot be the owner.
        reason: String,
    },
    /// No allocation has this lock id.
    #[error("no allocation has the lock id {0}")]
    UnknownLock(String),
    /// No instance has this id.
    #[error("no instance is registered as '{0}'")]
    UnknownInstance(String),
    /// The port asked for with `exact` is not to be had.
    #[error("port {port} {reason}")]
    PortUnavailable {
        /// The port.
        port: u16,
        /// Why: `is taken`, `is on the avoid list`, …
        reason: String,
        /// The allocation that has it.
        allocated_to: Option<Box<Allocation>>,
        /// Who uses it otherwise.
        system_usage: Option<Box<SystemUsage>>,
        /// The port that would be given instead.
        instead: Option<u16>,
    },
    /// The service runs already, and the request said `refuse`.
    #[error("'{}' runs already on port {}", running.service_name.as_deref().unwrap_or("it"), running.port)]
    AlreadyRunning {
        /// The running one.
        running: Box<Allocation>,
    },
    /// The lock id names another service's allocation.
    #[error("the lock id {lock_id} belongs to another allocation (port {port})")]
    LockIdConflict {
        /// The lock id.
        lock_id: String,
        /// The port of its allocation.
        port: u16,
    },
    /// The client lives in another network namespace: its ports are not ours.
    #[error("the client is in another network namespace, whose ports this daemon does not know")]
    ForeignNamespace,
    /// Every port that the type may have is taken.
    #[error("no port is free for {service_type}: {range} are all taken")]
    RangeExhausted {
        /// The service type.
        service_type: String,
        /// The ranges that were tried, as `8000-8099 and 20000-29999`.
        range: String,
        /// Who fills the range, a line each, the largest first.
        filled_by: Vec<String>,
    },
    /// The daemon is on its way out.
    #[error("the daemon is shutting down")]
    ShuttingDown,
    /// The journal cannot be written, so nothing that must be remembered may be answered.
    #[error("the state can't be written: {0}")]
    StateNotWritable(String),
}

impl Error {
    /// An [`Error::InvalidValue`].
    pub fn invalid(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::InvalidValue { field: field.into(), reason: reason.into() }
    }

    /// The stable name that programs rely on.
    pub fn code(&self) -> &'static str {
        match self {
            Self::MalformedRequest(_) => "malformed_request",
            Self::InvalidValue { .. } => "invalid_value",
            Self::UnknownServiceType { .. } => "unknown_service_type",
            Self::UnknownProcess { .. } => "unknown_process",
            Self::UnknownLock(_) => "unknown_lock",
            Self::UnknownInstance(_) => "unknown_instance",
            Self::PortUnavailable { .. } => "port_unavailable",
            Self::AlreadyRunning { .. } => "already_running",
            Self::LockIdConflict { .. } => "lock_id_conflict",
            Self::ForeignNamespace => "foreign_namespace",
            Self::RangeExhausted { .. } => "range_exhausted",
            Self::ShuttingDown => "shutting_down",
            Self::StateNotWritable(_) => "state_not_writable",
        }
    }

    /// The facts, and what to do next.
    fn context(&self) -> Value {
        match self {
            Self::MalformedRequest(_) => json!({
                "suggestions": ["send JSON as /openapi.json describes it"],
            }),
            Self::InvalidValue { field, .. } => json!({
                "field": field,
                "suggestions": [format!("correct {field} and ask again")],
            }),
            Self::UnknownServiceType { given, nearest, known } => json!({
                "given": given,
                "nearest": nearest,
                "known": known,
                "suggestions": [match nearest {
                    Some(nearest) => format!("use {nearest}, or add [service.{given}] to the configuration"),
                    None => format!("use one of {}", known.join(", ")),
                }],
            }),
            Self::UnknownProcess { pid, .. } => json!({
                "process_id": pid,
                "suggestions": ["name a living process of your own, or none and renew the lease"],
            }),
            Self::UnknownLock(lock_id) => json!({
                "lock_id": lock_id,
                "suggestions": ["styxy list shows the allocations that live"],
            }),
            Self::UnknownInstance(id) => json!({
                "instance_id": id,
                "suggestions": ["register it again: styxy instance register"],
            }),
            Self::PortUnavailable { port, allocated_to, system_usage, instead, .. } => json!({
                "port": port,
                "holder": { "allocated_to": allocated_to, "system_usage": system_usage },
                "instead": instead,
                "suggestions": [match instead {
                    Some(instead) => format!("ask without exact: port {instead} is free"),
                    None => "ask without exact".to_owned(),
                }],
            }),
            Self::AlreadyRunning { running } => json!({
                "running": running,
                "suggestions": [format!("use http://localhost:{}, or ask with if_running \"another\"", running.port)],
            }),
            Self::LockIdConflict { lock_id, port } => json!({
                "lock_id": lock_id,
                "port": port,
                "suggestions": ["choose a new UUID for every allocation"],
            }),
            Self::ForeignNamespace => json!({
                "suggestions": ["styxy run works there without the daemon, on that namespace's own ports"],
            }),
            Self::RangeExhausted { service_type, range, filled_by } => json!({
                "service_type": service_type,
                "range": range,
                "filled_by": filled_by,
                "suggestions": ["styxy list shows who has them; styxy release NAME ends one"],
            }),
            Self::ShuttingDown => json!({ "suggestions": ["ask again"] }),
            Self::StateNotWritable(_) => json!({
                "suggestions": ["make room or mend the permissions of the state directory (styxy config path), then ask again"],
            }),
        }
    }

    /// The error as the wire says it.
    pub fn to_response(&self) -> ErrorResponse {
        let Value::Object(context) = self.context() else { unreachable!("a context is an object") };
        response(self.code(), &self.to_string(), context)
    }
}

/// An error answer from its parts. Whatever of the request is in its sentence cannot steer the
/// terminal that shows it.
pub fn response(code: &str, error: &str, context: Map<String, Value>) -> ErrorResponse {
    let error = printable(error).into_owned();
    ErrorResponse { success: false, error, code: code.to_owned(), context }
}
