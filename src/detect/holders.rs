//! Who holds a socket: walks over /proc, and what is known of them.
//!
//! A walk looks at every descriptor of every process of this user (root sees everybody's), which
//! takes milliseconds to a tenth of a second. So it is made on request or once per new listener,
//! never on the async thread, and what it found is remembered by the socket's inode. What is
//! remembered is believed after a look: does that process have that socket still?

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use foldhash::{HashMap, HashSet};
use rustix::process::geteuid;

use super::facts::{self, ProcessFacts};
use super::parts::in_parts;
use super::process;
use super::procfs::{self, Listed, ProcDir};
use super::sockets::{self, Socket};
use crate::api::{ContainerInfo, ProcessInfo, Protocol, SystemUsage};

/// How many sockets are remembered before all are forgotten: more than any machine listens on.
const MEMORY: usize = 16_384;

/// How long nobody looks again for a process that cannot be seen: not dumpable, or in a pid
/// namespace outside this one.
const IN_VAIN: Duration = Duration::from_secs(10);

/// A process that has a socket open.
#[derive(Debug, Clone, Copy)]
struct Holder {
    process: Listed,
    descriptor: u32,
}

/// The processes that have each of some sockets open, the oldest first; none where none could be
/// seen.
#[derive(Debug, Default)]
pub struct Found(HashMap<u64, Vec<Holder>>);

/// Finds the processes of sockets.
#[derive(Debug, Default)]
pub struct Finder {
    known: Mutex<HashMap<u64, Known>>,
    /// Held by whoever walks: a second walk would find the same.
    walk: Mutex<()>,
}

/// What the last walk for a socket found.
#[derive(Debug)]
struct Known {
    holders: Vec<Holder>,
    since: Instant,
}

impl Finder {
    /// The processes that have these sockets open, as far as this user may see them. `unknown` adds
    /// inodes to find whatever is known of them; it is asked again when a walk by somebody else is
    /// over. Slow unless all are known: it looks through /proc.
    pub fn find(&self, sockets: &[Socket], unknown: impl Fn() -> Vec<u64>) -> Found {
        let me = geteuid().as_raw();
        let visible = sockets.iter().filter(|socket| me == 0 || socket.uid == me);
        let sought: Vec<u64> = visible.map(|socket| socket.inode).collect();
        let mut found = self.recall(&sought);
        if found.has_all(&sought) && unknown().is_empty() {
            return found;
        }
        let _walking = self.walk.lock().unwrap_or_else(PoisonError::into_inner);
        let rest: Vec<u64> = sought.into_iter().filter(|inode| !found.has(*inode)).collect();
        found.0.extend(self.recall(&rest).0);
        let rest = rest.into_iter().filter(|inode| !found.has(*inode));
        let inodes: HashSet<u64> = rest.chain(unknown()).collect();
        if !inodes.is_empty() {
            let walked = walk_for(&inodes);
            self.remember(&walked);
            found.0.extend(walked.0);
        }
        found
    }

    /// Of these sockets those whose processes are known and have them still.
    fn recall(&self, inodes: &[u64]) -> Found {
        let known = self.known();
        let recent = |known: &&Known| !known.holders.is_empty() || known.since.elapsed() < IN_VAIN;
        let recalled = inodes.iter().filter_map(|inode| {
            let known = known.get(inode).filter(recent)?;
            Some((*inode, known.holders.clone()))
        });
        let mut recalled: HashMap<u64, Vec<Holder>> = recalled.collect();
        drop(known);
        let claims = recalled.iter().flat_map(|(inode, it)| it.iter().map(|it| (*it, *inode)));
        let mut claims: Vec<(Holder, u64)> = claims.collect();
        claims.sort_unstable_by_key(|(holder, _)| holder.process.pid);
        for wrong in in_parts(&claims, wrong_claims).concat() {
            recalled.remove(&wrong);
        }
        Found(recalled)
    }

    fn remember(&self, found: &Found) {
        let mut known = self.known();
        if known.len() + found.0.len() > MEMORY {
            known.clear();
        }
        let since = Instant::now();
        let found = found.0.iter();
        known.extend(found.map(|(inode, it)| (*inode, Known { holders: it.clone(), since })));
    }

    fn known(&self) -> MutexGuard<'_, HashMap<u64, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Holder {
    fn facts(self) -> Option<ProcessFacts> {
        let directory = directory_of(self.process)?;
        let thread = directory.other_thread();
        facts::read(self.process.pid, &directory, thread.as_ref().unwrap_or(&directory))
    }
}

/// Of these claims, those of one process side by side, the sockets of those that are not true any
/// more.
fn wrong_claims(claims: &[(Holder, u64)]) -> Vec<u64> {
    let mut wrong = Vec::new();
    for claims in claims.chunk_by(|(one, _), (next, _)| one.process == next.process) {
        let directory = directory_of(claims[0].0.process);
        let descriptors = directory.and_then(|directory| directory.descriptors().ok());
        let socket_at = |descriptor| descriptors.as_ref()?.socket_at(descriptor);
        let is_wrong = |claim: &&(Holder, u64)| socket_at(claim.0.descriptor) != Some(claim.1);
        wrong.extend(claims.iter().filter(is_wrong).map(|(_, inode)| *inode));
    }
    wrong
}

/// Looks through /proc for the processes that have these sockets open, and for those of every other
/// socket that waits for somebody: a walk takes as long for one as for all, and whoever asks about
/// one port asks about the next.
fn walk_for(asked: &HashSet<u64>) -> Found {
    // Where the kernel does not say which there are, only those that were asked for are found.
    let others = sockets::serving().unwrap_or_default();
    let mut inodes = asked.clone();
    inodes.extend(others.iter().map(|socket| socket.inode));
    let mut found = walk(&inodes);
    // Nobody waits for the others: what was not seen of them is looked for when it is asked for.
    found.0.retain(|inode, holders| !holders.is_empty() || asked.contains(inode));
    found
}

/// Looks through /proc for the processes that have these sockets open.
fn walk(inodes: &HashSet<u64>) -> Found {
    let mut found: HashMap<u64, Vec<Holder>> =
        inodes.iter().map(|inode| (*inode, Vec::new())).collect();
    // Without /proc no process can be seen.
    let processes = procfs::processes().unwrap_or_default();
    for (inode, holder) in in_parts(&processes, |part| holders_among(part, inodes)).concat() {
        let holders: &mut Vec<Holder> = found.entry(inode).or_default();
        // A process may have copies.
        if holders.last().is_none_or(|last| last.process != holder.process) {
            holders.push(holder);
        }
    }
    for holders in found.values_mut().filter(|holders| holders.len() > 1) {
        holders.sort_by_cached_key(|holder| {
            let pid = holder.process.pid;
            (procfs::stat(pid, &mut [0; 1024]).map_or(u64::MAX, |stat| stat.start_ticks), pid)
        });
    }
    Found(found)
}

/// Which of `inodes` these processes have open, and as what.
fn holders_among(processes: &[Listed], inodes: &HashSet<u64>) -> Vec<(u64, Holder)> {
    let me = geteuid();
    let mut found = Vec::new();
    for &process in processes {
        let Ok(directory) = ProcDir::open(process.pid) else { continue };
        if !me.is_root() && directory.uid() != Ok(me.as_raw()) {
            continue;
        }
        let mut look = |inode, descriptor| {
            if inodes.contains(&inode) {
                found.push((inode, Holder { process, descriptor }));
            }
        };
        // What may not be looked at may be a process without its first thread, too: with the memory
        // of that thread its files went to root.
        if !directory.sockets(&mut look).unwrap_or(false)
            && let Some(thread) = directory.other_thread()
        {
            let _gone = thread.sockets(&mut look);
        }
    }
    found
}

impl Found {
    fn has(&self, inode: u64) -> bool {
        self.0.contains_key(&inode)
    }

    fn has_all(&self, inodes: &[u64]) -> bool {
        inodes.iter().all(|inode| self.has(*inode))
    }

    /// What the ownership rule asks of the processes that hold the sockets `inodes`. The answer has
    /// every one that was looked for.
    pub fn facts(&self, inodes: &[u64]) -> HashMap<u64, Vec<ProcessFacts>> {
        let holders = inodes.iter().filter_map(|inode| Some((*inode, self.0.get(inode)?)));
        let facts = holders
            .map(|(inode, holders)| (inode, holders.iter().filter_map(|it| it.facts()).collect()));
        facts.collect()
    }

    /// Who uses these sockets, one each and in their order: the oldest process that has it open,
    /// and the container that this is in.
    ///
    /// The process is missing where it cannot be seen, as one of another user.
    pub fn usages(&self, sockets: &[Socket]) -> Vec<SystemUsage> {
        let first = |socket: &Socket| self.0.get(&socket.inode)?.first().map(|it| it.process);
        // A process may have many sockets.
        let mut processes: Vec<Listed> = sockets.iter().filter_map(first).collect();
        processes.sort_unstable_by_key(|process| process.pid);
        processes.dedup();
        let describe = |part: &[Listed]| -> Vec<_> {
            part.iter().map(|process| (*process, Described::of(*process))).collect()
        };
        let described: HashMap<Listed, Described> =
            in_parts(&processes, describe).into_iter().flatten().collect();
        let usage = |socket: &Socket| {
            let described = first(socket).and_then(|process| described.get(&process));
            let described = described.cloned().unwrap_or_default();
            SystemUsage {
                protocol: socket.protocol,
                local_address: socket.local.to_string(),
                uid: socket.uid,
                process: described.process,
                container: described.container.map(|(engine, id)| ContainerInfo {
                    engine: engine.to_owned(),
                    // As the engines' own commands shorten it.
                    name: id.chars().take(12).collect(),
                    id,
                    container_port: socket.local.port(),
                }),
            }
        };
        sockets.iter().map(usage).collect()
    }
}

/// A process, and the engine and id of the container that it is in.
#[derive(Debug, Clone, Default)]
struct Described {
    process: Option<ProcessInfo>,
    container: Option<(&'static str, String)>,
}

impl Described {
    fn of(listed: Listed) -> Self {
        let Some(directory) = directory_of(listed) else { return Self::default() };
        Self {
            process: process::describe_in(listed.pid, &directory),
            container: process::container(&directory),
        }
    }
}

/// The directory of that very process, unless it has died.
fn directory_of(listed: Listed) -> Option<ProcDir> {
    let directory = ProcDir::open(listed.pid).ok()?;
    (directory.inode() == Ok(listed.inode)).then_some(directory)
}

/// Who uses `port`, whoever it is: a listening (TCP) or bound (UDP) socket and the oldest process
/// that has it open. Of several sockets one whose process can be seen. Slow, unless the `finder`
/// knows it: it looks through /proc.
///
/// # Errors
///
/// When the sockets cannot be listed.
pub fn usage(finder: &Finder, port: u16, protocol: Protocol) -> io::Result<Option<SystemUsage>> {
    let usages = usages(finder, &sockets_on(port, protocol)?);
    let named = usages.iter().position(|usage| usage.process.is_some());
    Ok(usages.into_iter().nth(named.unwrap_or(0)))
}

/// Who uses these sockets, one each and in their order.
pub fn usages(finder: &Finder, sockets: &[Socket]) -> Vec<SystemUsage> {
    finder.find(sockets, Vec::new).usages(sockets)
}

/// The sockets of one port, TCP's first.
pub(super) fn sockets_on(port: u16, protocol: Protocol) -> io::Result<Vec<Socket>> {
    let mut sockets = Vec::new();
    if protocol.has_tcp() {
        sockets = sockets::on_port(port, Protocol::Tcp)?;
    }
    if protocol.has_udp() {
        sockets.append(&mut sockets::on_port(port, Protocol::Udp)?);
    }
    Ok(sockets)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::fd::OwnedFd;
    use std::process::{Command, Stdio};

    use uuid::Uuid;

    use super::*;
    use crate::detect::heirs::Heirs;
    use crate::detect::testing::{Child, leaderless, sleeper};
    use crate::registry::{Orphan, Process};

    fn inode(socket: &TcpListener) -> u64 {
        rustix::fs::fstat(socket).expect("it is open").st_ino
    }

    /// What a walk finds of these.
    fn find(inodes: &[u64]) -> HashMap<u64, Vec<ProcessFacts>> {
        walk(&inodes.iter().copied().collect()).facts(inodes)
    }

    /// A child that has `socket` as its standard input.
    fn child_with(socket: TcpListener, command: &mut Command) -> Child {
        let socket: OwnedFd = socket.into();
        Child::start(command.stdin(Stdio::from(socket)), "sleep")
    }

    #[test]
    fn a_socket_is_found_in_all_processes_that_have_it_open() {
        let ours = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let copy = ours.try_clone().expect("it can be copied");
        let child = child_with(copy, &mut sleeper());
        let alone = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let inodes = [inode(&ours), inode(&alone), u64::MAX];
        let found = find(&inodes);
        let pids = |inode| -> Vec<u32> {
            found[&inode].iter().map(|facts: &ProcessFacts| facts.process.pid).collect()
        };
        // A child that another test starts has a copy of everything until its execve(2).
        assert_eq!(pids(inode(&ours))[0], std::process::id(), "the oldest first");
        assert!(pids(inode(&ours)).contains(&child.pid()));
        assert_eq!(pids(inode(&alone))[0], std::process::id());
        assert!(!pids(inode(&alone)).contains(&child.pid()));
        assert!(pids(u64::MAX).is_empty(), "it was asked for");
        assert_eq!(found.len(), 3);
    }

    #[test]
    fn a_walk_for_one_socket_finds_the_others() {
        let sockets = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").expect("a port is free"));
        let [asked, other] = sockets.each_ref().map(inode);
        let finder = Finder::default();
        let found = finder.find(&[], || vec![asked]);
        assert!(found.has(asked));
        assert!(finder.recall(&[other]).has(other), "nobody has to walk again for it");
        let gone = finder.find(&[], || vec![u64::MAX]);
        assert!(gone.has(u64::MAX), "what was asked for and not found is not sought again at once");
    }

    #[test]
    fn a_socket_is_described_with_its_process() {
        let ours = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let local = ours.local_addr().expect("it is bound");
        let inode = inode(&ours);
        let child = child_with(ours, &mut sleeper());
        let mine = Socket { protocol: Protocol::Tcp, local, uid: geteuid().as_raw(), inode };
        let theirs = Socket { uid: mine.uid + 1, inode: u64::MAX, ..mine };
        let usages = usages(&Finder::default(), &[theirs, mine]);
        assert_eq!(usages[0].process, None, "it cannot be seen");
        assert_eq!(usages[0].uid, mine.uid + 1);
        let process = usages[1].process.as_ref().expect("it is our child");
        assert_eq!((process.pid, process.name.as_str()), (child.pid(), "sleep"));
        assert_eq!(process.command.as_deref(), Some("sleep 600"));
        assert_eq!(usages[1].local_address, local.to_string());
    }

    #[test]
    fn what_was_found_is_believed_while_the_process_has_that_socket() {
        let ours = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let local = ours.local_addr().expect("it is bound");
        let me = geteuid().as_raw();
        let socket = Socket { protocol: Protocol::Tcp, local, uid: me, inode: inode(&ours) };
        let unseen = Socket { inode: u64::MAX, ..socket };
        let finder = Finder::default();
        let pid = |finder: &Finder| {
            let usage = usages(finder, &[socket, unseen]).swap_remove(0);
            usage.process.map(|process| process.pid)
        };
        assert_eq!(finder.recall(&[socket.inode, unseen.inode]).0.len(), 0);
        assert_eq!(pid(&finder), Some(std::process::id()));
        let recalled = finder.recall(&[socket.inode, unseen.inode]);
        assert!(recalled.has_all(&[socket.inode, unseen.inode]), "also that one is not seen");
        assert_eq!(pid(&finder), Some(std::process::id()));

        // It is passed on: whoever had it then has it no more.
        let child = child_with(ours, &mut sleeper());
        assert!(!finder.recall(&[socket.inode]).has(socket.inode));
        assert_eq!(pid(&finder), Some(child.pid()));
        drop(child);
        assert_eq!(pid(&finder), None);
    }

    #[test]
    fn a_process_without_its_first_thread_is_seen_by_another() {
        let lock_id = Uuid::new_v4();
        let socket = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let inode = inode(&socket);
        let child = leaderless(|command| {
            command.env("STYXY_LOCK_ID", lock_id.to_string());
            command.stdin(Stdio::from(OwnedFd::from(socket)));
        });
        let found = find(&[inode]);
        let facts = found[&inode].iter().find(|facts| facts.process.pid == child.pid());
        let facts = facts.expect("its other thread has it open");
        assert_eq!(facts.lock_id, Some(lock_id));
        assert!(facts.cwd.is_some());
        let owner = Process { pid: u32::MAX, start_ticks: 0 };
        let orphan = Orphan { lock_id, owner, implicit: false, allocated_at_ms: 0 };
        let heirs = Heirs::default().of(&[orphan], &[]);
        assert_eq!(heirs[&lock_id].process, facts.process);
    }
}
