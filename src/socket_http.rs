//! HTTP over one local socket, TCP or unix, for ureq: what the client's connections and the
//! questions to container engines have in common.
//!
//! ureq resolves names, reads proxies from the environment and knows TCP alone. Here it is handed
//! sockets that are connected already.

use std::io;
use std::mem::MaybeUninit;
use std::time::Duration;

use socket2::{Domain, SockAddr, Socket, Type};
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{Buffers, LazyBuffers, NextTimeout, Transport};
use ureq::{Error, config::Config, http::Uri};

/// The size of each buffer, in bytes. Most requests and answers fit.
const BUFFER: usize = 16 * 1024;

/// Connects a stream socket, within `timeout`; so long may each write take too.
///
/// # Errors
///
/// What socket(2) and connect(2) say; `WouldBlock` when the backlog stays full.
pub(crate) fn connect(domain: Domain, address: &SockAddr, timeout: Duration) -> io::Result<Socket> {
    let socket = Socket::new(domain, Type::STREAM, None)?;
    // It limits connect(2) too (socket(7)). It stays for writes: what is sent fits into the
    // socket's buffer.
    socket.set_write_timeout(Some(timeout))?;
    // With a timeout, a stop and continue of this process interrupts connect(2) (signal(7)).
    // Another connect(2) then goes on waiting.
    while let Err(error) = socket.connect(address) {
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    Ok(socket)
}

/// The one address that ureq wants to see; the connector knows better.
#[derive(Debug)]
pub(crate) struct NoResolver;

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

/// How exactly a read keeps its deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Deadline {
    /// Up to a second late, so that the reads of one call share one system call; ureq looks at the
    /// exact deadline in between.
    WholeSeconds,
    /// To the millisecond, whatever the peer does.
    Exact,
}

/// One connection.
#[derive(Debug)]
pub(crate) struct SocketTransport {
    socket: Socket,
    buffers: LazyBuffers,
    deadline: Deadline,
    /// What SO_RCVTIMEO is now.
    read_timeout: Option<Duration>,
}

impl SocketTransport {
    /// Takes a connected socket.
    pub(crate) fn new(socket: Socket, deadline: Deadline) -> Self {
        let buffers = LazyBuffers::new(BUFFER, BUFFER);
        Self { socket, buffers, deadline, read_timeout: None }
    }

    /// Sets SO_RCVTIMEO, unless it is that already.
    fn limit_reads(&mut self, timeout: NextTimeout) -> Result<(), Error> {
        let exact = self.deadline == Deadline::Exact;
        if exact && timeout.after.is_zero() {
            return Err(Error::Timeout(timeout.reason));
        }
        let wanted = timeout.not_zero().map(|left| match self.deadline {
            Deadline::WholeSeconds => Duration::from_secs(left.as_secs() + 1),
            // Zero would mean for ever.
            Deadline::Exact => (*left).max(Duration::from_millis(1)),
        });
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
