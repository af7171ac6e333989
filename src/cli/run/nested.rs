//! A `run` inside a `run`: `styxy run -- npm run dev`, whose script says `styxy run -- vite`.

use super::super::args::Run;
use super::super::context::read;
use super::plan::Plan;
use crate::api::{
    AllocateRequest, AllocateResponse, Allocation, AllocationState, AllocationsResponse,
};
use crate::client::{Client, Failure};
use crate::coordinator::Call;

/// What an outer `run` has allocated for this one, if it did.
#[derive(Debug, Default)]
pub(super) struct Outer {
    allocations: Vec<Allocation>,
    /// A type was asked for, so only that will do.
    is_typed: bool,
    /// A port was asked for, so only that will do.
    port: Option<u16>,
}

/// The allocations of the outer `run` that wait for their servers.
///
/// # Errors
///
/// [`Failure`], when nobody can be asked.
pub(super) fn inherited(client: &mut Client, args: &Run, plan: &Plan) -> Result<Outer, Failure> {
    let lock_ids = lock_ids();
    if lock_ids.is_empty() || args.another {
        return Ok(Outer::default());
    }
    let list: AllocationsResponse = read(&client.call(&Call::Allocations)?)?;
    let is_outer = |it: &Allocation| lock_ids.contains(&it.lock_id);
    let allocations = list.allocations.into_iter().filter(is_outer).collect();
    Ok(Outer { allocations, is_typed: plan.is_typed, port: args.port })
}

/// The lock ids that the environment names. One without its port is no `run`'s.
fn lock_ids() -> Vec<String> {
    let variable = |name| std::env::var(name).ok().filter(|value: &String| !value.is_empty());
    let own = variable("STYXY_PORT").and_then(|_| variable("STYXY_LOCK_ID"));
    let all = variable("STYXY_LOCK_IDS").unwrap_or_default();
    own.into_iter().chain(all.split(',').filter(|id| !id.is_empty()).map(str::to_owned)).collect()
}

/// The owner of all of them when this process was started.
fn owner() -> Option<u32> {
    std::env::var("STYXY_OWNER").ok()?.parse().ok()
}

/// Whether somebody else has it, or nobody has it any more.
fn is_gone(code: &str) -> bool {
    matches!(code, "lock_id_conflict" | "unknown_lock")
}

impl Outer {
    /// Takes over the outer allocation that `request` asks for. One that another `run` within has
    /// taken is not had: both servers would be on one port.
    ///
    /// # Errors
    ///
    /// [`Failure`], when nobody can be asked.
    pub(super) fn take_over(
        &self,
        client: &mut Client,
        request: &AllocateRequest,
    ) -> Result<Option<Allocation>, Failure> {
        let Some((outer, previous)) = self.of(request).zip(owner()) else { return Ok(None) };
        let request = AllocateRequest {
            service_type: outer.service_type.clone(),
            preferred_port: None,
            lock_id: Some(outer.lock_id.clone()),
            previous_process_id: Some(previous),
            ..request.clone()
        };
        match client.call(&Call::Allocate(request)) {
            Ok(answer) => Ok(Some(read::<AllocateResponse>(&answer)?.allocation)),
            Err(Failure::Refused(refusal)) if is_gone(&refusal.code) => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    /// The outer allocation that `request` asks for, if it still waits for its server. A terminal
    /// inside a server that was started with `run` inherits the same variables, but there the port
    /// is in use.
    fn of(&self, request: &AllocateRequest) -> Option<&Allocation> {
        self.allocations.iter().find(|outer| {
            let same_service = match (&outer.service_name, &request.service_name) {
                (Some(outer), Some(name)) => outer == name,
                (None, None) => !self.is_typed || request.service_type == outer.service_type,
                _ => false,
            };
            same_service
                && outer.state == AllocationState::Reserved
                && outer.project_path == request.project_path
                && self.port.is_none_or(|port| port == outer.port)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::words::tests::web;
    use super::*;

    #[test]
    fn a_run_inside_a_run_of_the_same_service_inherits() {
        let named = Allocation { state: AllocationState::Reserved, listener: None, ..web() };
        let unnamed = Allocation { service_name: None, ..named.clone() };
        let inherits = |outer: &Allocation, name: Option<&str>, service_type, port| {
            let is_typed = Option::is_some(&service_type);
            let request = AllocateRequest {
                service_name: name.map(str::to_owned),
                service_type: service_type.unwrap_or("dev").to_owned(),
                project_path: Some("/home/ada/src/shop".to_owned()),
                ..AllocateRequest::default()
            };
            let outer = Outer { allocations: vec![outer.clone()], is_typed, port };
            outer.of(&request).is_some()
        };
        let table = [
            (&named, Some("web"), None, None, true),
            (&named, Some("api"), None, None, false),
            (&named, None, None, None, false),
            (&unnamed, None, None, None, true),
            (&unnamed, None, Some("dev"), None, true),
            (&unnamed, None, Some("api"), None, false),
            (&unnamed, Some("web"), None, None, false),
            (&named, Some("web"), None, Some(5173), true),
            (&named, Some("web"), None, Some(4000), false),
        ];
        for (outer, name, service_type, port, expected) in table {
            let case = format!("{name:?} {service_type:?} {port:?}");
            assert_eq!(inherits(outer, name, service_type, port), expected, "{case}");
        }
        assert!(!inherits(&web(), Some("web"), None, None), "its server listens already");
        let elsewhere = Allocation { project_path: Some("/srv".to_owned()), ..named };
        assert!(!inherits(&elsewhere, Some("web"), None, None), "it is another project's");
    }
}
