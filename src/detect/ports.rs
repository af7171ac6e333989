//! The bind probe: the only honest test whether a port is free.
//!
//! A socket on `[::]` that is not IPv6-only asks for every address of both families at once
//! (ipv6(7), IPV6_V6ONLY). It never listens, so whoever connects meanwhile is refused.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6};
use std::os::fd::OwnedFd;
use std::sync::OnceLock;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with, sockopt};

use super::sockets;
use crate::api::Protocol;
use crate::registry::Probe;

/// Whether a server could bind `port` now, at any address of either family.
///
/// It occupies the port for microseconds, so it is never asked for an allocated port. What cannot
/// be tried (no descriptor left, no memory) is [`Probe::Taken`], with a warning in the log: a port
/// is called free only after it was bound.
pub fn probe(port: u16, protocol: Protocol) -> Probe {
    Prober::default().probe(port, protocol)
}

/// Probes one port after the other, with a socket that was made before somebody waits for it.
#[derive(Debug, Default)]
pub struct Prober {
    spare: Option<Unbound>,
}

impl Prober {
    /// Makes a socket for the next probe, for whenever there is time: that takes as long as the rest
    /// of a probe.
    pub fn prepare(&mut self) {
        if self.spare.is_none() {
            // Where it is refused now, the probe sees whether it still is.
            self.spare = Unbound::new(SocketType::STREAM).ok();
        }
    }

    /// As [`probe`].
    pub fn probe(&mut self, port: u16, protocol: Protocol) -> Probe {
        let spare = if protocol.has_tcp() { self.spare.take() } else { None };
        match hold_with(port, protocol, spare) {
            Ok(_) => Probe::Free,
            Err(answer) => answer,
        }
    }
}

/// Binds `port` and keeps it bound until the sockets are dropped (or closed by `execve`): nobody
/// gets in between an answer and the program that it is for.
///
/// # Errors
///
/// What the probe would have said instead of free.
pub fn hold(port: u16, protocol: Protocol) -> Result<Vec<OwnedFd>, Probe> {
    hold_with(port, protocol, None)
}

/// The same with a TCP socket that is there already.
fn hold_with(port: u16, protocol: Protocol, spare: Option<Unbound>) -> Result<Vec<OwnedFd>, Probe> {
    let mut held = Vec::with_capacity(2);
    if protocol.has_tcp() {
        held.push(hold_tcp(port, spare)?);
    }
    if protocol.has_udp() {
        let claimed = claim(port, SocketType::DGRAM, IfInUse::Fail, None);
        held.push(claimed.map_err(|error| answer(port, error))?.socket);
    }
    Ok(held)
}

/// Binds a TCP port, strictly if that works.
///
/// A strict bind also fails on the connections that a stopped server left behind (TIME_WAIT), yet
/// every server that sets SO_REUSEADDR could start. So a second bind has it set, and counts when
/// connections are all that is on the port. They are looked for after that bind: nobody can then
/// begin to listen without being seen.
fn hold_tcp(port: u16, spare: Option<Unbound>) -> Result<OwnedFd, Probe> {
    let claimed = claim(port, SocketType::STREAM, IfInUse::Reuse, spare);
    let Claim { socket, is_strict } = claimed.map_err(|error| answer(port, error))?;
    if is_strict {
        return Ok(socket);
    }
    match sockets::only_connections(port, &socket) {
        Ok(true) => Ok(socket),
        Ok(false) => Err(Probe::Taken),
        Err(error) => {
            tracing::warn!(port, %error, "what is on the port can't be seen, so it counts as taken");
            Err(Probe::Taken)
        }
    }
}

/// What a failed attempt to bind says of the port (bind(2), ip(7)). Security modules and the
/// service manager's SocketBindDeny= refuse with EPERM.
fn answer(port: u16, error: Errno) -> Probe {
    match error {
        Errno::ADDRINUSE => Probe::Taken,
        Errno::ACCESS | Errno::PERM => Probe::Forbidden,
        _ => {
            tracing::warn!(port, %error, "the port can't be probed, so it counts as taken");
            Probe::Taken
        }
    }
}

/// A port that is bound.
struct Claim {
    socket: OwnedFd,
    /// It was bound without SO_REUSEADDR.
    is_strict: bool,
}

/// What to do where a port is in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum IfInUse {
    Fail,
    /// Try once more with SO_REUSEADDR.
    Reuse,
}

/// Binds `port` at every address that the machine can have, with the socket that is there or
/// another.
fn claim(
    port: u16,
    kind: SocketType,
    if_in_use: IfInUse,
    spare: Option<Unbound>,
) -> rustix::io::Result<Claim> {
    let unbound = spare.map_or_else(|| Unbound::new(kind), Ok)?;
    let is_dual = unbound.family == AddressFamily::INET6;
    match unbound.claim(port, if_in_use) {
        // IPv6 is there, but no address.
        Err(Errno::ADDRNOTAVAIL) if is_dual => {
            Unbound::of(AddressFamily::INET, kind)?.claim(port, if_in_use)
        }
        done => done,
    }
}

/// A socket that is not bound yet.
#[derive(Debug)]
struct Unbound {
    socket: OwnedFd,
    family: AddressFamily,
}

impl Unbound {
    /// A socket for every address that the machine can have.
    fn new(kind: SocketType) -> rustix::io::Result<Self> {
        if has_ipv6() {
            match Self::of(AddressFamily::INET6, kind) {
                Err(Errno::AFNOSUPPORT) => {}
                made => return made,
            }
        }
        Self::of(AddressFamily::INET, kind)
    }

    fn of(family: AddressFamily, kind: SocketType) -> rustix::io::Result<Self> {
        let socket = socket_with(family, kind, SocketFlags::CLOEXEC, None)?;
        if family == AddressFamily::INET6 {
            // The default is the administrator's (net.ipv6.bindv6only).
            sockopt::set_ipv6_v6only(&socket, false)?;
        }
        Ok(Self { socket, family })
    }

    /// Binds it to `port` at the wildcard address of its family.
    fn claim(self, port: u16, if_in_use: IfInUse) -> rustix::io::Result<Claim> {
        let Self { socket, family } = self;
        let bind = || {
            if family == AddressFamily::INET6 {
                bind(&socket, &SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, port, 0, 0))
            } else {
                bind(&socket, &SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port))
            }
        };
        let mut bound = bind();
        // A socket that could not be bound is as good as new.
        let is_strict = bound != Err(Errno::ADDRINUSE) || if_in_use == IfInUse::Fail;
        if !is_strict {
            sockopt::set_socket_reuseaddr(&socket, true)?;
            bound = bind();
        }
        bound?;
        Ok(Claim { socket, is_strict })
    }
}

/// Whether the kernel has IPv6 (`ipv6.disable=1` takes it away until the next boot). Asked once,
/// because a kernel without it looks for a module at each attempt, and that starts a process.
fn has_ipv6() -> bool {
    static HAS_IPV6: OnceLock<bool> = OnceLock::new();
    *HAS_IPV6.get_or_init(|| {
        let socket =
            socket_with(AddressFamily::INET6, SocketType::DGRAM, SocketFlags::CLOEXEC, None);
        !matches!(socket, Err(Errno::AFNOSUPPORT))
    })
}

#[cfg(test)]
mod tests;
