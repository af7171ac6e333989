//! The machine as the registry sees it.

use std::collections;
use std::io;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use foldhash::HashMap;
use rustix::process::geteuid;
use uuid::Uuid;

use super::containers::{Containers, Interest, Published, is_helper};
use super::heirs::Heirs;
use super::known::{Known, Look, claim};
use super::ports::Prober;
use super::process::{Identified, Living};
use super::sockets::{self, Socket};
use super::watch::Dead;
use super::{ProcessFacts, directories, holders, process, strays};
use crate::api::{Protocol, SystemUsage};
use crate::registry::{
    Allocation, Listener, Machine, Orphan, Owner, Probe, Process, Publisher, Searched,
};

/// The real machine, with what is known already of its listeners.
///
/// It asks the kernel anew for every answer. To look at many allocations at once, take a
/// [`Host::sweep`].
///
/// The processes of new listeners are found by whoever has time for the walk, one walk at a time:
/// [`Host::unknown_inodes`], then [`holders::Finder`] on another thread, then [`Host::learn`]. So are
/// the container engines asked: when [`Host::plan_engines`] says so, then
/// [`Host::learn_containers`].
#[derive(Debug, Default)]
pub struct Host {
    known: Known,
    containers: Containers,
    heirs: Arc<Mutex<Heirs>>,
    /// Whose death is being told, in their order.
    dead: Vec<Dead>,
    prober: Prober,
    trouble: Option<String>,
}

impl Host {
    /// The machine for one look at many allocations: all sockets of `protocol` are listed once, and
    /// no process is looked at twice. What is known of others, or of those that have gone, is
    /// forgotten.
    ///
    /// Its answers are of this moment, so it is to be dropped when the look is over.
    ///
    /// # Errors
    ///
    /// When the sockets cannot be listed: then nothing is known of any listener, and none may be
    /// called gone.
    pub fn sweep(&mut self, protocol: Protocol) -> io::Result<Sweep<'_>> {
        let listed = sockets::all(protocol);
        self.note(&listed);
        let mut sockets = listed?;
        sockets.sort_unstable_by_key(place);
        self.known.forget_all_but(&sockets);
        Ok(Sweep { host: self, sockets, seen: HashMap::default() })
    }

    /// The same, of nothing but `ports`, which are in their order, and `protocol`: less to list where
    /// many programs listen. It does not see who listens elsewhere, and forgets nothing.
    ///
    /// # Errors
    ///
    /// As [`Host::sweep`].
    pub fn glance(
        &mut self,
        ports: impl IntoIterator<Item = u16>,
        protocol: Protocol,
    ) -> io::Result<Sweep<'_>> {
        let listed = sockets::on_ports(ports, protocol);
        self.note(&listed);
        let mut sockets = listed?;
        sockets.sort_unstable_by_key(place);
        Ok(Sweep { host: self, sockets, seen: HashMap::default() })
    }

    /// The inodes of this user's sockets on allocated ports whose process is not known yet. A
    /// process that was not found three times is not asked for again while its socket is there.
    pub fn unknown_inodes(&self) -> Vec<u64> {
        self.known.unknown()
    }

    /// Takes in what [`holders::Finder`] found, and says whether it changes what is known: then a
    /// listener may be own or a stranger's that was not before.
    pub fn learn(&mut self, found: impl IntoIterator<Item = (u64, Vec<ProcessFacts>)>) -> bool {
        self.known.learn(found)
    }

    /// Who may inherit from an owner that dies. Whoever has the time lets it meet new processes
    /// ([`Heirs::meet`]): then a death finds them known.
    pub fn heirs_to_be(&self) -> Arc<Mutex<Heirs>> {
        self.heirs.clone()
    }

    /// Does ahead what the next probe would take time for.
    pub fn prepare(&mut self) {
        self.prober.prepare();
    }

    /// Who has died, in their order: for as long as the registry is told, which asks for their heirs.
    pub fn remember(&mut self, dead: &[Dead]) {
        dead.clone_into(&mut self.dead);
    }

    /// How long until the container engines are to be asked; none while nobody needs to know.
    pub fn plan_engines(&mut self) -> Option<Duration> {
        self.containers.plan()
    }

    /// Somebody was told of a port by what is known of containers, and would be told better.
    pub fn want_containers(&mut self) {
        self.containers.want(Interest::Much);
    }

    /// Whether the container engines are to be asked sooner than was planned.
    pub fn is_urgent(&self) -> bool {
        self.containers.is_urgent()
    }

    /// Whether what is known of containers is too old for who asks about one port.
    pub fn containers_are_old(&self) -> bool {
        self.containers.is_old()
    }

    /// Takes in what the engines said, and says whether it changes what is known.
    pub fn learn_containers(&mut self, answer: Containers) -> bool {
        self.containers.learn(answer)
    }

    /// Adds to what the system says of a port the container that has it. Where nothing else is seen
    /// of a port, a container may have it all the same.
    pub fn explain(
        &self,
        port: u16,
        protocol: Protocol,
        usage: Option<SystemUsage>,
    ) -> Option<SystemUsage> {
        self.containers.explain(port, protocol, usage, Instant::now())
    }

    /// The ports of a range that running containers publish, and what the system would say of each
    /// if there were a socket.
    pub fn published(
        &self,
        ports: RangeInclusive<u16>,
    ) -> impl Iterator<Item = (u16, SystemUsage)> {
        let published = self.containers.serving_in(ports, Instant::now());
        published.map(|published| (published.port, published.usage()))
    }

    /// Whether a server could have `port` now: nobody is bound to it, no container publishes it.
    pub fn is_free(&mut self, port: u16, protocol: Protocol) -> bool {
        !self.publisher(port, protocol).is_some_and(|publisher| publisher.running)
            && self.probe(port, protocol) == Probe::Free
    }

    /// Who listens on the port of an allocation, by its sockets and by what the engines said.
    fn listener_among(
        &mut self,
        allocation: &Allocation,
        sockets: &[Socket],
        look: Look<'_>,
    ) -> Option<Listener> {
        // Most ports have none, and this is asked of all.
        let mut listed = None;
        if !sockets.is_empty() {
            listed = self.known.listener(allocation, sockets, geteuid().as_raw(), look);
        }
        // Sockets of root's on an allocated port are mostly an engine's.
        let has_socket = listed.as_ref().is_some_and(|listener| match &listener.name {
            Some(name) => is_helper(name),
            None => !listener.own && listener.process.is_none(),
        });
        let (port, protocol) = (allocation.port, allocation.protocol);
        if let Some(published) = self.containers.serving(port, protocol, has_socket, Instant::now) {
            let uid = geteuid().as_raw();
            let has_owner = claim(allocation, uid, look).owner.is_some();
            let listener = of_container(allocation, published, listed, has_owner);
            self.containers.want(Interest::Much);
            return Some(listener);
        }
        let interest = match &listed {
            Some(_) if has_socket => Interest::Much,
            Some(_) => Interest::None,
            // A container may come without any socket.
            None => Interest::Some,
        };
        self.containers.want(interest);
        listed
    }

    /// Why the sockets could not be listed, if the last attempt failed.
    pub fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    fn note<T>(&mut self, listed: &io::Result<T>) {
        self.trouble = listed.as_ref().err().map(|error| format!("can't list sockets: {error}"));
    }
}

impl Machine for Host {
    fn probe(&mut self, port: u16, protocol: Protocol) -> Probe {
        self.prober.probe(port, protocol)
    }

    fn publisher(&mut self, port: u16, protocol: Protocol) -> Option<Publisher> {
        self.containers.want(Interest::Some);
        let published = self.containers.publishing(port, protocol)?;
        // One that may have ended since is no more than a port to avoid.
        let running = self.containers.is_believed(published, Instant::now());
        Some(Publisher { usage: published.usage(), running })
    }

    fn listener(&mut self, allocation: &Allocation) -> Option<Listener> {
        let listed = holders::sockets_on(allocation.port, allocation.protocol);
        self.note(&listed);
        match listed {
            Ok(sockets) => self.listener_among(allocation, &sockets, &mut process::living),
            Err(_) => unseen_listener(allocation),
        }
    }

    fn is_alive(&mut self, process: Process) -> bool {
        process::is_alive(process)
    }

    fn heirs(&mut self, orphans: &[Orphan]) -> collections::HashMap<Uuid, Owner> {
        let owner = |heir: Identified| Owner {
            process: heir.process,
            started_at: heir.started_at,
            implicit: false,
        };
        let mut heirs = self.heirs.lock().unwrap_or_else(PoisonError::into_inner);
        heirs
            .of(orphans, &self.dead)
            .into_iter()
            .map(|(lock_id, heir)| (lock_id, owner(heir)))
            .collect()
    }

    fn directory_exists(&mut self, path: &str) -> bool {
        directories::exists(path)
    }
}

/// The machine as it was when the sweep began.
#[derive(Debug)]
pub struct Sweep<'h> {
    host: &'h mut Host,
    /// By port, TCP before UDP.
    sockets: Vec<Socket>,
    seen: HashMap<Process, Option<Living>>,
}

impl Machine for Sweep<'_> {
    fn probe(&mut self, port: u16, protocol: Protocol) -> Probe {
        self.host.probe(port, protocol)
    }

    fn publisher(&mut self, port: u16, protocol: Protocol) -> Option<Publisher> {
        self.host.publisher(port, protocol)
    }

    fn listener(&mut self, allocation: &Allocation) -> Option<Listener> {
        let sockets = on_port(&self.sockets, allocation.port, allocation.protocol);
        let seen = &mut self.seen;
        let mut look = |process| look(seen, process);
        self.host.listener_among(allocation, sockets, &mut look)
    }

    fn elsewhere(
        &mut self,
        searched: &[Searched],
        is_allocated: &dyn Fn(u16) -> bool,
    ) -> collections::HashMap<Uuid, Listener> {
        let uid = geteuid().as_raw();
        let strays = self.sockets.iter().filter(|socket| {
            socket.protocol == Protocol::Tcp
                && socket.uid == uid
                && !is_allocated(socket.local.port())
        });
        strays::find(searched, strays, &mut self.host.known)
    }

    fn is_alive(&mut self, process: Process) -> bool {
        look(&mut self.seen, process).is_some()
    }

    fn heirs(&mut self, orphans: &[Orphan]) -> collections::HashMap<Uuid, Owner> {
        self.host.heirs(orphans)
    }

    fn directory_exists(&mut self, path: &str) -> bool {
        directories::exists(path)
    }
}

fn look(seen: &mut HashMap<Process, Option<Living>>, process: Process) -> Option<Living> {
    *seen.entry(process).or_insert_with(|| process::living(process))
}

/// By port, TCP before UDP.
fn place(socket: &Socket) -> (u16, bool) {
    (socket.local.port(), socket.protocol.has_udp())
}

/// Those on one port, of sockets in the order of [`place`].
fn on_port(sockets: &[Socket], port: u16, protocol: Protocol) -> &[Socket] {
    let first = sockets.partition_point(|socket| place(socket) < (port, !protocol.has_tcp()));
    let end = sockets.partition_point(|socket| place(socket) <= (port, protocol.has_udp()));
    &sockets[first..end]
}

/// The listener on an allocated port that a running container publishes; `listed` is what the
/// sockets say.
///
/// Own is a container whose compose project lies in the allocation's, or, as among processes, any
/// that is not another project's where no owner lives. An own process on the port comes first: the
/// engine's helper may be one (rootless Podman's is started by who starts the container). But that
/// it runs as this user says nothing of it.
fn of_container(
    allocation: &Allocation,
    published: &Published,
    listed: Option<Listener>,
    has_owner: bool,
) -> Listener {
    let lies_in = published.lies_in(allocation.project_path.as_deref());
    let own = lies_in.unwrap_or(!has_owner);
    if !own
        && let Some(listener) = &listed
        && listener.own
        && listener.process.is_some()
        && (has_owner || !listener.name.as_deref().is_some_and(is_helper))
    {
        return listener.clone();
    }
    let address = listed.map(|listener| listener.local_address);
    Listener {
        process: None,
        // Without a project nobody can say that it is a stranger's.
        name: (own || lies_in.is_some()).then(|| published.container.name.clone()),
        local_address: address.unwrap_or_else(|| published.local_address()),
        own,
    }
}

/// Where the kernel does not say who listens, a listener that was seen counts as still there: an
/// allocation is never released for what could not be seen.
fn unseen_listener(allocation: &Allocation) -> Option<Listener> {
    allocation.taken_over.then(|| Listener {
        process: None,
        name: None,
        local_address: format!("*:{}", allocation.port),
        own: true,
    })
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::detect::containers::Heard;
    use crate::detect::testing;

    #[test]
    fn the_sockets_of_one_port_are_cut_out_of_all() {
        let socket = |port: u16, protocol| Socket {
            protocol,
            local: (Ipv4Addr::LOCALHOST, port).into(),
            uid: 1000,
            inode: u64::from(port),
        };
        let (tcp, udp) = (Protocol::Tcp, Protocol::Udp);
        let mut all = [(81, udp), (80, udp), (80, tcp), (79, tcp), (80, tcp), (79, udp)]
            .map(|(port, protocol)| socket(port, protocol));
        all.sort_unstable_by_key(place);
        assert_eq!(on_port(&all, 80, tcp), [socket(80, tcp), socket(80, tcp)]);
        assert_eq!(on_port(&all, 80, udp), [socket(80, udp)]);
        assert_eq!(on_port(&all, 80, Protocol::Both).len(), 3);
        assert_eq!(on_port(&all, 81, tcp), []);
        assert_eq!(on_port(&all, 82, Protocol::Both), []);
        assert_eq!(on_port(&[], 80, tcp), []);
    }

    #[test]
    fn a_container_is_own_by_its_project_or_where_no_owner_lives() {
        let published = |working_dir| testing::published(3000, testing::container(working_dir));
        let allocation = Allocation::sample();
        let process = |name: &str| Listener {
            process: Some(Process { pid: 90, start_ticks: 900 }),
            name: Some(name.to_owned()),
            local_address: "[::]:3000".to_owned(),
            own: true,
        };
        let own = |name| (true, Some(name));
        let table = [
            (Some("/home/u/shop/infra"), None, true, own("db")),
            (Some("/home/u/shop"), Some("conmon"), true, own("db")),
            (Some("/home/u/shop-2"), None, false, (false, Some("db"))),
            (Some("/home/u/shop-2"), Some("conmon"), false, (false, Some("db"))),
            // Whoever started it was started for the allocation.
            (Some("/home/u/shop-2"), Some("rootlessport"), true, own("rootlessport")),
            (Some("/home/u/shop-2"), Some("node"), false, own("node")),
            // Nobody can say whose it is, so it is no conflict.
            (None, None, true, (false, None)),
            (None, None, false, own("db")),
        ];
        for (working_dir, listed, has_owner, expected) in table {
            let published = published(working_dir);
            let listener = of_container(&allocation, &published, listed.map(process), has_owner);
            let found = (listener.own, listener.name.as_deref());
            assert_eq!(found, expected, "{working_dir:?}, {listed:?}, owner {has_owner}");
        }
    }

    #[test]
    fn a_container_that_ended_behind_a_silent_engine_serves_no_allocation() {
        let allocation = Allocation::sample();
        let serves = |seconds| {
            let at = Instant::now().checked_sub(Duration::from_secs(seconds)).expect("later");
            let published = testing::published(allocation.port, testing::container(None));
            let container = published.container.clone();
            let heard = vec![Some(Heard { at, is_last: false })];
            let containers = Containers::new([container], [published], heard, at);
            let mut host = Host { containers, ..Host::default() };
            host.listener_among(&allocation, &[], &mut process::living).is_some()
        };
        assert!(serves(0));
        assert!(!serves(31), "and no socket is there");
    }

    #[test]
    fn a_listener_that_was_seen_stays_while_the_kernel_does_not_say() {
        let mut allocation = Allocation::sample();
        assert_eq!(unseen_listener(&allocation), None);
        allocation.taken_over = true;
        let listener = unseen_listener(&allocation).expect("it was seen");
        assert!(listener.own);
        assert_eq!(listener.process, None);
    }
}
