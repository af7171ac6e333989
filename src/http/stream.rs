//! `GET /events`: server-sent events (WHATWG HTML, section 9.2).

use std::convert::Infallible;
use std::fmt::Write as _;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::http::{HeaderValue, Response, header};
use hyper::body::Frame;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::sync::{broadcast, mpsc, watch};
use tokio::time::{MissedTickBehavior, interval};

use crate::api::Lagged;
use crate::coordinator::Happening;
use crate::text::printable_json;

/// How often a silent stream says that it is alive.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// How many pieces may wait for the connection to take them; then the reader falls behind.
const PENDING: usize = 2;

/// A piece gets no further event when it has so many bytes.
const PIECE: usize = 16 * 1024;

/// Told when the daemon ends: an event stream has no end of its own.
#[derive(Debug, Clone)]
pub(super) struct Ending(pub(super) watch::Receiver<super::Stop>);

/// The answer that goes on until the client, or the daemon, ends it.
pub(super) fn answer(
    events: broadcast::Receiver<Happening>,
    Ending(stop): Ending,
) -> Response<Body> {
    let (sender, receiver) = mpsc::channel(PENDING);
    tokio::spawn(feed(events, sender, stop));
    let mut response = Response::new(Body::new(Stream(receiver)));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Writes events until nobody reads them or the daemon ends.
async fn feed(
    mut events: broadcast::Receiver<Happening>,
    client: mpsc::Sender<Bytes>,
    mut stop: watch::Receiver<super::Stop>,
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

/// A body that comes as it happens.
struct Stream(mpsc::Receiver<Bytes>);

impl HttpBody for Stream {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(context).map(|text| text.map(|text| Ok(Frame::data(text))))
    }
}
