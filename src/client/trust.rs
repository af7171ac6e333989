//! Belief: only in a Styxy of the same user.
//!
//! Whoever listens where a daemon should be could hand out ports that are taken, or learn what a
//! developer works on. So the kernel says whose the socket is, before anything is sent.

use std::io;
use std::net::IpAddr;

use rustix::process::geteuid;
use socket2::Socket;

use super::discover::Endpoint;
use super::transport;
use crate::api::Protocol;
use crate::detect::holders::{self, Finder};
use crate::detect::{peer, process, sockets, users};
use crate::text::printable;

/// Why there is no daemon at a place.
#[derive(Debug, thiserror::Error)]
pub(super) enum Miss {
    /// Nobody is there, or lets us in.
    #[error("{0}")]
    Nobody(io::Error),
    /// Somebody else is: a sentence without its full stop.
    #[error("{0}")]
    Stranger(String),
}

/// Who listens, as the kernel says it.
#[derive(Debug, Clone, Copy)]
pub(super) enum Peer {
    /// The process that called listen(2), where it can be seen.
    Process(Option<u32>),
    /// The listening socket.
    Socket(sockets::Socket),
}

/// Connects to `endpoint`, if a program of this user listens there.
///
/// # Errors
///
/// Both kinds of [`Miss`].
pub(super) fn connect(endpoint: &Endpoint) -> Result<(Socket, Peer), Miss> {
    let socket = transport::connect(endpoint).map_err(Miss::Nobody)?;
    let (uid, peer) = match endpoint {
        Endpoint::Unix(_) => {
            let credentials = peer::credentials(&socket).map_err(Miss::Nobody)?;
            (credentials.uid, Peer::Process(credentials.pid))
        }
        Endpoint::Tcp(address) => {
            let rows = sockets::on_port(address.port(), Protocol::Tcp).map_err(|error| {
                Miss::Stranger(format!("who listens on {address} cannot be seen: {error}"))
            })?;
            // All sockets that share an address belong to one user (SO_REUSEPORT, socket(7)).
            let Some(row) = most_exact(rows, address.ip()).first().copied() else {
                let reason = "whoever listens there has gone, or cannot be seen";
                return Err(Miss::Nobody(io::Error::other(reason)));
            };
            (row.uid, Peer::Socket(row))
        }
    };
    if uid == geteuid().as_raw() { Ok((socket, peer)) } else { Err(stranger(endpoint, uid, peer)) }
}

/// What listens on `endpoint` is a program of this user, but no Styxy.
pub(super) fn not_styxy(endpoint: &Endpoint, peer: Peer) -> Miss {
    stranger(endpoint, geteuid().as_raw(), peer)
}

/// Those of `rows` that the kernel would choose for a connection to `ip`: bound to it, else to
/// every address.
fn most_exact(rows: Vec<sockets::Socket>, ip: IpAddr) -> Vec<sockets::Socket> {
    let bound = |row: &sockets::Socket| row.local.ip().to_canonical();
    let (exact, others): (Vec<_>, Vec<_>) = rows.into_iter().partition(|row| bound(row) == ip);
    if !exact.is_empty() {
        return exact;
    }
    let reaches = |row: &sockets::Socket| {
        // A socket on `[::]` takes IPv4 too, unless it was told not to; the kernel prefers one
        // on 0.0.0.0 where both are.
        let any = bound(row);
        any.is_unspecified() && (any.is_ipv6() || ip.is_ipv4())
    };
    let mut any: Vec<_> = others.into_iter().filter(reaches).collect();
    any.sort_by_key(|row| row.local.is_ipv6() != ip.is_ipv6());
    any
}

/// Names whoever listens, as far as it can be seen.
fn stranger(endpoint: &Endpoint, uid: u32, peer: Peer) -> Miss {
    let own = uid == geteuid().as_raw();
    let process = match peer {
        Peer::Process(pid) => pid.and_then(process::describe),
        Peer::Socket(row) => {
            holders::usages(&Finder::default(), &[row]).pop().and_then(|usage| usage.process)
        }
    };
    let whose = match uid {
        _ if own => "another program",
        0 => "a program of root",
        _ => "a program of another user",
    };
    let who = match process {
        Some(process) => format!(" ({}, pid {})", printable(&process.name), process.pid),
        None if own => String::new(),
        None => format!(" ({})", users::describe(uid)),
    };
    let place = match endpoint {
        Endpoint::Tcp(address) => address.to_string(),
        Endpoint::Unix(_) => endpoint.to_string(),
    };
    Miss::Stranger(format!("{whose}{who} listens on {place}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(local: &str, uid: u32) -> sockets::Socket {
        let local = local.parse().expect("a socket address");
        sockets::Socket { protocol: Protocol::Tcp, local, uid, inode: 1 }
    }

    #[test]
    fn the_socket_that_answers_is_the_one_that_is_judged() {
        let ip = IpAddr::from([127, 0, 0, 1]);
        let uids = |rows: Vec<sockets::Socket>| -> Vec<u32> {
            most_exact(rows, ip).iter().map(|row| row.uid).collect()
        };
        let exact = row("127.0.0.1:80", 1);
        let (any4, any6) = (row("0.0.0.0:80", 2), row("[::]:80", 3));
        let elsewhere = [row("127.0.0.2:80", 4), row("[::1]:80", 5)];

        assert_eq!(uids(vec![any6, any4, exact, elsewhere[0]]), [1]);
        assert_eq!(uids(vec![any6, elsewhere[1], any4]), [2, 3]);
        assert_eq!(uids(vec![any6]), [3]);
        assert_eq!(uids(elsewhere.to_vec()), [0; 0]);
        assert_eq!(uids(vec![row("[::ffff:127.0.0.1]:80", 6)]), [6]);
    }
}
