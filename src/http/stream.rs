//! `GET /events`: server-sent events (WHATWG HTML, section 9.2).

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::http::{HeaderValue, Response, header};
use hyper::body::Frame;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, mpsc, watch};
use tokio::time::{MissedTickBehavior, interval};

use crate::api::Lagged;
use crate::coordinator::Happening;
use crate::text::printable_json;

/// How often a silent stream says that it is alive.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// How many events may wait for the connection to take them; then the reader falls behind.
const PENDING: usize = 64;

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
                Ok(event) => frame(&event),
                Err(RecvError::Lagged(missed)) => {
                    frame(&Happening::new("lagged", &Lagged { missed }))
                }
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

fn frame(Happening { name, data }: &Happening) -> Bytes {
    printable_json(format!("event: {name}\ndata: {data}\n\n")).into()
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
