//! Containers: what Docker and Podman publish, asked in the background and remembered.
//!
//! A port that a container publishes shows as a socket of root's dockerd, docker-proxy or conmon,
//! or as no socket at all (netfilter rules); only the engine knows whose it is. An allocation never
//! waits for an engine: it goes by what the engines said last, and has them asked again where that is
//! old. Who asks about ports (`check`, `scan`) waits a quarter of a second at most.
//!
//! How long an engine's word counts: for 30 seconds in any case. For an allocation also longer, while
//! nobody has asked since: nobody knows better, and a port is no great loss. For who listens on a port
//! also longer, while a socket is there that may be the engine's: without one the container has
//! ended, with another program's it has too.

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

/// How long an engine's word counts in any case.
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
    /// Which engine says so.
    pub(super) engine: usize,
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

/// When an engine answered last.
#[derive(Debug, Clone, Copy)]
pub(super) struct Heard {
    pub(super) at: Instant,
    /// It was not asked again, or left alone, since.
    pub(super) is_last: bool,
}

/// What the engines said last.
#[derive(Debug, Default)]
pub struct Containers {
    /// By port of this machine, the running ones first.
    by_port: HashMap<u16, Vec<Published>>,
    /// All of them, those too that publish nothing.
    by_id: HashMap<String, Arc<Container>>,
    /// By engine.
    heard: Vec<Option<Heard>>,
    asked: Option<Instant>,
    interest: Interest,
    /// The interest that whoever plans the questions knows of.
    planned: Interest,
}

impl Containers {
    pub(super) fn new(
        containers: impl IntoIterator<Item = Arc<Container>>,
        published: impl IntoIterator<Item = Published>,
        heard: Vec<Option<Heard>>,
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
        Self { by_port, by_id, heard, asked: Some(asked), ..Self::default() }
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

    fn heard(&self, published: &Published) -> Option<Heard> {
        self.heard.get(published.engine).copied().flatten()
    }

    /// Whether the engine has said so a moment before `now`.
    fn is_fresh(&self, published: &Published, now: Instant) -> bool {
        self.heard(published).is_some_and(|it| now.saturating_duration_since(it.at) < BELIEF)
    }

    /// Whether a container has that port, as far as an allocation is concerned.
    pub(super) fn is_believed(&self, published: &Published, now: Instant) -> bool {
        let is_last = self.heard(published).is_some_and(|it| it.is_last);
        published.container.running && (is_last || self.is_fresh(published, now))
    }

    /// The container that publishes a port, running or not.
    pub(super) fn publishing(&self, port: u16, protocol: Protocol) -> Option<&Published> {
        let meets = |one: &&Published| {
            protocol.has_tcp() && one.protocol.has_tcp()
                || protocol.has_udp() && one.protocol.has_udp()
        };
        self.by_port.get(&port)?.iter().find(meets)
    }

    /// The running container that publishes a port. `has_socket` says whether there is a socket that
    /// may be its engine's. The time is asked for only where there is a container: this is asked of
    /// every allocation.
    pub(super) fn serving(
        &self,
        port: u16,
        protocol: Protocol,
        has_socket: bool,
        now: impl FnOnce() -> Instant,
    ) -> Option<&Published> {
        let published = self.publishing(port, protocol)?;
        let is_there = || has_socket || self.is_fresh(published, now());
        (published.container.running && is_there()).then_some(published)
    }

    /// What the system says of a port, with the container that has it.
    pub(super) fn explain(
        &self,
        port: u16,
        protocol: Protocol,
        usage: Option<SystemUsage>,
        now: Instant,
    ) -> Option<SystemUsage> {
        // A process that cannot be seen is mostly root's.
        let has_socket = usage.as_ref().is_some_and(|usage| {
            usage.process.as_ref().is_none_or(|process| is_helper(&process.name))
        });
        if let Some(published) = self.serving(port, protocol, has_socket, || now) {
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
        now: Instant,
    ) -> impl Iterator<Item = &Published> {
        let published = self.by_port.iter().filter(move |(port, _)| ports.contains(port));
        let published = published.flat_map(|(_, all)| all);
        published.filter(move |one| one.container.running && self.is_fresh(one, now))
    }
}

/// Whether the process that listens does so for a container: the helpers of Docker and of Podman,
/// by the kernel's name of them.
pub(super) fn is_helper(name: &str) -> bool {
    const HELPERS: [&str; 7] = [
        "dockerd",
        "docker-proxy",
        "conmon",
        "rootlessport",
        "rootlesskit",
        "slirp4netns",
        "pasta",
    ];
    HELPERS.iter().any(|it| name.starts_with(it))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::ProcessInfo;
    use crate::detect::testing;

    const TCP: Protocol = Protocol::Tcp;

    /// What one engine said `at` that time of a running container on port 3000.
    fn said(at: Instant, is_last: bool) -> Containers {
        let published = testing::published(3000, testing::container(None));
        let container = published.container.clone();
        Containers::new([container], [published], vec![Some(Heard { at, is_last })], at)
    }

    #[test]
    fn for_an_allocation_a_word_counts_until_the_next_question_and_for_half_a_minute() {
        let then = Instant::now();
        let is_believed = |is_last, age| {
            let containers = said(then, is_last);
            let published = containers.publishing(3000, TCP).expect("it said so");
            containers.is_believed(published, then + Duration::from_secs(age))
        };
        assert!(is_believed(true, 29) && is_believed(false, 29));
        assert!(is_believed(true, 3600), "nobody has asked since");
        assert!(!is_believed(false, 30), "it was asked since, and did not answer");
    }

    #[test]
    fn an_old_word_names_who_listens_only_where_a_socket_may_be_the_engines() {
        let then = Instant::now();
        let containers = said(then, false);
        let usage = |process: Option<&str>| SystemUsage {
            protocol: TCP,
            local_address: "0.0.0.0:3000".to_owned(),
            uid: 0,
            container: None,
            process: process.map(|name| ProcessInfo {
                pid: 7,
                name: name.to_owned(),
                command: None,
                cwd: None,
                project_path: None,
            }),
        };
        let names_it = |usage, age| {
            let usage = containers.explain(3000, TCP, usage, then + Duration::from_secs(age));
            usage.is_some_and(|usage| usage.container.is_some_and(|it| it.name == "db"))
        };
        let published =
            |age| containers.serving_in(1..=65535, then + Duration::from_secs(age)).count();
        for age in [0, 29] {
            assert!(names_it(None, age) && names_it(Some(usage(Some("node"))), age));
            assert_eq!(published(age), 1);
        }
        assert!(names_it(Some(usage(None)), 30), "root's, mostly");
        assert!(names_it(Some(usage(Some("docker-proxy"))), 30));
        assert!(!names_it(Some(usage(Some("node"))), 30), "another program has the port now");
        assert!(!names_it(None, 30), "it has ended");
        assert_eq!(published(30), 0);
    }
}
