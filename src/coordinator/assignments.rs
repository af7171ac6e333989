//! The operations on assignments.

use super::{Coordinator, validate};
use crate::api;
use crate::error::Error;
use crate::registry::{Assignment, Wanted};

impl Coordinator {
    /// `GET /assignments`.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidValue`].
    pub fn assignments(&self, project: Option<&str>) -> Result<api::AssignmentsResponse, Error> {
        let project = project.map(|path| validate::path("project_path", path)).transpose()?;
        let inner = self.lock();
        let assignments = inner.registry.assignments();
        let wanted = assignments
            .filter(|it| project.as_ref().is_none_or(|path| it.key.project_path == *path));
        Ok(api::AssignmentsResponse { assignments: wanted.map(Assignment::to_wire).collect() })
    }

    /// `POST /assign`: all or none; reserves nothing.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidValue`], [`Error::UnknownServiceType`], [`Error::RangeExhausted`],
    /// [`Error::StateNotWritable`].
    pub fn assign(&self, request: &api::AssignRequest) -> Result<api::AssignResponse, Error> {
        let project = validate::path("project_path", &request.project_path)?;
        validate::entries("services", request.services.len())?;
        validate::avoided(&request.avoid_ports)?;
        self.change(|inner, now| {
            let mut assignments = Vec::with_capacity(request.services.len());
            let mut moved = Vec::new();
            for (index, service) in request.services.iter().enumerate() {
                let done = validate::name("service_name", &service.service_name).and_then(|()| {
                    let wanted = Wanted {
                        service_type: service.service_type.clone(),
                        service_name: service.service_name.clone(),
                        wish: service.preferred_port,
                        avoid: request.avoid_ports.clone(),
                    };
                    inner.registry.assign(&project, &wanted, &mut inner.host, now)
                });
                let (assignment, change) = done.map_err(|error| {
                    validate::within(self.with_nearest(error), "services", index)
                })?;
                assignments.push(assignment.to_wire());
                moved.extend(change);
            }
            Ok(api::AssignResponse { success: true, assignments, moved })
        })
    }
}
