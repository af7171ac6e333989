//! Assignments: which port a service gets, today and after a reboot. They hold nothing.

use super::candidates::{Origin, Search, seed};
use super::machine::Machine;
use super::model::{Assignment, AssignmentKey, Change, Moment, Service};
use super::policy::{ASSIGNMENT_AGE_MS, LAST_USED_RESOLUTION_MS, MAX_ASSIGNMENTS};
use super::{Event, Registry};
use crate::api::{Moved, Protocol};
use crate::error::Error;

/// One service that wants an assignment.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// A service type.
    pub service_type: String,
    /// The service's name.
    pub service_name: String,
    /// The port asked for by number.
    pub wish: Option<u16>,
    /// Ports that are left to others, unless this one wishes for them.
    pub avoid: Vec<u16>,
}

impl Registry {
    /// Makes the assignment of one service where it is missing, or moves it to the port asked for.
    /// An existing one is never probed: its own server may listen there.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownServiceType`], [`Error::RangeExhausted`].
    pub fn assign(
        &mut self,
        project_path: &str,
        wanted: &Wanted,
        machine: &mut impl Machine,
        now: Moment,
    ) -> Result<(Assignment, Option<Moved>), Error> {
        let service_type = self.service_type(&wanted.service_type)?;
        let key = AssignmentKey {
            project_path: project_path.to_owned(),
            service: Service::Named(wanted.service_name.clone()),
        };
        let before = self.tables.assignments.get(&key).map(|assignment| assignment.port);
        if let Some(port) = before
            && wanted.wish.is_none_or(|wish| wish == port)
        {
            self.touch_assignment(&key, now);
            return Ok((self.tables.assignments[&key].clone(), None));
        }
        let search = Search {
            service_type,
            protocol: Protocol::Tcp,
            wish: wanted.wish,
            assigned: None,
            key: Some(&key),
            avoid: &wanted.avoid,
            seed: seed(Some(project_path), &wanted.service_name, None),
        };
        let port = match self.assignable(&search, machine) {
            Some((_, origin)) if before.is_some() && origin != Origin::Wish => before,
            found => found.map(|(port, _)| port),
        };
        let port = port.ok_or_else(|| self.exhausted(&wanted.service_type, service_type))?;
        if let Some(other) = self.tables.assigned_to_other(port, Some(&key)).cloned() {
            self.record(Change::AssignmentRemoved { key: other });
        }
        let moved = before.filter(|from| *from != port).map(|from| Moved {
            project_path: project_path.to_owned(),
            service_type: wanted.service_type.clone(),
            service_name: Some(wanted.service_name.clone()),
            from,
            to: port,
        });
        self.events.extend(moved.clone().map(Event::Moved));
        let assignment = Assignment {
            key,
            service_type: wanted.service_type.clone(),
            port,
            last_used_ms: now.unix_ms,
        };
        self.put_assignment(assignment.clone());
        Ok((assignment, moved))
    }

    /// The first candidate that may become an assignment: free, and no living project's.
    fn assignable(&self, search: &Search<'_>, machine: &mut impl Machine) -> Option<(u16, Origin)> {
        search.candidates(&self.policy.overflow).find(|(port, _)| {
            // `Pick`, because not even a wish takes another service's assignment here.
            self.try_port(*port, Origin::Pick, search, machine).is_ok()
        })
    }

    /// Puts an assignment in, and forgets the least recently used one beyond the bound.
    pub(super) fn put_assignment(&mut self, assignment: Assignment) {
        let new = assignment.key.clone();
        self.record(Change::Assignment(assignment));
        if self.tables.assignments.len() > MAX_ASSIGNMENTS {
            // Never the new one, whatever became of the clock since the others were made.
            let others = self.tables.assignments.values().filter(|it| it.key != new);
            let oldest = others.min_by_key(|it| it.last_used_ms);
            if let Some(key) = oldest.map(|assignment| assignment.key.clone()) {
                self.record(Change::AssignmentRemoved { key });
            }
        }
    }

    /// Notes that an assignment was used, to the day: a line for each use would say no more.
    pub(super) fn touch_assignment(&mut self, key: &AssignmentKey, now: Moment) {
        let Some(assignment) = self.tables.assignments.get(key) else { return };
        if now.unix_ms.saturating_sub(assignment.last_used_ms) >= LAST_USED_RESOLUTION_MS {
            let used = Assignment { last_used_ms: now.unix_ms, ..assignment.clone() };
            self.record(Change::Assignment(used));
        }
    }

    /// Forgets the assignments of projects that are gone, and those that nobody used for 90 days.
    pub fn forget_assignments(&mut self, machine: &mut impl Machine, now: Moment) {
        let mut forgotten = Vec::new();
        let mut last: Option<(&str, bool)> = None;
        for (key, assignment) in &self.tables.assignments {
            // They are in the order of their projects: each directory is looked at once.
            let exists = match last {
                Some((path, exists)) if path == key.project_path => exists,
                _ => machine.directory_exists(&key.project_path),
            };
            last = Some((&key.project_path, exists));
            let age = now.unix_ms.saturating_sub(assignment.last_used_ms);
            if !exists || age > ASSIGNMENT_AGE_MS {
                forgotten.push(key.clone());
            }
        }
        for key in forgotten {
            self.record(Change::AssignmentRemoved { key });
        }
    }
}
