//! The operations on instances.

use uuid::Uuid;

use super::operations::{ports_released, show_ended};
use super::{Coordinator, Peer, now, validate};
use crate::api::{self, AllocateRequest};
use crate::error::Error;
use crate::registry::{HEARTBEAT, Registration};

impl Coordinator {
    /// `POST /instance/register`. Answers also whether it was new.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidValue`], [`Error::UnknownProcess`], [`Error::StateNotWritable`].
    pub fn register(
        &self,
        request: &api::RegisterRequest,
        peer: Peer,
    ) -> Result<(api::RegisterResponse, bool), Error> {
        if let Some(id) = &request.instance_id {
            validate::instance_id(id)?;
        }
        if let Some(metadata) = &request.metadata {
            validate::metadata(metadata)?;
        }
        let directory = request.working_directory.as_deref();
        let working_directory =
            directory.map(|path| validate::path("working_directory", path)).transpose()?;
        let instance_id = request.instance_id.clone().unwrap_or_else(|| Uuid::new_v4().to_string());
        self.change(|inner, now| {
            let named = AllocateRequest { process_id: request.process_id, ..Default::default() };
            let owner = inner.verify_owner(&named, peer, now)?.owner;
            let registration = Registration {
                instance_id: instance_id.clone(),
                working_directory,
                process: owner.map(|owner| owner.process),
                metadata: request.metadata.clone().unwrap_or_default(),
            };
            let is_new = inner.registry.register(registration, now);
            let proof = match owner {
                Some(owner) => format!("lives while process {} does", owner.process.pid),
                None => format!("lives while it is heard of every {} s", HEARTBEAT.as_secs()),
            };
            let message = format!("Instance {instance_id} {proof}");
            let heartbeat_seconds = HEARTBEAT.as_secs();
            let answer =
                api::RegisterResponse { success: true, instance_id, heartbeat_seconds, message };
            Ok((answer, is_new))
        })
    }

    /// `POST /instance/heartbeat`.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownInstance`], [`Error::StateNotWritable`].
    pub fn heartbeat(&self, instance_id: &str) -> Result<api::HeartbeatResponse, Error> {
        let mut inner = self.lock();
        inner.journal.is_usable()?;
        let now = now();
        inner.registry.heartbeat(instance_id, now)?;
        Ok(api::HeartbeatResponse {
            success: true,
            instance_id: instance_id.to_owned(),
            last_heartbeat: crate::registry::timestamp(now.unix_ms),
        })
    }

    /// `GET /instance/list`.
    pub fn instances(&self) -> api::InstancesResponse {
        api::InstancesResponse { instances: self.lock().registry.show_instances() }
    }

    /// `DELETE /instance/{id}`.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownInstance`], [`Error::StateNotWritable`].
    pub fn remove_instance(&self, instance_id: &str) -> Result<api::RemoveInstanceResponse, Error> {
        self.end(|inner, now| {
            let ended = inner.registry.remove_instance(instance_id, &mut inner.host, now)?;
            Ok(api::RemoveInstanceResponse {
                success: true,
                instance_id: instance_id.to_owned(),
                message: format!("Instance removed, {}", ports_released(ended.len())),
                released: show_ended(&ended, now),
            })
        })
    }
}
