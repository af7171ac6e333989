//! Who holds a socket, and who was started for an allocation: walks over /proc.
//!
//! A walk looks at every descriptor of every process of this user (root sees everybody's), which
//! takes milliseconds to a tenth of a second. So it is made on request or once per new listener,
//! and never on the async thread.

use std::collections::HashMap;
use std::io;

use rustix::process::geteuid;

use super::facts::{self, ProcessFacts};
use super::process;
use super::procfs::{self, Listed, ProcDir};
use super::sockets::{self, Socket};
use crate::api::{Protocol, SystemUsage};

/// The processes that have these sockets open, the oldest first. The answer has every inode that
/// was asked for, with no processes where none could be seen.
pub fn find(inodes: &[u64]) -> HashMap<u64, Vec<ProcessFacts>> {
    let mut found: HashMap<_, Vec<ProcessFacts>> =
        inodes.iter().map(|inode| (*inode, Vec::new())).collect();
    let mut held = Vec::new();
    for_each_process(|pid, _, directory| {
        held.clear();
        let mut look = |inode| {
            if found.contains_key(&inode) && !held.contains(&inode) {
                held.push(inode);
            }
        };
        // What may not be looked at may be a process without its first thread, too: with the memory
        // of that thread its files went to root.
        let any = directory.sockets(&mut look).unwrap_or(false);
        let other_thread = if any { None } else { directory.other_thread() };
        if let Some(thread) = &other_thread {
            let _gone = thread.sockets(&mut look);
        }
        if held.is_empty() {
            return;
        }
        let body = other_thread.as_ref().unwrap_or(directory);
        if let Some(facts) = facts::read(pid, directory, body) {
            for inode in &held {
                found.entry(*inode).or_default().push(facts.clone());
            }
        }
    });
    for processes in found.values_mut() {
        processes.sort_by_key(|facts| (facts.process.start_ticks, facts.process.pid));
    }
    found
}

/// Who uses `port`, whoever it is: a listening (TCP) or bound (UDP) socket and the oldest process
/// that has it open. Of several sockets one whose process can be seen. Makes a walk.
///
/// # Errors
///
/// When the sockets cannot be listed.
pub fn usage(port: u16, protocol: Protocol) -> io::Result<Option<SystemUsage>> {
    let usages = usages(&sockets_on(port, protocol)?);
    let named = usages.iter().position(|usage| usage.process.is_some());
    Ok(usages.into_iter().nth(named.unwrap_or(0)))
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

/// The same of many sockets, one each and in their order, with one walk for all.
///
/// The process is missing where it cannot be seen, as one of another user. Containers are not
/// looked for.
pub fn usages(sockets: &[Socket]) -> Vec<SystemUsage> {
    described(sockets, &find_visible(sockets))
}

/// The processes of those sockets that this user may see: [`find`], unless that would be in vain.
pub(crate) fn find_visible(sockets: &[Socket]) -> HashMap<u64, Vec<ProcessFacts>> {
    let me = geteuid().as_raw();
    let seen = sockets.iter().filter(|socket| me == 0 || socket.uid == me);
    let inodes: Vec<_> = seen.map(|socket| socket.inode).collect();
    if inodes.is_empty() { HashMap::new() } else { find(&inodes) }
}

/// The same sockets with the processes that were `found`, one each and in their order.
pub(crate) fn described(
    sockets: &[Socket],
    found: &HashMap<u64, Vec<ProcessFacts>>,
) -> Vec<SystemUsage> {
    let usage = |socket: &Socket| {
        let holder = found.get(&socket.inode).and_then(|processes| processes.first());
        SystemUsage {
            protocol: socket.protocol,
            local_address: socket.local.to_string(),
            uid: socket.uid,
            process: holder.and_then(|facts| process::describe(facts.process.pid)),
            container: None,
        }
    };
    sockets.iter().map(usage).collect()
}

/// Opens the directory of every process of this user, or of everybody for root, and calls `each`
/// with its process id, its effective user and that directory.
pub(super) fn for_each_process(mut each: impl FnMut(u32, u32, &ProcDir)) {
    let me = geteuid();
    // Without /proc no process can be seen.
    for Listed { pid, .. } in procfs::processes().unwrap_or_default() {
        if let Ok(directory) = ProcDir::open(pid)
            && let Ok(uid) = directory.uid()
            && (me.is_root() || uid == me.as_raw())
        {
            each(pid, uid, &directory);
        }
    }
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

    fn inode(socket: &TcpListener) -> u64 {
        rustix::fs::fstat(socket).expect("it is open").st_ino
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
        let found = find(&[inode(&ours), inode(&alone), u64::MAX]);
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
    fn a_socket_is_described_with_its_process() {
        let ours = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let local = ours.local_addr().expect("it is bound");
        let inode = inode(&ours);
        let child = child_with(ours, &mut sleeper());
        let mine = Socket { protocol: Protocol::Tcp, local, uid: geteuid().as_raw(), inode };
        let theirs = Socket { uid: mine.uid + 1, inode: u64::MAX, ..mine };
        let usages = usages(&[theirs, mine]);
        assert_eq!(usages[0].process, None, "it cannot be seen");
        assert_eq!(usages[0].uid, mine.uid + 1);
        let process = usages[1].process.as_ref().expect("it is our child");
        assert_eq!((process.pid, process.name.as_str()), (child.pid(), "sleep"));
        assert_eq!(process.command.as_deref(), Some("sleep 600"));
        assert_eq!(usages[1].local_address, local.to_string());
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
        let heirs = Heirs::default().of(&[lock_id]);
        assert_eq!(heirs[&lock_id].process, facts.process);
    }
}
