//! The ports that the services of a project have, whether they run or not.

use super::context::read;
use super::here::Here;
use crate::api::{AssignRequest, AssignResponse, AssignService, Assignment, AssignmentsResponse};
use crate::client::fallback::Fallback;
use crate::client::{Client, Failure};
use crate::coordinator::Call;
use crate::error::Error;
use crate::project::Service;

/// The assignments of the project's services, made in one batch where they are missing, in the
/// order of styxy.toml. They hold nothing.
///
/// # Errors
///
/// Both kinds of [`Failure`].
pub(super) fn assign(client: &mut Client, here: &Here) -> Result<AssignResponse, Failure> {
    let project = here.project.clone().unwrap_or_default();
    let before: AssignmentsResponse =
        read(&client.call(&Call::Assignments(Some(project.clone())))?)?;
    let request = AssignRequest {
        project_path: project,
        services: wanted(here, &before.assignments),
        avoid_ports: here.ports_of_others(None),
    };
    read(&client.call(&Call::Assign(request))?)
}

/// The same without a reservation: only what can be read of the journal is known.
///
/// # Errors
///
/// [`Error::UnknownServiceType`], [`Error::RangeExhausted`].
pub(super) fn unreserved(fallback: &mut Fallback, here: &Here) -> Result<Vec<Assignment>, Error> {
    let project = here.project.as_deref().unwrap_or_default();
    let before = fallback.assignments(project);
    fallback.assign(project, &wanted(here, &before), &here.ports_of_others(None))
}

/// What each service asks for. A port of styxy.toml is for a service that has none yet, in the main
/// worktree: what was assigned once stays, so that every shell of a project sees the same.
fn wanted(here: &Here, before: &[Assignment]) -> Vec<AssignService> {
    let is_linked = here.is_linked();
    let has_port = |service: &Service| {
        let name = Some(service.name.as_str());
        before.iter().any(|it| it.service_name.as_deref() == name)
    };
    let one = |service: &Service| AssignService {
        service_type: service.service_type.clone(),
        service_name: service.name.clone(),
        preferred_port: service.port.filter(|_| !is_linked && !has_port(service)),
    };
    here.services.all().iter().map(one).collect()
}

/// The port of that service.
pub(super) fn port_of(assignments: &[Assignment], name: &str) -> Option<u16> {
    let found = assignments.iter().find(|it| it.service_name.as_deref() == Some(name));
    found.map(|assignment| assignment.port)
}
