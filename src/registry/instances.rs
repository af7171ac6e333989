//! Instances: registered clients that prove that they live.

use std::time::Duration;

use serde_json::{Map, Value};
use uuid::Uuid;

use super::machine::Machine;
use super::model::{Allocation, Change, Instance, Moment, Process, Reason};
use super::policy::HEARTBEAT_PATIENCE;
use super::{Event, Registry};
use crate::error::Error;

/// A registration whose values were checked and whose process was verified.
#[derive(Debug, Clone)]
pub struct Registration {
    /// The id.
    pub instance_id: String,
    /// Where it works.
    pub working_directory: Option<String>,
    /// The process that proves that it lives.
    pub process: Option<Process>,
    /// What it wants to be shown.
    pub metadata: Map<String, Value>,
}

impl Registry {
    /// Registers a client, or says anew who it is. Answers whether it was new.
    pub fn register(&mut self, registration: Registration, now: Moment) -> bool {
        let Registration { instance_id, working_directory, process, metadata } = registration;
        let known = self.tables.instances.get(&instance_id);
        let registered_at_ms = known.map_or(now.unix_ms, |entry| entry.instance.registered_at_ms);
        let is_new = known.is_none();
        let instance = Instance {
            instance_id: instance_id.clone(),
            working_directory,
            process,
            registered_at_ms,
            metadata,
        };
        self.record(Change::Instance(instance));
        self.hear(&instance_id, now);
        is_new
    }

    /// An instance was heard of. Nothing is journalled: after a restart each has a full period.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownInstance`].
    pub fn heartbeat(&mut self, instance_id: &str, now: Moment) -> Result<(), Error> {
        if self.hear(instance_id, now) {
            Ok(())
        } else {
            Err(Error::UnknownInstance(instance_id.to_owned()))
        }
    }

    pub(super) fn hear(&mut self, instance_id: &str, now: Moment) -> bool {
        match self.tables.instances.get_mut(instance_id) {
            Some(entry) => {
                entry.heard = now.monotonic;
                entry.heard_ms = now.unix_ms;
                if entry.instance.process.is_none() {
                    let silence = now.monotonic + HEARTBEAT_PATIENCE;
                    self.silence = Some(self.silence.map_or(silence, |it| it.min(silence)));
                }
                true
            }
            None => false,
        }
    }

    /// Removes an instance. Answers the allocations that ended with it.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownInstance`].
    pub fn remove_instance(
        &mut self,
        instance_id: &str,
        machine: &mut impl Machine,
        now: Moment,
    ) -> Result<Vec<Allocation>, Error> {
        if !self.tables.instances.contains_key(instance_id) {
            return Err(Error::UnknownInstance(instance_id.to_owned()));
        }
        Ok(self.drop_instance(instance_id, machine, now))
    }

    pub(super) fn lose_instance(
        &mut self,
        instance_id: &str,
        machine: &mut impl Machine,
        now: Moment,
    ) {
        self.events.push(Event::InstanceLost(instance_id.to_owned()));
        self.drop_instance(instance_id, machine, now);
    }

    fn drop_instance(
        &mut self,
        instance_id: &str,
        machine: &mut impl Machine,
        now: Moment,
    ) -> Vec<Allocation> {
        self.record(Change::InstanceRemoved { instance_id: instance_id.to_owned() });
        let mut ended = Vec::new();
        for lock_id in self.tables.of_instance(instance_id).to_vec() {
            let before = self.allocation(lock_id).cloned();
            self.look(lock_id, machine);
            self.end_unless_held(lock_id, Reason::InstanceLost, now);
            if self.allocation(lock_id).is_none() {
                ended.extend(before);
            }
        }
        ended
    }

    /// Ends the instances that proved nothing for three heartbeats.
    pub(super) fn lose_silent_instances(&mut self, machine: &mut impl Machine, now: Moment) {
        if self.silence.is_none_or(|silence| silence > now.monotonic) {
            return;
        }
        let silent: Vec<String> = self
            .tables
            .instances
            .values()
            .filter(|entry| entry.instance.process.is_none())
            .filter(|entry| entry.heard + HEARTBEAT_PATIENCE <= now.monotonic)
            .map(|entry| entry.instance.instance_id.clone())
            .collect();
        for instance_id in silent {
            self.lose_instance(&instance_id, machine, now);
        }
        self.silence = self.next_silence();
    }

    /// When the next instance has been silent for too long.
    fn next_silence(&self) -> Option<Duration> {
        let waiting = self.tables.instances.values();
        waiting
            .filter(|entry| entry.instance.process.is_none())
            .map(|entry| entry.heard + HEARTBEAT_PATIENCE)
            .min()
    }

    /// The lock ids of the allocations that carry an instance's id.
    pub fn allocations_of_instance(&self, instance_id: &str) -> &[Uuid] {
        self.tables.of_instance(instance_id)
    }

    /// Gives every instance a full period: for after a restart.
    pub(super) fn hear_all(&mut self, now: Moment) {
        for entry in self.tables.instances.values_mut() {
            entry.heard = now.monotonic;
            entry.heard_ms = now.unix_ms;
        }
        self.silence = self.next_silence();
    }

    /// Ends the instances whose process died while nobody watched.
    pub(super) fn lose_dead_instances(&mut self, machine: &mut impl Machine, now: Moment) {
        let dead: Vec<String> = self
            .tables
            .instances
            .values()
            .filter(|entry| entry.instance.process.is_some_and(|p| !machine.is_alive(p)))
            .map(|entry| entry.instance.instance_id.clone())
            .collect();
        for instance_id in dead {
            self.lose_instance(&instance_id, machine, now);
        }
    }
}
