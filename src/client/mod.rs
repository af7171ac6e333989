//! Talking to the daemon: transport, autostart, retry, fallback.
//!
//! A command looks for a daemon, starts one, or works on the journal itself, in this order; the
//! programs that must go on in any case then use [`fallback`].

mod autostart;
mod background;
mod discover;
pub mod events;
pub mod fallback;
mod http;
pub mod install;
mod journal;
pub mod lifecycle;
mod link;
mod pidfd;
mod readiness;
pub mod survey;
#[cfg(test)]
mod tests;
mod transport;
mod trust;
mod unit_file;
pub mod units;

use std::borrow::Cow;

use uuid::Uuid;

use crate::api::ErrorResponse;
use crate::config::Config;
use crate::coordinator::{Answer, Call};
use crate::paths::Paths;
use discover::Lookup;
use events::Events;
use http::Request;
use journal::Journal;
use link::{Absence, Link, Reply, Trouble};

/// Whether a daemon may be started when nobody answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Autostart {
    /// Start one, else work on the journal itself.
    Allowed,
    /// Work on the journal itself (`STYXY_AUTOSTART=0`).
    JournalOnly,
    /// Ask a running daemon or nobody: for `daemon status` and the like.
    Never,
}

/// Why there is no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Failure {
    /// Styxy answered, and refused.
    #[error("{}", .0.error)]
    Refused(Box<ErrorResponse>),
    /// No daemon can be reached or started, and the journal cannot be worked on.
    #[error("{reason}")]
    Unreachable {
        /// What was tried and how it failed, one sentence.
        reason: String,
        /// Who is there instead, if anybody: `another program (karma, pid 812) listens on 127.0.0.1:9876`.
        holder: Option<String>,
    },
}

impl Failure {
    /// Whether it is Styxy's own trouble, so that `run` and `env` go on without it (see
    /// [`fallback`]): it cannot be reached, does not know the ports of this network namespace, or
    /// cannot write its state.
    pub fn is_own_trouble(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Refused(response) => matches!(
                response.code.as_str(),
                "foreign_namespace" | "state_not_writable" | "shutting_down"
            ),
        }
    }
}

/// A way to have calls answered: a daemon, or the journal itself.
///
/// As long as it works on the journal it has the lock, so it does not outlive the command's work.
#[derive(Debug)]
pub struct Client {
    paths: Paths,
    config: Config,
    autostart: Autostart,
    lookup: Lookup,
    way: Way,
    endpoint: String,
}

/// Who answers.
#[derive(Debug)]
enum Way {
    Daemon(Link),
    Journal(Box<Journal>),
}

impl Client {
    /// Finds a daemon by the steps of the design, or does without.
    ///
    /// # Errors
    ///
    /// [`Failure::Unreachable`]; [`Failure::Refused`] with the code `state_not_writable` when no
    /// daemon can be had and the state cannot be opened.
    pub fn connect(paths: &Paths, config: &Config, autostart: Autostart) -> Result<Self, Failure> {
        let lookup = Lookup::from_env(paths, config)
            .map_err(|reason| Failure::Unreachable { reason, holder: None })?;
        Self::with_lookup(lookup, paths, config, autostart)
    }

    fn with_lookup(
        lookup: Lookup,
        paths: &Paths,
        config: &Config,
        autostart: Autostart,
    ) -> Result<Self, Failure> {
        let way = find(&lookup, paths, config, autostart)?;
        let endpoint = way.endpoint();
        let (paths, config) = (paths.clone(), config.clone());
        Ok(Self { paths, config, autostart, lookup, way, endpoint })
    }

    /// Has one call answered. A connection that closed without an answer is tried once more, over
    /// a new one.
    ///
    /// # Errors
    ///
    /// Both kinds of [`Failure`].
    pub fn call(&mut self, call: &Call) -> Result<Answer, Failure> {
        let call = repeatable(call);
        if let Way::Daemon(link) = &self.way {
            let request = Request::from(&*call);
            match link.ask(&request) {
                Ok(reply) if !is_leaving(&reply) => return answer(link, reply),
                Ok(_) | Err(Trouble::Gone(_)) => {}
                Err(trouble) => return Err(trouble.into()),
            }
            // The daemon goes: the next one has the same journal, and knows by the ids in the
            // request what was done already.
            self.way = find(&self.lookup, &self.paths, &self.config, self.autostart)?;
            self.endpoint = self.way.endpoint();
            if let Way::Daemon(link) = &self.way {
                return answer(link, link.ask(&request)?);
            }
        }
        match &self.way {
            Way::Journal(journal) => journal.call(&call),
            Way::Daemon(_) => unreachable!("a daemon was asked above"),
        }
    }

    /// The daemon's events from now on; `None` when there is no daemon, but the journal alone.
    ///
    /// # Errors
    ///
    /// Both kinds of [`Failure`].
    pub fn events(&mut self) -> Result<Option<Events>, Failure> {
        // A call sees whether that daemon is still there, and finds another one if not.
        self.call(&Call::Status)?;
        let Way::Daemon(link) = &self.way else { return Ok(None) };
        let response = link.run(&Request::events(), None).map_err(|error| link.trouble(error))?;
        let status = response.status();
        let mut body = response.into_body();
        if status == 200 {
            return Ok(Some(Events::read(body)));
        }
        let body = body.read_to_string().map_err(|error| link.trouble(error))?;
        answer(link, Reply { status, body })?;
        let reason = format!("{} has no events", link.endpoint());
        Err(Failure::Unreachable { reason, holder: None })
    }

    /// Where the answers come from: `unix:/…`, `http://127.0.0.1:9876`, `the journal`.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }
}

impl Way {
    fn endpoint(&self) -> String {
        match self {
            Self::Daemon(link) => link.endpoint().to_string(),
            Self::Journal(_) => "the journal".to_owned(),
        }
    }
}

impl From<Trouble> for Failure {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Gone(reason) | Trouble::Failed(reason) => {
                Self::Unreachable { reason, holder: None }
            }
            Trouble::Stranger(who) => stranger(who),
        }
    }
}

fn stranger(who: String) -> Failure {
    Failure::Unreachable { reason: format!("no daemon answers ({who})"), holder: Some(who) }
}

/// The steps of the design, without the last one.
fn find(
    lookup: &Lookup,
    paths: &Paths,
    config: &Config,
    autostart: Autostart,
) -> Result<Way, Failure> {
    let Absence { tried, stranger } = match Link::find(lookup) {
        Ok(link) => return Ok(Way::Daemon(link)),
        Err(absence) => absence,
    };
    // Somebody else has the very place that the environment names: no daemon can be started there.
    let is_in_the_way = stranger.is_some() && matches!(lookup, Lookup::Named(_));
    if is_in_the_way || autostart == Autostart::Never {
        return Err(Failure::Unreachable { reason: tried, holder: stranger });
    }
    let mut failed = None;
    if autostart == Autostart::Allowed {
        match autostart::start(lookup, paths) {
            Ok(started) => return Ok(Way::Daemon(started.link)),
            Err(reason) => failed = Some(reason),
        }
    }
    let error = match Journal::open(paths, config) {
        Ok(journal) => return Ok(Way::Journal(Box::new(journal))),
        Err(error) => error,
    };
    // Whoever has the lock may have been a daemon on its way.
    if let Ok(link) = Link::find(lookup) {
        return Ok(Way::Daemon(link));
    }
    Err(match journal::failure(error, &tried, failed.as_deref()) {
        Failure::Unreachable { reason, .. } => Failure::Unreachable { reason, holder: stranger },
        refused @ Failure::Refused(_) => refused,
    })
}

/// The call with ids of its own where it makes something, so that a second try makes nothing more.
fn repeatable(call: &Call) -> Cow<'_, Call> {
    let new_id = || Some(Uuid::new_v4().to_string());
    let mut call = Cow::Borrowed(call);
    match &*call {
        Call::Allocate(request) if request.lock_id.is_none() => {}
        Call::AllocateBatch(batch) if batch.requests.iter().any(|one| one.lock_id.is_none()) => {}
        Call::Register(request) if request.instance_id.is_none() => {}
        _ => return call,
    }
    match call.to_mut() {
        Call::Allocate(request) => request.lock_id = new_id(),
        Call::AllocateBatch(batch) => {
            for request in batch.requests.iter_mut().filter(|one| one.lock_id.is_none()) {
                request.lock_id = new_id();
            }
        }
        Call::Register(request) => request.instance_id = new_id(),
        _ => {}
    }
    call
}

/// Whether the daemon answered just that it is shutting down.
fn is_leaving(reply: &Reply) -> bool {
    reply.status == 503
        && serde_json::from_str::<ErrorResponse>(&reply.body)
            .is_ok_and(|error| error.code == "shutting_down")
}

/// What a daemon's reply says.
fn answer(link: &Link, reply: Reply) -> Result<Answer, Failure> {
    let Reply { status, body } = reply;
    if status.is_success() {
        return Ok(Answer { body, created: status == 201 });
    }
    match serde_json::from_str(&body) {
        Ok(error) => Err(Failure::Refused(Box::new(error))),
        Err(error) => {
            let place = link.endpoint();
            let reason = format!("{place} answers {status} in a way that is not Styxy's: {error}");
            Err(Failure::Unreachable { reason, holder: None })
        }
    }
}
