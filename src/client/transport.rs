//! Connections to a daemon, believed before a single byte is sent.

use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use socket2::{Domain, SockAddr, Socket};
use ureq::Error;
use ureq::unversioned::transport::{ConnectionDetails, Connector};

use super::discover::Endpoint;
use super::trust;
pub(super) use crate::socket_http::NoResolver;
use crate::socket_http::{self, Deadline, SocketTransport};

/// How long a connect may take: a local socket answers at once, unless its backlog is full.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Connects to `endpoint`.
///
/// # Errors
///
/// What socket(2) and connect(2) say; `WouldBlock` when the backlog stays full.
pub(super) fn connect(endpoint: &Endpoint) -> io::Result<Socket> {
    let (domain, address) = match endpoint {
        Endpoint::Tcp(address) => (Domain::for_address(*address), SockAddr::from(*address)),
        Endpoint::Unix(path) => (Domain::UNIX, SockAddr::unix(path)?),
    };
    let socket = socket_http::connect(domain, &address, CONNECT_TIMEOUT)?;
    if matches!(endpoint, Endpoint::Tcp(_)) {
        // A request is two writes: without this, the second waits for the peer's delayed ACK.
        socket.set_tcp_nodelay(true)?;
    }
    Ok(socket)
}

/// Hands ureq the socket that is there, then new ones to the same endpoint.
#[derive(Debug)]
pub(super) struct SocketConnector {
    endpoint: Endpoint,
    ready: Mutex<Option<Socket>>,
}

impl SocketConnector {
    /// `ready` is the first connection; its peer is trusted already.
    pub(super) fn new(endpoint: Endpoint, ready: Socket) -> Self {
        Self { endpoint, ready: Mutex::new(Some(ready)) }
    }
}

impl Connector for SocketConnector {
    type Out = SocketTransport;

    fn connect(
        &self,
        _details: &ConnectionDetails<'_>,
        _chained: Option<()>,
    ) -> Result<Option<Self::Out>, Error> {
        let ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner).take();
        let socket = if let Some(socket) = ready {
            socket
        } else {
            let trusted = trust::connect(&self.endpoint);
            trusted.map_err(|miss| Error::Other(Box::new(miss)))?.0
        };
        Ok(Some(SocketTransport::new(socket, Deadline::WholeSeconds)))
    }
}
