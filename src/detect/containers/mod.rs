//! Containers: what Docker and Podman publish, asked in the background and remembered.
//!
//! A port that a container publishes shows as a socket of root's dockerd, docker-proxy or conmon,
//! or as no socket at all (netfilter rules); only the engine knows whose it is. An allocation never
//! waits for an engine: it goes by what the engines said last, and by nothing once that is old. Who
//! asks about ports (`check`, `scan`) waits a quarter of a second at most.

mod engine;
mod listing;
mod places;
mod question;

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use engine::{Engines, sockets};

use crate::api::{ContainerInfo, Protocol, SystemUsage};

/// How often engines are asked while a container serves an allocation, or may explain a socket on
/// one: what a person notices.
const SOON: Duration = Duration::from_secs(2);

/// How often engines are asked while ports are looked for.
const IN_TIME: Duration = Duration::from_secs(10);

/// For how long a port is believed to be published because an engine said so.
const BELIEF: Duration = Duration::from_secs(30);

/// A container that publishes ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Container {
    pub(super) engine: &'static str,
    pub(super) id: String,
    /// For people: without control characters.
    pub(super) name: String,
    /// Where its compose project is.
    pub(super) working_dir: Option<PathBuf>,
    /// It has its ports now. Otherwise it gets them when it is started.
    pub(super) running: bool,
    /// Whose engine it is.
    pub(super) uid: u32,
}

/// A published port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Published {
    pub(super) port: u16,
    pub(super) protocol: Protocol,
    pub(super) container_port: u16,
    pub(super) container: Arc<Container>,
    /// The engine said so a moment ago; otherwise it has not answered since.
    pub(super) fresh: bool,
}

/// How soon the engines should be asked again, the more urgent the later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) enum Interest {
    /// Nobody needs to know.
    #[default]
    None,
    /// Somebody looks for a port.
    Some,
    /// Somebody looks at a port that a container has, or may have.
    Much,
}

/// What the engines said last.
#[derive(Debug, Default)]
pub struct Containers {
    /// By port of this machine, the running ones first.
    by_port: HashMap<u16, Vec<Published>>,
    /// All of them, those too that publish nothing.
    by_id: HashMap<String, Arc<Container>>,
    asked: Option<Instant>,
    interest: Interest,
    /// The interest that whoever plans the questions knows of.
    planned: Interest,
}

impl Containers {
    fn new(
        containers: impl IntoIterator<Item = Arc<Container>>,
        published: impl IntoIterator<Item = Published>,
        asked: Instant,
    ) -> Self {
        let mut by_port: HashMap<u16, Vec<Published>> = HashMap::new();
        for one in published {
            by_port.entry(one.port).or_default().push(one);
        }
        for ports in by_port.values_mut() {
            ports.sort_by_key(|one| !one.container.running);
        }
        let by_id = containers.into_iter().map(|one| (one.id.clone(), one)).collect();
        Self { by_port, by_id, asked: Some(asked), ..Self::default() }
    }

    /// Takes in a new answer, and says whether it is another one.
    pub(super) fn learn(&mut self, answer: Self) -> bool {
        let news = self.by_port != answer.by_port;
        *self = answer;
        news
    }

    /// Somebody needs an answer that is not old.
    pub(super) fn want(&mut self, interest: Interest) {
        self.interest = self.interest.max(interest);
    }

    /// How long until the engines are to be asked; none while nobody needs to know. The first time
    /// is at once.
    pub fn plan(&mut self) -> Option<Duration> {
        self.planned = self.interest;
        let Some(asked) = self.asked else { return Some(Duration::ZERO) };
        let interval = match self.interest {
            Interest::None => return None,
            Interest::Some => IN_TIME,
            Interest::Much => SOON,
        };
        Some(interval.saturating_sub(asked.elapsed()))
    }

    /// Whether somebody needs an answer sooner than was planned.
    pub(super) fn is_urgent(&self) -> bool {
        self.interest > self.planned
    }

    /// Whether the last answer is too old for who asks about one port.
    pub(super) fn is_old(&self) -> bool {
        self.asked.is_none_or(|asked| asked.elapsed() >= SOON)
    }

    /// Whether a container surely has that port now. What an engine said earlier is a hint.
    pub(super) fn is_believed(&self, published: &Published) -> bool {
        let asked_lately = self.asked.is_some_and(|asked| asked.elapsed() < BELIEF);
        published.container.running && published.fresh && asked_lately
    }

    /// The container that publishes a port, running or not.
    pub(super) fn publishing(&self, port: u16, protocol: Protocol) -> Option<&Published> {
        let meets = |one: &&Published| {
            protocol.has_tcp() && one.protocol.has_tcp()
                || protocol.has_udp() && one.protocol.has_udp()
        };
        self.by_port.get(&port)?.iter().find(meets)
    }

    /// The running container that publishes a port.
    pub(super) fn serving(&self, port: u16, protocol: Protocol) -> Option<&Published> {
        self.publishing(port, protocol).filter(|one| one.container.running)
    }

    /// What the system says of a port, with the container that has it.
    pub(super) fn explain(
        &self,
        port: u16,
        protocol: Protocol,
        usage: Option<SystemUsage>,
    ) -> Option<SystemUsage> {
        if let Some(published) = self.serving(port, protocol) {
            let seen = usage.unwrap_or_else(|| published.usage());
            return Some(SystemUsage { container: Some(published.info()), ..seen });
        }
        // A container with the network of the machine publishes nothing: its process listens, and
        // tells the id alone.
        let mut usage = usage?;
        if let Some(container) = &mut usage.container
            && let Some(known) = self.by_id.get(&container.id)
        {
            container.name.clone_from(&known.name);
        }
        Some(usage)
    }

    /// The ports of a range that running containers publish.
    pub(super) fn serving_in(
        &self,
        ports: RangeInclusive<u16>,
    ) -> impl Iterator<Item = &Published> {
        let published = self.by_port.iter().filter(move |(port, _)| ports.contains(port));
        published.flat_map(|(_, all)| all).filter(|one| one.container.running)
    }
}

impl Published {
    /// The container as the interface shows it.
    pub(super) fn info(&self) -> ContainerInfo {
        ContainerInfo {
            engine: self.container.engine.to_owned(),
            id: self.container.id.clone(),
            name: self.container.name.clone(),
            container_port: self.container_port,
        }
    }

    /// What the system would say if there were a socket.
    pub(super) fn usage(&self) -> SystemUsage {
        SystemUsage {
            protocol: self.protocol,
            local_address: self.local_address(),
            uid: self.container.uid,
            process: None,
            container: Some(self.info()),
        }
    }

    pub(super) fn local_address(&self) -> String {
        format!("*:{}", self.port)
    }

    /// Whether its compose project lies in `project`: yes, no, or none is known.
    pub(super) fn lies_in(&self, project: Option<&str>) -> Option<bool> {
        let directory = self.container.working_dir.as_deref()?;
        Some(project.is_some_and(|project| directory.starts_with(Path::new(project))))
    }
}
