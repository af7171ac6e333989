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
    match hold(port, protocol) {
        Ok(_) => Probe::Free,
        Err(answer) => answer,
    }
}

/// Binds `port` and keeps it bound until the sockets are dropped (or closed by `execve`): nobody
/// gets in between an answer and the program that it is for.
///
/// # Errors
///
/// What the probe would have said instead of free.
pub fn hold(port: u16, protocol: Protocol) -> Result<Vec<OwnedFd>, Probe> {
    let mut held = Vec::with_capacity(2);
    if protocol.has_tcp() {
        held.push(hold_tcp(port)?);
    }
    if protocol.has_udp() {
        let claimed = claim(port, SocketType::DGRAM, IfInUse::Fail);
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
fn hold_tcp(port: u16) -> Result<OwnedFd, Probe> {
    let claimed = claim(port, SocketType::STREAM, IfInUse::Reuse);
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

/// Binds `port` at every address that the machine can have.
fn claim(port: u16, kind: SocketType, if_in_use: IfInUse) -> rustix::io::Result<Claim> {
    if has_ipv6() {
        match claim_in(AddressFamily::INET6, port, kind, if_in_use) {
            Err(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL) => {}
            done => return done,
        }
    }
    claim_in(AddressFamily::INET, port, kind, if_in_use)
}

/// Binds `port` at the wildcard address of one family.
fn claim_in(
    family: AddressFamily,
    port: u16,
    kind: SocketType,
    if_in_use: IfInUse,
) -> rustix::io::Result<Claim> {
    let socket = socket_with(family, kind, SocketFlags::CLOEXEC, None)?;
    let bind = || {
        if family == AddressFamily::INET6 {
            bind(&socket, &SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, port, 0, 0))
        } else {
            bind(&socket, &SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port))
        }
    };
    if family == AddressFamily::INET6 {
        // The default is the administrator's (net.ipv6.bindv6only).
        sockopt::set_ipv6_v6only(&socket, false)?;
    }
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
