//! `GET /events`: server-sent events (WHATWG HTML, section 9.2).

use std::fmt::Write as _;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::Response;
use hyper::body::Bytes;
use hyper::header::{self, HeaderValue};
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::sync::{broadcast, mpsc, watch};
use tokio::time::{MissedTickBehavior, interval};

use super::Stop;
use super::activity::InProgress;
use super::reply::Reply;
use crate::api::Lagged;
use crate::coordinator::Happening;
use crate::text::printable_json;

/// How often a silent stream says that it is alive.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// How many pieces may wait for the connection to take them; then the reader falls behind.
const PENDING: usize = 2;

/// A piece gets no further event when it has so many bytes.
const PIECE: usize = 16 * 1024;

/// The answer that goes on until the client ends it, or the daemon, as `stop` says.
pub(super) fn answer(
    events: broadcast::Receiver<Happening>,
    stop: watch::Receiver<Stop>,
) -> Response<Reply> {
    let (sender, pieces) = mpsc::channel(PENDING);
    tokio::spawn(feed(events, sender, stop));
    let mut response = Response::new(Reply::Events(Stream { pieces, busy: None }));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Writes events until nobody reads them or the daemon ends.
async fn feed(
    mut events: broadcast::Receiver<Happening>,
    client: mpsc::Sender<Bytes>,
    mut stop: watch::Receiver<Stop>,
) {
    let mut alive = interval(KEEP_ALIVE);
    alive.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let text = tokio::select! {
            event = events.recv() => match event {
                Ok(event) => frames(event, &mut events),
                Err(RecvError::Lagged(missed)) => frames(lagged(missed), &mut events),
                Err(RecvError::Closed) => return,
            },
            // The first tick comes at once: it tells the client that it is connected.
            _ = alive.tick() => Bytes::from_static(b": styxy\n\n"),
            () = client.closed() => return,
            () = super::told_to(&mut stop) => return,
        };
        // A client that takes nothing must not keep a daemon from ending.
        let sent = tokio::select! {
            sent = client.send(text) => sent,
            () = super::told_to(&mut stop) => return,
        };
        if sent.is_err() {
            return;
        }
    }
}

/// An event and those that wait behind it, as one piece: 100 processes may die at once.
fn frames(first: Happening, events: &mut broadcast::Receiver<Happening>) -> Bytes {
    let mut text = String::new();
    let mut next = Some(first);
    while let Some(Happening { name, data }) = next {
        // Writing to a String does not fail.
        let _ = write!(text, "event: {name}\ndata: {data}\n\n");
        next = match (text.len() < PIECE).then(|| events.try_recv()) {
            Some(Ok(event)) => Some(event),
            Some(Err(TryRecvError::Lagged(missed))) => Some(lagged(missed)),
            Some(Err(TryRecvError::Empty | TryRecvError::Closed)) | None => None,
        };
    }
    printable_json(text).into()
}

/// What a reader is told that was too slow.
fn lagged(missed: u64) -> Happening {
    Happening::new("lagged", &Lagged { missed })
}

/// What comes as it happens.
#[derive(Debug)]
pub(super) struct Stream {
    pieces: mpsc::Receiver<Bytes>,
    /// Somebody is being served while it is there.
    pub(super) busy: Option<InProgress>,
}

impl Stream {
    pub(super) fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        self.pieces.poll_recv(context)
    }
}
