//! A request becomes an allocation: reuse, pick, record.

use std::time::Duration;

use uuid::Uuid;

use super::candidates::{Origin, Search, Skip, seed};
use super::machine::{Machine, Publisher};
use super::model::{
    Allocation, Assignment, AssignmentKey, Change, Lease, Moment, Owner, Reason, Service,
    milliseconds,
};
use super::reuse::{Reuse, granted_again, repeated};
use super::{Event, Registry};
use crate::api::{IfRunning, Moved, Protocol};
use crate::config::ServiceType;
use crate::error::Error;

/// A request whose values were checked and whose owner was verified.
#[derive(Debug, Clone)]
pub struct Request {
    /// A service type.
    pub service_type: String,
    /// The service's name; only named requests are reused.
    pub service_name: Option<String>,
    /// The project's root.
    pub project_path: Option<String>,
    /// The transport protocol.
    pub protocol: Protocol,
    /// The port asked for by number.
    pub wish: Option<u16>,
    /// Take the first candidate or none.
    pub exact: bool,
    /// Ports that are left to others, unless this one wishes for them or has them already.
    pub avoid: Vec<u16>,
    /// The process it is for.
    pub owner: Option<Owner>,
    /// The registered client that asks.
    pub instance_id: Option<String>,
    /// The lease asked for.
    pub lease: Option<Duration>,
    /// What to do when that service runs already.
    pub if_running: IfRunning,
    /// The pid of the owner from whom the allocation `lock_id` goes over.
    pub previous: Option<u32>,
    /// What will name the allocation.
    pub lock_id: Uuid,
}

/// An allocation that was granted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Granted {
    /// Which one.
    pub lock_id: Uuid,
    /// It was there before.
    pub reused: bool,
    /// The other live allocations of the same service.
    pub also_running: Vec<Uuid>,
    /// The service's assignment went to another port.
    pub moved: Option<Moved>,
    /// Sentences a person wants to know besides.
    pub notes: Vec<String>,
}

/// A port that was found, and what was passed over on the way.
struct Pick {
    port: u16,
    origin: Origin,
    wish_skipped: Option<Skip>,
    /// Somebody whom the registry does not know listens on the service's own port.
    assigned_taken: bool,
}

impl Registry {
    /// Decides a request. The change is made in memory and waits for [`Registry::commit`].
    ///
    /// # Errors
    ///
    /// The request's refusal; nothing is changed then.
    pub fn allocate(
        &mut self,
        request: &Request,
        machine: &mut impl Machine,
        now: Moment,
    ) -> Result<Granted, Error> {
        self.service_type(&request.service_type)?;
        if let Some(previous) = request.previous {
            return self.take_over(previous, request, machine, now);
        }
        if let Some(entry) = self.tables.entry(request.lock_id) {
            return repeated(request, &entry.allocation);
        }
        let beside = match self.reuse(request, machine, now)? {
            Reuse::AsItIs(lock_id) => {
                let notes = self.other_port(lock_id, request);
                return Ok(granted_again(lock_id, notes));
            }
            Reuse::HandOver(lock_id) => return Ok(self.hand_over(lock_id, request, now)),
            Reuse::Another(beside) => beside,
        };
        self.make(request, beside, machine, now)
    }

    /// The service type of that name.
    pub(super) fn service_type(&self, name: &str) -> Result<&ServiceType, Error> {
        let services = &self.policy.services;
        services.get(name).ok_or_else(|| Error::UnknownServiceType {
            given: name.to_owned(),
            nearest: None,
            known: services.keys().cloned().collect(),
        })
    }

    /// Steps 4 to 6: a port, an allocation, an assignment.
    fn make(
        &mut self,
        request: &Request,
        also_running: Vec<Uuid>,
        machine: &mut impl Machine,
        now: Moment,
    ) -> Result<Granted, Error> {
        let project = request.project_path.as_deref();
        let slot = request
            .service_name
            .is_none()
            .then(|| self.tables.free_slot(project, &request.service_type));
        let key = assignment_key(request, slot);
        let search = Search {
            service_type: self.service_type(&request.service_type)?,
            protocol: request.protocol,
            wish: request.wish,
            assigned: key
                .as_ref()
                .and_then(|key| self.tables.assignments.get(key))
                .map(|assignment| assignment.port),
            key: key.as_ref(),
            avoid: &request.avoid,
            seed: seed(
                project,
                request.service_name.as_deref().unwrap_or(&request.service_type),
                slot,
            ),
        };
        let pick = self.pick(&search, request, machine, now)?;

        let mut notes = Vec::new();
        if let (Some(wish), Some(skip)) = (request.wish, &pick.wish_skipped) {
            notes.push(format!(
                "port {wish} {}: this is {}",
                self.tell(wish, skip, request.protocol),
                pick.port
            ));
        }
        let lease = self.lease_for(request, now, &mut notes);
        self.record(Change::Allocation(Allocation {
            lock_id: request.lock_id,
            port: pick.port,
            protocol: request.protocol,
            service_type: request.service_type.clone(),
            service_name: request.service_name.clone(),
            project_path: request.project_path.clone(),
            slot,
            owner: request.owner,
            instance_id: request.instance_id.clone(),
            lease,
            taken_over: false,
            allocated_at_ms: now.unix_ms,
        }));
        self.events.push(Event::Allocated(request.lock_id));
        let moved = key.and_then(|key| self.assign_picked(key, &pick, request, machine, now));
        if let Some(moved) = &moved {
            notes.push(format!("its port is {} from now on, it was {}", moved.to, moved.from));
        }
        Ok(Granted { lock_id: request.lock_id, reused: false, also_running, moved, notes })
    }

    /// Goes through the candidates until one is free.
    fn pick(
        &self,
        search: &Search<'_>,
        request: &Request,
        machine: &mut impl Machine,
        now: Moment,
    ) -> Result<Pick, Error> {
        let mut wish_skipped = None;
        let mut assigned_taken = false;
        let mut consider = |(port, origin)| {
            // What is skipped without a word is most of a range that is nearly full.
            let is_silent = origin == Origin::Pick && !request.exact;
            if is_silent && self.tables.is_allocated(port, request.protocol) {
                return None;
            }
            let skip = match self.try_port(port, origin, search, machine) {
                Ok(()) => return Some(Ok((port, origin))),
                Err(skip) => skip,
            };
            if request.exact {
                return Some(Err((port, skip)));
            }
            match origin {
                Origin::Wish => {
                    // The service's own port, asked for by number, is still its own port.
                    assigned_taken |= search.assigned == Some(port) && skip.is_taken();
                    wish_skipped = Some(skip);
                }
                Origin::Assigned => assigned_taken |= skip.is_taken(),
                Origin::Pick => {}
            }
            None
        };
        // Not a loop, in which each port would be asked for through the whole chain of iterators.
        match search.candidates(&self.policy.overflow).find_map(&mut consider) {
            Some(Ok((port, origin))) => Ok(Pick { port, origin, wish_skipped, assigned_taken }),
            Some(Err((port, skip))) => {
                Err(self.unavailable((port, &skip), search, request, machine, now))
            }
            None => Err(self.exhausted(&request.service_type, search.service_type)),
        }
    }

    /// The refusal of an exact request, with the port that it would get otherwise.
    fn unavailable(
        &self,
        (port, skip): (u16, &Skip),
        search: &Search<'_>,
        request: &Request,
        machine: &mut impl Machine,
        now: Moment,
    ) -> Error {
        let instead = search
            .candidates(&self.policy.overflow)
            .find(|(port, origin)| self.try_port(*port, *origin, search, machine).is_ok());
        let holder = self.tables.at(port, request.protocol).filter(|_| *skip == Skip::Allocated);
        Error::PortUnavailable {
            port,
            reason: match skip {
                Skip::Allocated | Skip::Taken | Skip::Published(_) => "is taken".to_owned(),
                other => self.tell(port, other, request.protocol),
            },
            allocated_to: holder.map(|entry| Box::new(Self::entry_to_wire(entry, now))),
            system_usage: match skip {
                Skip::Published(publisher) => Some(Box::new(publisher.usage.clone())),
                _ => None,
            },
            instead: instead.map(|(port, _)| port),
        }
    }

    /// Why a port was passed over, as the end of a sentence that begins with the port.
    pub(super) fn tell(&self, port: u16, skip: &Skip, protocol: Protocol) -> String {
        match skip {
            Skip::Never(reason) => (*reason).to_owned(),
            Skip::Allocated => match self.tables.at(port, protocol) {
                Some(entry) => format!("is allocated to {}", describe(&entry.allocation)),
                None => "is allocated".to_owned(),
            },
            Skip::Assigned(key) => format!("is kept for another service of {}", key.project_path),
            Skip::Taken => "is taken by another program, not by an error in this code".to_owned(),
            Skip::Published(publisher) => published_by(publisher),
            Skip::Forbidden => "needs privileges that this user doesn't have".to_owned(),
        }
    }

    /// Every candidate was taken: who fills the type's range, by project and service.
    pub(super) fn exhausted(&self, name: &str, service_type: &ServiceType) -> Error {
        let overflow = &self.policy.overflow;
        let show =
            |range: &std::ops::RangeInclusive<u16>| format!("{}-{}", range.start(), range.end());
        let range = service_type
            .port_range
            .as_ref()
            .map_or_else(|| show(overflow), |own| format!("{} and {}", show(own), show(overflow)));
        let within = |port| {
            overflow.contains(&port)
                || service_type.port_range.as_ref().is_some_and(|own| own.contains(&port))
        };
        let mut fills = std::collections::BTreeMap::<String, usize>::new();
        for entry in self.tables.allocations.values().filter(|entry| within(entry.allocation.port))
        {
            *fills.entry(describe(&entry.allocation)).or_default() += 1;
        }
        let mut fills: Vec<_> = fills.into_iter().collect();
        fills.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        let filled_by =
            fills.into_iter().take(5).map(|(who, count)| format!("{count} by {who}")).collect();
        Error::RangeExhausted { service_type: name.to_owned(), range, filled_by }
    }

    /// The lease that a request begins with.
    ///
    /// An explicit owner needs none. An implicit one may be dead already, and nothing else holds
    /// what has neither owner nor a registered instance: both get one.
    pub(super) fn lease_for(
        &self,
        request: &Request,
        now: Moment,
        notes: &mut Vec<String>,
    ) -> Option<Lease> {
        let length = request.lease.or_else(|| match (&request.owner, &request.instance_id) {
            (Some(owner), _) => owner.implicit.then_some(self.policy.default_lease),
            (None, Some(instance_id)) if self.tables.instances.contains_key(instance_id) => None,
            (None, Some(instance_id)) => {
                notes.push(format!(
                    "instance '{instance_id}' is not registered: only a lease holds this port"
                ));
                Some(self.policy.default_lease)
            }
            (None, None) => Some(self.policy.default_lease),
        })?;
        Some(Lease::starting(now, length))
    }

    /// Keeps the assignment in step with the port that was picked.
    fn assign_picked(
        &mut self,
        key: AssignmentKey,
        pick: &Pick,
        request: &Request,
        machine: &mut impl Machine,
        now: Moment,
    ) -> Option<Moved> {
        let before = self.tables.assignments.get(&key).map(|assignment| assignment.port);
        let stays = match before {
            None => false,
            Some(port) if port == pick.port => true,
            Some(_) => pick.origin != Origin::Wish && !pick.assigned_taken,
        };
        if stays {
            self.touch_assignment(&key, now);
            return None;
        }
        if let Some(other) = self.tables.assigned_to_other(pick.port, Some(&key)).cloned() {
            if machine.directory_exists(&other.project_path) {
                return None;
            }
            self.record(Change::AssignmentRemoved { key: other });
        }
        let project_path = key.project_path.clone();
        self.put_assignment(Assignment {
            key,
            service_type: request.service_type.clone(),
            port: pick.port,
            last_used_ms: now.unix_ms,
        });
        let from = before?;
        let moved = Moved {
            project_path,
            service_type: request.service_type.clone(),
            service_name: request.service_name.clone(),
            from,
            to: pick.port,
        };
        self.events.push(Event::Moved(moved.clone()));
        Some(moved)
    }

    /// Ends an allocation, whoever holds it.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownLock`].
    pub fn release(&mut self, lock_id: Uuid) -> Result<Allocation, Error> {
        self.end(lock_id, Reason::Released).ok_or_else(|| Error::UnknownLock(lock_id.to_string()))
    }

    /// Gives an allocation a new lease: of `length`, else as long as its last one, else the default.
    /// Answers the new deadline.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownLock`].
    pub fn renew(
        &mut self,
        lock_id: Uuid,
        length: Option<Duration>,
        now: Moment,
    ) -> Result<Lease, Error> {
        let entry = self.tables.entry(lock_id);
        let entry = entry.ok_or_else(|| Error::UnknownLock(lock_id.to_string()))?;
        let mut allocation = entry.allocation.clone();
        let last = allocation.lease.map(|lease| Duration::from_millis(lease.length_ms));
        let lease = Lease::starting(now, length.or(last).unwrap_or(self.policy.default_lease));
        allocation.lease = Some(lease);
        self.record(Change::Allocation(allocation));
        Ok(lease)
    }
}

/// Whose assignment a request uses and makes. Test runs leave none behind.
fn assignment_key(request: &Request, slot: Option<u32>) -> Option<AssignmentKey> {
    if request.service_type == "test" {
        return None;
    }
    let project_path = request.project_path.clone()?;
    let service = match (&request.service_name, slot) {
        (Some(name), _) => Service::Named(name.clone()),
        (None, slot) => Service::Slot(request.service_type.clone(), slot.unwrap_or_default()),
    };
    Some(AssignmentKey { project_path, service })
}

/// Which container has a port, or will have it.
fn published_by(publisher: &Publisher) -> String {
    let verb = if publisher.running { "is published" } else { "will be published" };
    match &publisher.usage.container {
        Some(container) => {
            format!("{verb} by the container {} ({})", container.name, container.engine)
        }
        None => format!("{verb} by a container"),
    }
}

/// An allocation in a few words: `dev/web in /home/user/shop (pid 812)`.
pub fn describe(allocation: &Allocation) -> String {
    let mut words = allocation.service_type.clone();
    if let Some(name) = &allocation.service_name {
        words.push('/');
        words.push_str(name);
    }
    if let Some(project) = &allocation.project_path {
        words.push_str(" in ");
        words.push_str(project);
    }
    if let Some(owner) = &allocation.owner {
        words.push_str(" (pid ");
        words.push_str(&owner.process.pid.to_string());
        words.push(')');
    }
    words
}

impl Lease {
    /// A lease of `length` that begins now.
    pub fn starting(now: Moment, length: Duration) -> Self {
        let length_ms = milliseconds(length);
        Self { length_ms, until_ms: milliseconds(now.monotonic).saturating_add(length_ms) }
    }
}
