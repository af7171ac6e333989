//! Sockets as the kernel lists them: netlink sock_diag, /proc/net where netlink is refused.
//!
//! Every question is put to netlink first. It fails for good in some sandboxes and in kernels
//! without the module, and a failed attempt costs a microsecond, so nothing is remembered of it but
//! that it was said.
//! The functions keep no state: any thread may call them, and is told of its own network namespace.

mod filter;
mod netlink;
mod procfs;
#[cfg(test)]
pub(super) mod testing;

use std::io;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::os::fd::AsFd;
use std::sync::Once;

use netlink_packet_sock_diag::constants::{TCP_CLOSE, TCP_ESTABLISHED, TCP_LISTEN};

use crate::api::Protocol;

/// A listening (TCP) or bound (UDP) socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Socket {
    /// [`Protocol::Tcp`] or [`Protocol::Udp`].
    pub protocol: Protocol,
    /// Where it is bound.
    pub local: SocketAddr,
    /// Whose it is.
    pub uid: u32,
    /// Its inode, which /proc/PID/fd shows.
    pub inode: u64,
}

/// The listening (TCP) and bound (UDP) sockets on one port.
///
/// A UDP socket counts whether it is connected or not: it keeps the port from others either way.
///
/// # Errors
///
/// When neither netlink nor /proc/net answers.
pub fn on_port(port: u16, protocol: Protocol) -> io::Result<Vec<Socket>> {
    bound(Ports::One(port), protocol)
}

/// The listening (TCP) and bound (UDP) sockets on `ports`, which are in their order. Others may be
/// among the answer: the kernel is told some ranges that have all of them.
///
/// # Errors
///
/// When neither netlink nor /proc/net answers.
pub fn on_ports(
    ports: impl IntoIterator<Item = u16>,
    protocol: Protocol,
) -> io::Result<Vec<Socket>> {
    let ranges = filter::ranges(ports);
    if ranges.is_empty() {
        return Ok(Vec::new());
    }
    bound(Ports::Within(&ranges), protocol)
}

/// All listening (TCP) and bound (UDP) sockets. One that comes or goes meanwhile may be missing or
/// there twice: the kernel walks its tables in parts.
///
/// # Errors
///
/// When neither netlink nor /proc/net answers.
pub fn all(protocol: Protocol) -> io::Result<Vec<Socket>> {
    bound(Ports::All, protocol)
}

/// All sockets that wait for whoever comes: listening (TCP), and bound but not connected (UDP). A
/// connected UDP socket is a client's: it keeps its port from others, but serves nobody.
///
/// # Errors
///
/// When neither netlink nor /proc/net answers.
pub fn serving() -> io::Result<Vec<Socket>> {
    let mut sockets = all(Protocol::Tcp)?;
    let unconnected = Query { protocol: Protocol::Udp, states: 1 << TCP_CLOSE, ports: Ports::All };
    sockets.extend(rows(unconnected)?.iter().map(|row| row.socket(Protocol::Udp)));
    Ok(sockets)
}

/// Whether the kernel answers over netlink. Where it doesn't, /proc/net has to do, which takes ten
/// times as long.
///
/// # Errors
///
/// Why it doesn't: of either protocol.
pub fn netlink_answers() -> io::Result<()> {
    [Protocol::Tcp, Protocol::Udp].into_iter().try_for_each(|protocol| {
        netlink::rows(Query { protocol, states: 0, ports: Ports::All }).map(drop)
    })
}

/// The user at the other end of a loopback TCP connection that was accepted here: `local` is our
/// end, `peer` theirs. `None` when no row with an inode says it: a socket that its process has
/// closed (FIN_WAIT2, TIME_WAIT) is listed as root's, with inode 0.
///
/// # Errors
///
/// When neither netlink nor /proc/net answers.
pub fn peer_uid(local: SocketAddr, peer: SocketAddr) -> io::Result<Option<u32>> {
    // The client sees the connection the other way round, and an IPv4 client of a dual-stack
    // listener sees it in IPv4.
    let client = (canonical(peer), canonical(local));
    if client.0.is_ipv4() != client.1.is_ipv4() {
        return Ok(None);
    }
    let row = netlink::connection(client.0, client.1).or_else(|refused| {
        say_refused(&refused);
        let ports = Ports::One(peer.port());
        let every = Query { protocol: Protocol::Tcp, states: u32::MAX, ports };
        let rows = procfs::rows(every).map_err(|error| neither(&refused, &error))?;
        Ok::<_, io::Error>(rows.into_iter().find(|row| row.is_between(client)))
    })?;
    // Where no connection is, sock_diag answers with the listener that such a packet would reach.
    Ok(row.filter(|row| row.is_between(client) && row.inode != 0).map(|row| row.uid))
}

/// Whether connections, and at least one, are all that there is on a TCP port besides the socket
/// `own`: nobody listens and nobody is bound. (Before Linux 6.8 a socket that is bound and does
/// neither listen nor connect is not listed.)
pub(super) fn only_connections(port: u16, own: impl AsFd) -> io::Result<bool> {
    let own = rustix::fs::fstat(own)?.st_ino;
    let mut connected = false;
    let every = Query { protocol: Protocol::Tcp, states: u32::MAX, ports: Ports::One(port) };
    for row in rows(every)?.iter().filter(|row| row.inode != own) {
        match row.state {
            TCP_LISTEN | TCP_CLOSE | TCP_BOUND_INACTIVE => return Ok(false),
            _ => connected = true,
        }
    }
    Ok(connected)
}

/// Bound, neither listening nor connected: `TCP_BOUND_INACTIVE` of the kernel's tcp_states.h, since
/// Linux 6.8.
const TCP_BOUND_INACTIVE: u8 = 13;

/// Which rows are wanted.
#[derive(Debug, Clone, Copy)]
struct Query<'a> {
    /// [`Protocol::Tcp`] or [`Protocol::Udp`].
    protocol: Protocol,
    /// A bit for each state of the kernel's tcp_states.h: `1 << TCP_LISTEN`.
    states: u32,
    /// The local port.
    ports: Ports<'a>,
}

/// Some ports.
#[derive(Debug, Clone, Copy)]
enum Ports<'a> {
    All,
    One(u16),
    /// In ascending order, without overlaps.
    Within(&'a [RangeInclusive<u16>]),
}

impl Ports<'_> {
    fn contain(self, port: u16) -> bool {
        match self {
            Self::All => true,
            Self::One(one) => one == port,
            Self::Within(ranges) => ranges.iter().any(|range| range.contains(&port)),
        }
    }
}

/// A row of the kernel's socket tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Row {
    local: SocketAddr,
    peer: SocketAddr,
    state: u8,
    uid: u32,
    inode: u64,
}

impl Row {
    /// Whether it is this very end of this very connection.
    fn is_between(&self, (local, peer): (SocketAddr, SocketAddr)) -> bool {
        canonical(self.local) == local && canonical(self.peer) == peer
    }
}

/// An address without the IPv6 clothes that an IPv4 connection wears on a dual-stack socket.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

fn bound(ports: Ports<'_>, protocol: Protocol) -> io::Result<Vec<Socket>> {
    let mut sockets = Vec::new();
    if protocol.has_tcp() {
        let listening = Query { protocol: Protocol::Tcp, states: 1 << TCP_LISTEN, ports };
        sockets.extend(rows(listening)?.iter().map(|row| row.socket(Protocol::Tcp)));
    }
    if protocol.has_udp() {
        let states = 1 << TCP_CLOSE | 1 << TCP_ESTABLISHED;
        let bound = Query { protocol: Protocol::Udp, states, ports };
        sockets.extend(rows(bound)?.iter().map(|row| row.socket(Protocol::Udp)));
    }
    Ok(sockets)
}

impl Row {
    fn socket(&self, protocol: Protocol) -> Socket {
        Socket { protocol, local: self.local, uid: self.uid, inode: self.inode }
    }
}

fn rows(query: Query<'_>) -> io::Result<Vec<Row>> {
    netlink::rows(query).or_else(|refused| {
        say_refused(&refused);
        procfs::rows(query).map_err(|error| neither(&refused, &error))
    })
}

/// Says the first time that /proc/net has to do. It would be the same with every question.
fn say_refused(refused: &io::Error) {
    static SAID: Once = Once::new();
    SAID.call_once(|| {
        tracing::warn!("sock_diag does not answer ({refused}): /proc/net is read, which is slower");
    });
}

/// Neither source answered.
fn neither(netlink: &io::Error, procfs: &io::Error) -> io::Error {
    io::Error::new(procfs.kind(), format!("sock_diag: {netlink}; /proc/net: {procfs}"))
}

#[cfg(test)]
mod tests;
