//! HTTP over one trusted socket, TCP or unix, for ureq.
//!
//! ureq resolves names, reads proxies from the environment and knows TCP alone. Here it is handed
//! sockets that were connected and believed already.

use std::io;
use std::mem::MaybeUninit;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use socket2::{Domain, SockAddr, Socket, Type};
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout, Transport,
};
use ureq::{Error, config::Config, http::Uri};

use super::discover::Endpoint;
use super::trust;

/// How long a connect may take: a local socket answers at once, unless its backlog is full.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// The size of each buffer, in bytes. Most requests and answers fit.
const BUFFER: usize = 16 * 1024;

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
    let socket = Socket::new(domain, Type::STREAM, None)?;
    // It limits connect(2) too (socket(7)). It stays for writes: what is sent fits into the
    // socket's buffer.
    socket.set_write_timeout(Some(CONNECT_TIMEOUT))?;
    // With a timeout, a stop and continue of this process interrupts connect(2) (signal(7)).
    // Another connect(2) then goes on waiting.
    while let Err(error) = socket.connect(&address) {
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
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
        let buffers = LazyBuffers::new(BUFFER, BUFFER);
        Ok(Some(SocketTransport { socket, buffers, read_timeout: None }))
    }
}

/// The one address that ureq wants to see; the connector knows better.
#[derive(Debug)]
pub(super) struct NoResolver;

impl Resolver for NoResolver {
    fn resolve(
        &self,
        _uri: &Uri,
        _config: &Config,
        _timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, Error> {
        let mut addresses = self.empty();
        addresses.push(([127, 0, 0, 1], 0).into());
        Ok(addresses)
    }
}

/// One connection.
#[derive(Debug)]
pub(super) struct SocketTransport {
    socket: Socket,
    buffers: LazyBuffers,
    /// What SO_RCVTIMEO is now.
    read_timeout: Option<Duration>,
}

impl SocketTransport {
    /// Sets SO_RCVTIMEO, unless it is that already. Rounded up to whole seconds, so that the
    /// reads of one call share one system call; ureq looks at the exact deadline in between.
    fn limit_reads(&mut self, timeout: NextTimeout) -> Result<(), Error> {
        let wanted = timeout.not_zero().map(|left| Duration::from_secs(left.as_secs() + 1));
        if wanted != self.read_timeout {
            self.socket.set_read_timeout(wanted)?;
            self.read_timeout = wanted;
        }
        Ok(())
    }
}

impl Transport for SocketTransport {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        let mut rest = &self.buffers.output()[..amount];
        while !rest.is_empty() {
            // A daemon that went away is an error here, not a signal.
            match self.socket.send_with_flags(rest, libc::MSG_NOSIGNAL) {
                Ok(sent) => rest = &rest[sent..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Err(Error::Timeout(timeout.reason));
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        self.limit_reads(timeout)?;
        let input = self.buffers.input_append_buf();
        loop {
            match io::Read::read(&mut &self.socket, input) {
                Ok(amount) => {
                    self.buffers.input_appended(amount);
                    return Ok(amount > 0);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Err(Error::Timeout(timeout.reason));
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Open, and silent as it has to be between two requests.
    fn is_open(&mut self) -> bool {
        let mut byte = [MaybeUninit::uninit()];
        let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT;
        let peeked = self.socket.recv_with_flags(&mut byte, flags);
        peeked.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }
}
