//! The link to one daemon: it is looked for, believed, and asked.

use std::io;
use std::time::Duration;

use ureq::http::{self, StatusCode, header};
use ureq::{Agent, Body, Error};

use super::discover::{Endpoint, Lookup};
use super::http::Request;
use super::transport::{NoResolver, SocketConnector};
use super::trust::{self, Miss, Peer};
use crate::coordinator::Call;

/// How long one call may take. No operation of the interface waits for anything.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// How long whoever listens on a TCP port may take to show that it is a Styxy. A service that
/// systemd starts for this request needs a moment.
const GREETING_TIMEOUT: Duration = Duration::from_secs(5);

/// The longest answer that is read, in bytes.
const MAX_ANSWER: u64 = 64 * 1024 * 1024;

/// A daemon of this user, and the connection to it.
#[derive(Debug)]
pub(super) struct Link {
    endpoint: Endpoint,
    peer: Peer,
    /// What a request's URI begins with. The `Host` header comes from it.
    base: String,
    agent: Agent,
}

/// The answer of a daemon, whatever its status.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) body: String,
}

/// Why a request has no answer.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The daemon has gone, or goes: it may be asked again.
    Gone(String),
    /// It is not a Styxy that listens there.
    Stranger(String),
    /// Anything else, one sentence.
    Failed(String),
}

/// Nobody answers at any of the places.
#[derive(Debug)]
pub(super) struct Absence {
    /// What was found at each place.
    pub(super) tried: String,
    /// Who listens there instead.
    pub(super) stranger: Option<String>,
}

impl Link {
    /// The first daemon of this user at the places of `lookup`.
    pub(super) fn find(lookup: &Lookup) -> Result<Self, Absence> {
        let mut tried = Vec::new();
        let mut stranger = None;
        for place in lookup.places() {
            match Self::open(place) {
                Ok(link) => return Ok(link),
                Err(Miss::Nobody(error)) => tried.push(format!("{place}: {}", clause(&error))),
                Err(Miss::Stranger(who)) => {
                    tried.push(who.clone());
                    stranger = stranger.or(Some(who));
                }
            }
        }
        Err(Absence { tried: format!("no daemon answers ({})", tried.join("; ")), stranger })
    }

    /// Connects, if a Styxy of this user is there.
    pub(super) fn open(endpoint: &Endpoint) -> Result<Self, Miss> {
        let (socket, peer) = trust::connect(endpoint)?;
        let base = match endpoint {
            // A name that every daemon knows itself by, whichever loopback address this is.
            Endpoint::Tcp(address) => format!("http://localhost:{}", address.port()),
            Endpoint::Unix(_) => "http://localhost".to_owned(),
        };
        let connector = SocketConnector::new(endpoint.clone(), socket);
        let agent = Agent::with_parts(agent_config(), connector, NoResolver);
        let link = Self { endpoint: endpoint.clone(), peer, base, agent };
        // Any program of this user may have the TCP port. So nothing is asked of it before it has
        // shown what it is; the unix socket is in a directory that is Styxy's own.
        if let Endpoint::Tcp(_) = endpoint {
            link.greet()?;
        }
        Ok(link)
    }

    /// Sees by a harmless request that a Styxy is there.
    fn greet(&self) -> Result<(), Miss> {
        match self.send(&Request::from(&Call::Status), GREETING_TIMEOUT) {
            Ok(_) => Ok(()),
            Err(Trouble::Stranger(who)) => Err(Miss::Stranger(who)),
            // A daemon that goes away closes. Starting another one is right then.
            Err(Trouble::Gone(reason)) => Err(Miss::Nobody(io::Error::other(reason))),
            // Whoever lets us in and then says nothing holds the port all the same.
            Err(Trouble::Failed(_)) => Err(trust::not_styxy(&self.endpoint, self.peer)),
        }
    }

    /// Where it is.
    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Has one request answered.
    pub(super) fn ask(&self, request: &Request) -> Result<Reply, Trouble> {
        self.send(request, CALL_TIMEOUT)
    }

    fn send(&self, request: &Request, timeout: Duration) -> Result<Reply, Trouble> {
        let mut response = self.run(request, Some(timeout)).map_err(|error| self.trouble(error))?;
        let reader = response.body_mut().with_config().limit(MAX_ANSWER);
        let body = reader.read_to_string().map_err(|error| self.trouble(error))?;
        Ok(Reply { status: response.status(), body })
    }

    /// Sends a request and reads the head of its answer, from a Styxy only.
    pub(super) fn run(
        &self,
        request: &Request,
        timeout: Option<Duration>,
    ) -> Result<http::Response<Body>, Error> {
        let uri = format!("{}{}", self.base, request.target);
        let builder = http::Request::builder().method(request.method.clone()).uri(uri);
        let response = match &request.body {
            Some(body) => {
                let builder = builder.header(header::CONTENT_TYPE, "application/json");
                self.run_within(timeout, builder.body(body.as_slice())?)
            }
            None => self.run_within(timeout, builder.body(())?),
        }?;
        let server = response.headers().get(header::SERVER);
        if server.is_some_and(|name| name.as_bytes().starts_with(b"styxy/")) {
            Ok(response)
        } else {
            Err(Error::Other(Box::new(trust::not_styxy(&self.endpoint, self.peer))))
        }
    }

    fn run_within(
        &self,
        timeout: Option<Duration>,
        request: http::Request<impl ureq::AsSendBody>,
    ) -> Result<http::Response<Body>, Error> {
        if timeout == Some(CALL_TIMEOUT) {
            return self.agent.run(request);
        }
        let request = self.agent.configure_request(request).timeout_global(timeout).build();
        self.agent.run(request)
    }

    /// What an error of the transport means.
    pub(super) fn trouble(&self, error: Error) -> Trouble {
        let place = &self.endpoint;
        match error {
            Error::Io(error) if has_gone(&error) => {
                Trouble::Gone(format!("the daemon at {place} has gone: {}", clause(&error)))
            }
            Error::Timeout(_) => Trouble::Failed(format!("{place} does not answer in time")),
            Error::BodyExceedsLimit(limit) => {
                Trouble::Failed(format!("{place} answers with more than {limit} bytes"))
            }
            Error::Protocol(_) | Error::LargeResponseHeader(..) => self.stranger(),
            Error::Other(other) => match other.downcast::<Miss>() {
                Ok(miss) => match *miss {
                    Miss::Stranger(who) => Trouble::Stranger(who),
                    Miss::Nobody(error) => {
                        Trouble::Gone(format!("the daemon at {place} has gone: {}", clause(&error)))
                    }
                },
                Err(other) => Trouble::Failed(format!("{place}: {other}")),
            },
            other => Trouble::Failed(format!("{place}: {other}")),
        }
    }

    /// What came was not HTTP, or not as Styxy speaks it.
    fn stranger(&self) -> Trouble {
        Trouble::Stranger(trust::not_styxy(&self.endpoint, self.peer).to_string())
    }
}

fn agent_config() -> ureq::config::Config {
    Agent::config_builder()
        // A refusal is an answer, and has a body to read.
        .http_status_as_error(false)
        .max_redirects(0)
        // Whatever HTTP_PROXY says: a daemon is on this machine.
        .proxy(None)
        .timeout_global(Some(CALL_TIMEOUT))
        .user_agent(concat!("styxy/", env!("CARGO_PKG_VERSION")))
        .accept("application/json")
        .build()
}

/// Whether the peer ended the connection, or is not there to begin one.
fn has_gone(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::UnexpectedEof
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
    )
}

/// An error within a sentence: what happened, without the number of it.
pub(super) fn clause(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "no such socket".to_owned(),
        io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => "no answer in time".to_owned(),
        io::ErrorKind::UnexpectedEof => "closed without an answer".to_owned(),
        io::ErrorKind::ConnectionReset => "connection reset".to_owned(),
        _ => error.to_string(),
    }
}
