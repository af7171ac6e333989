//! What happens, told to whoever listens to `GET /events`.

use std::sync::Arc;

use serde::Serialize;
use tokio::sync::broadcast;
use uuid::Uuid;

use super::{Coordinator, Inner, now};
use crate::api;
use crate::registry::{Event, Registry};

/// How many events a reader may be behind before it misses some. A batch of 64 allocations that
/// ends at once is two for each.
const BACKLOG: usize = 1024;

/// One event of the stream.
#[derive(Debug, Clone)]
pub struct Happening {
    /// What happened: `allocated`, `listening`, `conflict`, `elsewhere`, `reserved`, `inherited`,
    /// `released`, `instance_lost`, `moved`.
    pub name: &'static str,
    /// To whom, as JSON on one line.
    pub data: Arc<str>,
}

impl Happening {
    pub(crate) fn new(name: &'static str, data: &impl Serialize) -> Self {
        // The wire types are strings, numbers, lists and maps with string keys: none can fail.
        Self { name, data: serde_json::to_string(data).unwrap_or_default().into() }
    }
}

/// Where events are told, and what is held back for a moment.
#[derive(Debug)]
pub(super) struct Feed {
    sender: broadcast::Sender<Happening>,
    /// Listeners whose process is still looked for. Until it is found they count as own, but they
    /// may turn out to be strangers: nobody is told `listening` before.
    unnamed: Vec<Uuid>,
}

impl Default for Feed {
    fn default() -> Self {
        Self { sender: broadcast::Sender::new(BACKLOG), unnamed: Vec::new() }
    }
}

impl Feed {
    /// Whether anybody listens. Nothing is made for nobody.
    pub(super) fn has_readers(&self) -> bool {
        self.sender.receiver_count() > 0
    }

    /// Tells what happened.
    pub(super) fn tell(&mut self, event: &Event, registry: &Registry) {
        if !self.has_readers() {
            return;
        }
        match event {
            Event::Allocated(lock_id) => self.tell_of("allocated", *lock_id, registry),
            Event::Listening(lock_id) | Event::Identified(lock_id) => {
                let listener = registry.listener(*lock_id);
                if listener.is_some_and(|listener| listener.process.is_some()) {
                    self.tell_of("listening", *lock_id, registry);
                } else {
                    self.unnamed.push(*lock_id);
                }
            }
            Event::Conflict(lock_id) => self.tell_of("conflict", *lock_id, registry),
            Event::Elsewhere(lock_id) => self.tell_of("elsewhere", *lock_id, registry),
            Event::Silent(lock_id) => self.tell_of("reserved", *lock_id, registry),
            Event::Inherited(lock_id) => self.tell_of("inherited", *lock_id, registry),
            Event::Released(allocation, reason) => {
                let reason = serde_json::to_value(reason).unwrap_or_default();
                let reason = reason.as_str().unwrap_or_default().to_owned();
                let allocation = Registry::show_ended(allocation, now());
                self.send("released", &api::Released { allocation, reason });
            }
            Event::InstanceLost(instance_id) => {
                let instance_id = instance_id.clone();
                self.send("instance_lost", &api::InstanceLost { instance_id });
            }
            Event::Moved(moved) => self.send("moved", moved),
        }
    }

    /// Every process that can be found has been: whoever still has no name keeps none.
    fn tell_unnamed(&mut self, registry: &Registry) {
        for lock_id in std::mem::take(&mut self.unnamed) {
            let listener = registry.listener(lock_id);
            if listener.is_some_and(|listener| listener.own && listener.process.is_none()) {
                self.tell_of("listening", lock_id, registry);
            }
        }
    }

    fn tell_of(&self, name: &'static str, lock_id: Uuid, registry: &Registry) {
        // It may have ended since, within the same change: that is told as well.
        if let Some(allocation) = registry.show(lock_id, now()) {
            self.send(name, &allocation);
        }
    }

    fn send(&self, name: &'static str, data: &impl Serialize) {
        // The last reader may have gone just now.
        let _ = self.sender.send(Happening::new(name, data));
    }
}

impl Inner {
    /// Tells of listeners whose process will not be found.
    pub(super) fn tell_unnamed(&mut self) {
        if !self.feed.unnamed.is_empty() && self.host.unknown_inodes().is_empty() {
            self.feed.tell_unnamed(&self.registry);
        }
    }

    /// Whether somebody may be waiting for a listener that is not there yet.
    pub(super) fn is_awaited(&self) -> bool {
        let is_silent = |allocation: &crate::registry::Allocation| {
            self.registry.listener(allocation.lock_id).is_none()
        };
        self.feed.has_readers()
            && (!self.feed.unnamed.is_empty() || self.registry.allocations().any(is_silent))
    }
}

impl Coordinator {
    /// Everything that happens from now on. A reader that is too slow misses some.
    pub fn events(&self) -> broadcast::Receiver<Happening> {
        let receiver = self.lock().feed.sender.subscribe();
        // Listeners are looked for more often from now on.
        self.changed.notify_one();
        receiver
    }
}
