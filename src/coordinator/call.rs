//! The operations of the wire as values: what a client sends and a coordinator carries out.

use serde::Serialize;

use super::{Coordinator, Decided, Peer};
use crate::api;
use crate::error::Error;

/// As many bytes as the answer to an allocation has, and some to spare: room is made once. An
/// allocator hands out as much from its cache yet.
const TYPICAL_ANSWER: usize = 1000;

/// As many bytes as an allocation or a used port has in a list, and some to spare.
const TYPICAL_ITEM: usize = 400;

/// One operation of the wire.
#[derive(Debug, Clone)]
pub enum Call {
    /// `POST /allocate`
    Allocate(api::AllocateRequest),
    /// `POST /allocate/batch`
    AllocateBatch(api::BatchRequest),
    /// `POST /allocate/{lockId}/renew`
    Renew(String, api::RenewRequest),
    /// `DELETE /allocate/{lockId}`
    Release(String),
    /// `GET /check/{port}?protocol=`
    Check(u16, api::Protocol),
    /// `GET /suggest/{serviceType}?count=&preferred_port=`
    Suggest(String, Option<u16>, usize),
    /// `POST /instance/register`
    Register(api::RegisterRequest),
    /// `POST /instance/heartbeat`
    Heartbeat(api::HeartbeatRequest),
    /// `GET /instance/list`
    Instances,
    /// `DELETE /instance/{id}`
    RemoveInstance(String),
    /// `GET /status`
    Status,
    /// `POST /cleanup`
    Cleanup(api::CleanupRequest),
    /// `GET /assignments?project_path=`
    Assignments(Option<String>),
    /// `POST /assign`
    Assign(api::AssignRequest),
    /// `GET /allocations`
    Allocations,
    /// `GET /scan?start=&end=`
    Scan(u16, u16),
    /// `GET /config`
    Config,
}

/// An answer: its JSON, and whether something was made (201).
#[derive(Debug, Clone)]
pub struct Answer {
    /// The JSON text.
    pub body: String,
    /// Something new was made.
    pub created: bool,
}

impl Answer {
    fn ok(value: &impl Serialize) -> Self {
        Self::new(value, false)
    }

    fn new(value: &impl Serialize, created: bool) -> Self {
        Self::with_capacity(TYPICAL_ANSWER, value, created)
    }

    fn of_list(items: usize, value: &impl Serialize) -> Self {
        Self::with_capacity(TYPICAL_ANSWER + TYPICAL_ITEM * items, value, false)
    }

    fn with_capacity(bytes: usize, value: &impl Serialize, created: bool) -> Self {
        let mut body = Vec::with_capacity(bytes);
        // The wire types are strings, numbers, lists and maps with string keys: none can fail.
        let written = serde_json::to_writer(&mut body, value);
        let body = written.ok().and_then(|()| String::from_utf8(body).ok());
        Self { body: body.unwrap_or_default(), created }
    }
}

impl Call {
    /// Whether it may look for the process behind a socket, which is slow: off the async thread.
    pub fn is_slow(&self) -> bool {
        match self {
            Self::Check(..) | Self::Allocations | Self::Scan(..) => true,
            // Who asks for a number and does not get it is told who has it.
            Self::Allocate(request) => request.preferred_port.is_some(),
            Self::AllocateBatch(batch) => {
                batch.requests.iter().any(|request| request.preferred_port.is_some())
            }
            _ => false,
        }
    }
}

impl Coordinator {
    /// Decides one operation. What may share its append with others is not written yet:
    /// [`Coordinator::written`] has the answer.
    ///
    /// # Errors
    ///
    /// The operation's refusal.
    pub fn begin(&self, call: &Call, peer: Peer) -> Result<Decided<Answer>, Error> {
        match call {
            Call::Allocate(request) if !request.dry_run && request.preferred_port.is_none() => {
                let decided = self.begin_allocate(request, peer)?;
                Ok(decided.map(|answer| Answer::new(&answer, !answer.reused)))
            }
            Call::Release(lock_id) => {
                Ok(self.begin_release(lock_id)?.map(|answer| Answer::ok(&answer)))
            }
            call => self.call(call, peer).map(Decided::written),
        }
    }

    /// Carries out one operation.
    ///
    /// # Errors
    ///
    /// The operation's refusal.
    pub fn call(&self, call: &Call, peer: Peer) -> Result<Answer, Error> {
        match call {
            Call::Allocate(request) => {
                let mut answer = self.allocate(request, peer)?;
                self.name_taker(request, &mut answer);
                Ok(Answer::new(&answer, !answer.reused && !request.dry_run))
            }
            Call::AllocateBatch(batch) => {
                let mut answer = self.allocate_batch(batch, peer)?;
                for (request, answer) in batch.requests.iter().zip(&mut answer.allocations) {
                    self.name_taker(request, answer);
                }
                Ok(Answer::new(&answer, true))
            }
            Call::Renew(lock_id, request) => Ok(Answer::ok(&self.renew(lock_id, request)?)),
            Call::Release(lock_id) => Ok(Answer::ok(&self.release(lock_id)?)),
            Call::Check(port, protocol) => Ok(Answer::ok(&self.check(*port, *protocol))),
            Call::Suggest(service_type, wish, count) => {
                Ok(Answer::ok(&self.suggest(service_type, *wish, *count)?))
            }
            Call::Register(request) => {
                let (answer, is_new) = self.register(request, peer)?;
                Ok(Answer::new(&answer, is_new))
            }
            Call::Heartbeat(request) => Ok(Answer::ok(&self.heartbeat(&request.instance_id)?)),
            Call::Instances => Ok(Answer::ok(&self.instances())),
            Call::RemoveInstance(id) => Ok(Answer::ok(&self.remove_instance(id)?)),
            Call::Status => Ok(Answer::ok(&self.status())),
            Call::Cleanup(request) => Ok(Answer::ok(&self.cleanup(request)?)),
            Call::Assignments(project) => Ok(Answer::ok(&self.assignments(project.as_deref())?)),
            Call::Assign(request) => Ok(Answer::ok(&self.assign(request)?)),
            Call::Allocations => {
                let answer = self.allocations();
                Ok(Answer::of_list(answer.allocations.len(), &answer))
            }
            Call::Scan(start, end) => {
                let answer = self.scan(*start, *end)?;
                Ok(Answer::of_list(answer.ports_in_use.len(), &answer))
            }
            Call::Config => Ok(Answer::ok(&self.config().to_json())),
        }
    }
}
