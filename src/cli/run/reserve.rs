//! Ports that are allocated, and bound so that nobody gets in between.

use std::os::fd::OwnedFd;

use serde_json::{Map, json};

use super::super::context::read;
use super::super::owner::new_lock_id;
use crate::api::{AllocateRequest, AllocateResponse, BatchRequest, BatchResponse, Protocol};
use crate::client::{Client, Failure};
use crate::coordinator::Call;
use crate::detect::ports;
use crate::error;
use crate::registry::Probe;

/// How often to ask again when somebody else took a port between the answer and the bind.
const ATTEMPTS: usize = 5;

/// Ports that are allocated, one for each request.
#[derive(Debug, Default)]
pub(super) struct Reserved {
    /// In the order of the requests.
    pub(super) answers: Vec<AllocateResponse>,
    sockets: Vec<OwnedFd>,
}

impl Reserved {
    /// Gives the ports back that this process can't use. When that fails, the end of this process,
    /// their owner, does the same.
    pub(super) fn release(self, client: &mut Client) {
        drop(self.sockets);
        for answer in self.answers {
            drop(client.call(&Call::Release(answer.lock_id)));
        }
    }
}

/// Asks for ports and binds them, until both succeed: all or none.
///
/// # Errors
///
/// The refusal; `port_unavailable` when each port that was allocated could not be bound.
pub(super) fn reserve(
    client: &mut Client,
    mut requests: Vec<AllocateRequest>,
) -> Result<Reserved, Failure> {
    let mut attempts = 1;
    loop {
        let mut reserved = Reserved { answers: ask(client, &requests)?, sockets: Vec::new() };
        let mut hold = |answer: &AllocateResponse| {
            let held = ports::hold(answer.port, Protocol::Tcp);
            held.map(|held| reserved.sockets.extend(held)).map_err(|probe| (answer.port, probe))
        };
        let Err((port, probe)) = reserved.answers.iter().try_for_each(&mut hold) else {
            return Ok(reserved);
        };
        reserved.release(client);
        if attempts == ATTEMPTS {
            return Err(not_held(port, probe));
        }
        attempts += 1;
        for request in &mut requests {
            request.lock_id = Some(new_lock_id());
        }
    }
}

/// Several requests are all granted or none.
fn ask(
    client: &mut Client,
    requests: &[AllocateRequest],
) -> Result<Vec<AllocateResponse>, Failure> {
    match requests {
        [] => Ok(Vec::new()),
        [only] => Ok(vec![read(&client.call(&Call::Allocate(only.clone()))?)?]),
        several => {
            let batch = BatchRequest { requests: several.to_vec() };
            let answer = client.call(&Call::AllocateBatch(batch))?;
            Ok(read::<BatchResponse>(&answer)?.allocations)
        }
    }
}

/// Each port that was allocated could not be bound here.
pub(super) fn not_held(port: u16, probe: Probe) -> Failure {
    let reason = match probe {
        Probe::Forbidden => "may not be bound by this user",
        Probe::Free | Probe::Taken => "was taken at once by somebody else, as were those before it",
    };
    let context = Map::from_iter([("suggestions".to_owned(), json!(["the same again"]))]);
    let refusal = error::response("port_unavailable", &format!("port {port} {reason}"), context);
    Failure::Refused(Box::new(refusal))
}
