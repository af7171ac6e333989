//! What happens, as the commands that wait and watch see it: the daemon's events, or a look at the
//! journal now and then where there is no daemon.

use std::thread;
use std::time::{Duration, Instant};

use super::context::Context;
use super::failure::Failed;
use crate::client::events::{Events, Said, Silence};
use crate::client::{Autostart, Client};
use crate::coordinator::{Answer, Call};

/// How often the journal is looked at. Each look has its lock for a moment, so it is not often.
const POLL: Duration = Duration::from_millis(250);

/// How long whoever only looks on waits for another daemon when theirs has gone: a restart is done
/// by then.
const RESTART: Duration = Duration::from_secs(5);

/// The event that says that events were missed.
const LAGGED: &str = "lagged";

/// What is new.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum News {
    /// An event: its name, and its data as JSON.
    Event(String, String),
    /// The daemon lives, and nothing has happened.
    Alive,
    /// Something may have happened that was not told: only a look at everything says what.
    Anything,
    /// Nothing, in that time.
    Nothing,
}

/// A way to hear what happens.
#[derive(Debug)]
pub(super) struct Feed<'c> {
    context: &'c Context,
    /// Without a daemon there is no stream, and no client either: it would keep the journal's lock.
    stream: Option<(Client, Events)>,
    /// Whether a daemon that has gone is started again.
    restarts: bool,
}

impl<'c> Feed<'c> {
    /// Begins to listen: whatever happens after this is news.
    ///
    /// # Errors
    ///
    /// When neither a daemon nor the journal can be had.
    pub(super) fn open(context: &'c Context) -> Result<Self, Failed> {
        let mut client = context.connect()?;
        let stream = client.events()?.map(|events| (client, events));
        Ok(Self { context, stream, restarts: true })
    }

    /// The same for whoever only looks on: no daemon is started again for them that somebody has
    /// stopped.
    ///
    /// # Errors
    ///
    /// As [`Feed::open`].
    pub(super) fn look_on(context: &'c Context) -> Result<Self, Failed> {
        Ok(Self { restarts: false, ..Self::open(context)? })
    }

    /// Whether a daemon tells what happens.
    pub(super) fn is_live(&self) -> bool {
        self.stream.is_some()
    }

    /// Has one call answered.
    ///
    /// # Errors
    ///
    /// Both kinds of [`crate::client::Failure`].
    pub(super) fn call(&mut self, call: &Call) -> Result<Answer, Failed> {
        Ok(match &mut self.stream {
            Some((client, _)) => client.call(call)?,
            None => self.context.ask(call)?,
        })
    }

    /// What is new, within `limit`; without one it waits as long as it takes.
    ///
    /// # Errors
    ///
    /// When the daemon has gone, and no other can be had nor the journal.
    pub(super) fn next(&mut self, limit: Option<Duration>) -> Result<News, Failed> {
        let Some((client, events)) = &mut self.stream else {
            // However short it was, something may have happened.
            thread::sleep(limit.map_or(POLL, |limit| limit.min(POLL)));
            return Ok(News::Anything);
        };
        Ok(match events.next(limit) {
            Ok(Said::Event(name, _)) if name == LAGGED => News::Anything,
            Ok(Said::Event(name, data)) => News::Event(name, data),
            Ok(Said::Alive) => News::Alive,
            Err(Silence::Timeout) => News::Nothing,
            Err(Silence::Ended) if self.restarts => {
                match client.events()? {
                    Some(anew) => *events = anew,
                    None => self.stream = None,
                }
                News::Anything
            }
            Err(Silence::Ended) => {
                self.stream = Some(self.find_again()?);
                News::Anything
            }
        })
    }

    /// Waits for the daemon that comes after the one that has gone.
    fn find_again(&self) -> Result<(Client, Events), Failed> {
        let end = Instant::now() + RESTART;
        loop {
            let found = self.context.connect_with(Autostart::Never);
            let found = found.and_then(|mut client| Ok(client.events()?.map(|it| (client, it))));
            match found {
                Ok(Some(stream)) => return Ok(stream),
                Err(failure) if Instant::now() >= end => return Err(failure.into()),
                Ok(None) | Err(_) => thread::sleep(POLL),
            }
        }
    }
}
