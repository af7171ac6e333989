//! Who holds what, worked out a second time, from nothing but the requests and the machine's facts.
//!
//! It reads no table of the registry, so that one which loses, invents or renews something by
//! mistake is seen.

use std::collections::BTreeMap;
use std::time::Duration;

use styxy::registry::{Owner, Process, Request};
use uuid::Uuid;

use super::machine::Fake;

/// `default_lease` of the test's configuration.
pub(crate) const DEFAULT_LEASE: Duration = Duration::from_secs(60);

/// Three heartbeats of 30 s (design: State).
const SILENCE: Duration = Duration::from_secs(90);

/// Every life there should be.
#[derive(Debug, Clone, Default)]
pub(crate) struct Model {
    pub(crate) lives: BTreeMap<Uuid, Life>,
    pub(crate) instances: BTreeMap<String, Client>,
}

/// An allocation that should be there.
#[derive(Debug, Clone)]
pub(crate) struct Life {
    pub(crate) port: u16,
    pub(crate) owner: Option<Owner>,
    pub(crate) instance_id: Option<String>,
    pub(crate) lease: Option<Period>,
    pub(crate) project_path: Option<String>,
    /// An own listener was there: an implicit owner holds no longer, and nobody inherits.
    has_served: bool,
    /// An own listener was there after the last step.
    listens: bool,
}

/// A lease.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Period {
    length: Duration,
    pub(crate) until: Duration,
}

impl Period {
    fn starting(now: Duration, length: Duration) -> Self {
        Self { length, until: now + length }
    }
}

/// An instance that should be there.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Client {
    process: Option<Process>,
    heard: Duration,
}

impl Client {
    fn silent_at(&self) -> Option<Duration> {
        self.process.is_none().then_some(self.heard + SILENCE)
    }
}

impl Model {
    /// A request was granted that allocation: a new one, one that is handed over, or one that stays
    /// as it is.
    pub(crate) fn granted(
        &mut self,
        request: &Request,
        (lock_id, port): (Uuid, u16),
        machine: &Fake,
        now: Duration,
    ) {
        if let Some(life) = self.lives.get(&lock_id)
            && !life.goes_to(request, machine)
        {
            return;
        }
        self.goes_to(request, (lock_id, port), now);
    }

    /// Whoever made that request has it from now on.
    pub(crate) fn goes_to(
        &mut self,
        request: &Request,
        (lock_id, port): (Uuid, u16),
        now: Duration,
    ) {
        let lease = self.first_lease(request).map(|length| Period::starting(now, length));
        let life = Life {
            port,
            owner: request.owner,
            instance_id: request.instance_id.clone(),
            lease,
            project_path: request.project_path.clone(),
            has_served: false,
            listens: false,
        };
        self.lives.insert(lock_id, life);
    }

    /// The lease that a request begins with (design: Allocation).
    fn first_lease(&self, request: &Request) -> Option<Duration> {
        let holds_alone = match (&request.owner, &request.instance_id) {
            (Some(owner), _) => !owner.implicit,
            (None, Some(id)) => self.instances.contains_key(id),
            (None, None) => false,
        };
        request.lease.or((!holds_alone).then_some(DEFAULT_LEASE))
    }

    pub(crate) fn renewed(&mut self, lock_id: Uuid, length: Duration, now: Duration) {
        let life = self.lives.get_mut(&lock_id).expect("it was picked from what is there");
        life.lease = Some(Period::starting(now, length));
    }

    pub(crate) fn registered(&mut self, id: &str, process: Option<Process>, now: Duration) {
        self.instances.insert(id.to_owned(), Client { process, heard: now });
    }

    pub(crate) fn heard(&mut self, id: &str, now: Duration) {
        if let Some(client) = self.instances.get_mut(id) {
            client.heard = now;
        }
    }

    /// A process died: what it owned and nobody listens on goes to its heirs.
    pub(crate) fn died(&mut self, process: Process, machine: &Fake) {
        self.instances.retain(|_, client| client.process != Some(process));
        self.inherit(machine, |owner| owner == process);
    }

    /// A new daemon: every lease and every heartbeat has a full period, and who has no living owner
    /// gets a second chance of an heir.
    pub(crate) fn restarted(&mut self, machine: &Fake, now: Duration) {
        for life in self.lives.values_mut() {
            life.lease = life.lease.map(|lease| Period::starting(now, lease.length));
            // It sees every listener for the first time.
            life.listens = false;
        }
        for client in self.instances.values_mut() {
            client.heard = now;
        }
        self.inherit(machine, |owner| !machine.alive.contains(&owner));
    }

    fn inherit(&mut self, machine: &Fake, is_dead: impl Fn(Process) -> bool) {
        for (lock_id, life) in &mut self.lives {
            if life.owner.is_some_and(|owner| is_dead(owner.process))
                && !life.has_served
                && !machine.sockets.contains_key(&life.port)
                && let Some(heir) = machine.heir(*lock_id)
            {
                life.owner = Some(heir);
            }
        }
    }

    /// What follows from the machine and the time: own listeners take over, periods end, and what
    /// nobody holds ends with them.
    pub(crate) fn settle(&mut self, machine: &Fake, now: Duration) {
        self.instances.retain(|_, client| client.silent_at().is_none_or(|silent| silent > now));
        let Self { lives, instances } = self;
        lives.retain(|_, life| {
            let listens = machine.sockets.get(&life.port).is_some_and(|socket| socket.own);
            if listens && !life.listens {
                life.has_served = true;
                life.lease = None;
            }
            life.listens = listens;
            life.lease = life.lease.filter(|lease| lease.until > now);
            let by_owner = life.owner.is_some_and(|owner| {
                machine.alive.contains(&owner.process) && !(owner.implicit && life.has_served)
            });
            let by_instance = life.owner.is_none()
                && life.instance_id.as_ref().is_some_and(|id| instances.contains_key(id));
            listens || by_owner || by_instance || life.lease.is_some()
        });
    }

    /// When something ends by itself.
    pub(crate) fn first_end(&self) -> Option<Duration> {
        let leases = self.lives.values().filter_map(|life| life.lease.map(|lease| lease.until));
        leases.chain(self.instances.values().filter_map(Client::silent_at)).min()
    }
}

impl Life {
    /// Whether it becomes the requester's own (design: Allocation, step 3), rather than being
    /// answered as it is.
    fn goes_to(&self, request: &Request, machine: &Fake) -> bool {
        let process = self.owner.map(|owner| owner.process);
        let is_same = process.is_some() && process == request.owner.map(|owner| owner.process);
        let is_left = self
            .owner
            .is_none_or(|owner| owner.implicit || !machine.alive.contains(&owner.process));
        let fits = !request.exact || request.wish.is_none_or(|wish| wish == self.port);
        let is_silent = !machine.sockets.contains_key(&self.port);
        let is_same_instance = self.instance_id == request.instance_id;
        fits && !is_same && is_left && is_silent && is_same_instance
    }
}
