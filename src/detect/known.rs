//! What is known of the sockets on allocated ports: a cache of their processes, by inode.
//!
//! Finding a socket's process is slow, so an answer never waits for it: a socket of this user
//! whose process is not known yet counts as own, and is remembered as one to look for.

use std::path::Path;

use foldhash::{HashMap, HashSet};

use super::ProcessFacts;
use super::ownership::{Claim, Tie, tie};
use super::process::Living;
use super::sockets::Socket;
use crate::registry::{Allocation, Listener, Process};

/// How often a socket's process is looked for. Some are never seen: not dumpable, or in a pid
/// namespace outside this one.
const SEARCHES: u8 = 3;

/// How to see whether a process lives.
pub(super) type Look<'a> = &'a mut dyn FnMut(Process) -> Option<Living>;

/// The sockets that were met, with what is known of their processes.
#[derive(Debug, Default)]
pub(super) struct Known {
    sockets: HashMap<u64, Holders>,
}

#[derive(Debug, Default)]
struct Holders {
    processes: Vec<ProcessFacts>,
    fruitless_searches: u8,
}

/// What one socket is to an allocation.
struct Judgement {
    own: bool,
    tie: Option<Tie>,
    process: Option<(Process, String)>,
}

impl Known {
    /// The listener among `sockets`, all of which are on the allocation's port: an own one rather
    /// than a stranger's, a known one rather than an unknown, the one with the closest tie.
    pub(super) fn listener(
        &mut self,
        allocation: &Allocation,
        sockets: &[Socket],
        uid: u32,
        look: Look<'_>,
    ) -> Option<Listener> {
        if sockets.is_empty() {
            return None;
        }
        let claim = claim(allocation, uid, look);
        let judged = sockets.iter().map(|socket| (socket, self.judge(&claim, socket, look)));
        let (socket, best) = judged.min_by_key(|(socket, judgement)| {
            let unknown = judgement.process.is_none();
            (!judgement.own, unknown, judgement.tie, socket.protocol.as_str(), socket.local)
        })?;
        let (process, name) = best.process.unzip();
        Some(Listener { process, name, local_address: socket.local.to_string(), own: best.own })
    }

    fn judge(&mut self, claim: &Claim<'_>, socket: &Socket, look: Look<'_>) -> Judgement {
        if socket.uid != claim.uid {
            return Judgement { own: false, tie: None, process: None };
        }
        let holders = self.sockets.entry(socket.inode).or_default();
        while let Some((best, tie)) = holders.closest(claim) {
            let facts = &holders.processes[best];
            if claim.owner == Some(facts.process) || look(facts.process).is_some() {
                let process = Some((facts.process, facts.name.clone()));
                // The oldest of several strangers, as of several equals.
                return Judgement { own: tie.is_some(), tie, process };
            }
            // It died and left the socket to others: they are to be looked for again.
            holders.processes.remove(best);
            holders.fruitless_searches = 0;
        }
        Judgement { own: true, tie: None, process: None }
    }

    /// The processes that have a socket of this user's. One that is not known yet is to be looked for.
    pub(super) fn processes_of(&mut self, inode: u64) -> &[ProcessFacts] {
        &self.sockets.entry(inode).or_default().processes
    }

    /// The sockets whose process is to be looked for.
    pub(super) fn unknown(&self) -> Vec<u64> {
        let unknown = self.sockets.iter().filter(|(_, holders)| {
            holders.processes.is_empty() && holders.fruitless_searches < SEARCHES
        });
        unknown.map(|(inode, _)| *inode).collect()
    }

    /// Takes in what was found, and says whether any of it is news.
    pub(super) fn learn(
        &mut self,
        found: impl IntoIterator<Item = (u64, Vec<ProcessFacts>)>,
    ) -> bool {
        let mut news = false;
        for (inode, processes) in found {
            // It may have been forgotten since it was asked for.
            let Some(holders) = self.sockets.get_mut(&inode) else { continue };
            if processes.is_empty() {
                holders.fruitless_searches = holders.fruitless_searches.saturating_add(1);
            } else {
                news |= holders.processes != processes;
                holders.processes = processes;
                holders.fruitless_searches = 0;
            }
        }
        news
    }

    /// Forgets every socket that is not among `all` the sockets there are.
    pub(super) fn forget_all_but(&mut self, all: &[Socket]) {
        if !self.sockets.is_empty() {
            let there: HashSet<u64> = all.iter().map(|socket| socket.inode).collect();
            self.sockets.retain(|inode, _| there.contains(inode));
        }
    }
}

impl Holders {
    /// The process with the closest tie, or the first where there are only strangers.
    fn closest(&self, claim: &Claim<'_>) -> Option<(usize, Option<Tie>)> {
        let ties = self.processes.iter().map(|facts| tie(claim, facts)).enumerate();
        ties.min_by_key(|(_, tie)| (tie.is_none(), *tie))
    }
}

/// What `allocation` says of the processes that belong to it.
pub(super) fn claim<'a>(allocation: &'a Allocation, uid: u32, look: Look<'_>) -> Claim<'a> {
    let owner = allocation.owner.map(|owner| owner.process);
    let living = owner.and_then(|owner| Some((owner, look(owner)?)));
    Claim {
        uid,
        lock_id: allocation.lock_id,
        owner: living.map(|(owner, _)| owner),
        session: living.and_then(|(_, living)| living.session),
        project: allocation.project_path.as_deref().map(Path::new),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv6Addr, SocketAddr};

    use super::*;
    use crate::api::Protocol;
    use crate::registry::Owner;

    const US: u32 = 1000;
    const OWNER: Process = Process { pid: 50, start_ticks: 500 };
    const SERVER: Process = Process { pid: 90, start_ticks: 900 };
    const WORKER: Process = Process { pid: 91, start_ticks: 910 };

    fn allocation() -> Allocation {
        let owner = Owner { process: OWNER, started_at: 5, implicit: false };
        Allocation { owner: Some(owner), ..Allocation::sample() }
    }

    fn socket(inode: u64) -> Socket {
        let local = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 3000));
        Socket { protocol: Protocol::Tcp, local, uid: US, inode }
    }

    fn facts(process: Process, cwd: &str) -> ProcessFacts {
        ProcessFacts {
            process,
            uid: US,
            name: format!("program-{}", process.pid),
            cwd: Some(cwd.into()),
            session: None,
            ancestors: Vec::new(),
            lock_id: None,
        }
    }

    /// Asks with these processes alive.
    fn ask(known: &mut Known, sockets: &[Socket], alive: &[Process]) -> Option<Listener> {
        let mut look = |process| alive.contains(&process).then_some(Living { session: None });
        known.listener(&allocation(), sockets, US, &mut look)
    }

    const ALL: [Process; 3] = [OWNER, SERVER, WORKER];

    #[test]
    fn nobody_listens_without_a_socket() {
        let mut known = Known::default();
        assert_eq!(ask(&mut known, &[], &ALL), None);
        assert!(known.unknown().is_empty());
    }

    #[test]
    fn a_new_socket_is_own_until_its_process_is_known() {
        let mut known = Known::default();
        let listener = ask(&mut known, &[socket(1)], &ALL).expect("there is a socket");
        assert!(listener.own);
        assert_eq!((listener.process, listener.name), (None, None));
        assert_eq!(listener.local_address, "[::]:3000");
        assert_eq!(known.unknown(), [1]);

        assert!(known.learn([(1, vec![facts(SERVER, "/home/u/blog")])]));
        assert!(known.unknown().is_empty());
        let listener = ask(&mut known, &[socket(1)], &ALL).expect("there is a socket");
        assert!(!listener.own, "the owner lives, and the server is somebody else's");
        assert_eq!(listener.process, Some(SERVER));
        assert_eq!(listener.name.as_deref(), Some("program-90"));

        let listener = ask(&mut known, &[socket(1)], &[SERVER]).expect("there is a socket");
        assert!(listener.own, "no owner lives any more");
    }

    #[test]
    fn another_users_socket_is_a_strangers_and_is_not_looked_for() {
        let mut known = Known::default();
        let theirs = Socket { uid: US + 1, ..socket(1) };
        let listener = ask(&mut known, &[theirs], &ALL).expect("there is a socket");
        assert!(!listener.own);
        assert_eq!(listener.process, None);
        assert!(known.unknown().is_empty());
    }

    #[test]
    fn any_own_process_of_a_shared_socket_makes_it_own() {
        let mut known = Known::default();
        ask(&mut known, &[socket(1)], &ALL);
        let shared = vec![facts(SERVER, "/home/u/blog"), facts(WORKER, "/home/u/shop/api")];
        known.learn([(1, shared)]);
        let listener = ask(&mut known, &[socket(1)], &ALL).expect("there is a socket");
        assert_eq!((listener.own, listener.process), (true, Some(WORKER)));

        let with_owner = vec![facts(WORKER, "/home/u/shop"), facts(OWNER, "/")];
        known.learn([(1, with_owner)]);
        let listener = ask(&mut known, &[socket(1)], &ALL).expect("there is a socket");
        assert_eq!(listener.process, Some(OWNER), "the owner fits best");
    }

    #[test]
    fn an_own_listener_goes_before_a_strangers() {
        let mut known = Known::default();
        let sockets = [Socket { uid: US + 1, ..socket(1) }, socket(2), socket(3)];
        ask(&mut known, &sockets, &ALL);
        known.learn([
            (2, vec![facts(SERVER, "/home/u/blog")]),
            (3, vec![facts(WORKER, "/home/u/shop")]),
        ]);
        let listener = ask(&mut known, &sockets, &ALL).expect("there are three");
        assert_eq!((listener.own, listener.process), (true, Some(WORKER)));
        let listener = ask(&mut known, &sockets[..2], &ALL).expect("there are two");
        assert_eq!((listener.own, listener.process), (false, Some(SERVER)), "one that is known");
    }

    #[test]
    fn a_socket_that_outlives_its_process_is_looked_for_again() {
        let mut known = Known::default();
        ask(&mut known, &[socket(1)], &ALL);
        known.learn([(1, vec![facts(SERVER, "/home/u/blog")])]);
        let listener = ask(&mut known, &[socket(1)], &[OWNER]).expect("there is a socket");
        assert_eq!((listener.own, listener.process), (true, None));
        assert_eq!(known.unknown(), [1]);
    }

    #[test]
    fn a_process_that_is_never_found_is_not_looked_for_for_ever() {
        let mut known = Known::default();
        ask(&mut known, &[socket(1)], &ALL);
        for _ in 0..SEARCHES {
            assert_eq!(known.unknown(), [1]);
            assert!(!known.learn([(1, Vec::new())]), "that is no news");
        }
        assert!(known.unknown().is_empty());
        assert!(ask(&mut known, &[socket(1)], &ALL).is_some_and(|listener| listener.own));
    }

    #[test]
    fn a_socket_that_has_gone_is_forgotten() {
        let mut known = Known::default();
        ask(&mut known, &[socket(1), socket(2)], &ALL);
        known.forget_all_but(&[socket(2), socket(3)]);
        assert_eq!(known.unknown(), [2]);
        assert!(!known.learn([(1, vec![facts(SERVER, "/")])]), "nobody asks");
    }
}
