//! A command on ports that are free but not reserved: Styxy must never be the reason that a server
//! can't start.

use super::super::allocate::explain_notes;
use super::super::args::Run;
use super::super::context::Context;
use super::super::failure::{Exit, Failed};
use super::super::here::Here;
use super::super::{assigned, words};
use super::exec::{Place, become_command};
use super::plan::Plan;
use super::{announce, start};
use crate::client::Failure;
use crate::client::fallback::Picked;
use crate::error::Error;

/// Becomes the command, unless a reservation was asked for. `failure` says why there is none.
pub(super) fn run(
    context: &Context,
    args: &Run,
    here: &Here,
    plan: &Plan,
    failure: Failure,
) -> Failed {
    if args.required.require {
        return Failed::from(failure).exit(Exit::Unreachable);
    }
    let mut fallback = context.fallback();
    let picked: Result<Vec<Picked>, Error> =
        plan.wanted.iter().map(|wanted| fallback.pick(&wanted.request)).collect();
    let picked = match picked {
        Ok(picked) => picked,
        Err(error) => return Failure::Refused(Box::new(error.to_response())).into(),
    };
    context.say(&format!("warning: not reserved ({failure})"));
    let mut places = Vec::with_capacity(picked.len());
    for (wanted, picked) in plan.wanted.iter().zip(&picked) {
        let name = wanted.request.service_name.clone();
        let service = words::service(&wanted.request.service_type, name.as_deref());
        announce(context, &service, picked.port);
        explain_notes(context, &picked.notes);
        places.push(Place { port: picked.port, lock_id: None, owner: None, name });
    }
    // The siblings' ports are of use only where they are known.
    let siblings = assigned::unreserved(&mut fallback, here).unwrap_or_default();
    let failed = become_command(&start(context, args, here, plan, places, &siblings));
    drop(picked);
    failed
}
