//! The coordination layer: HTTP on a TCP and a unix socket, with the same routes.
//!
//! A connection's peer is known from its accept on; `guard` looks at every request before any
//! route does; `handlers` turns a request into a [`Call`] and that into an answer.

mod activity;
mod extract;
mod gathering;
mod guard;
mod handlers;
mod refusal;
mod reply;
mod routes;
mod stream;
mod wire;

use std::convert::Infallible;
use std::future::{Future, pending, poll_fn};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::{self, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};

pub use activity::Activity;
pub use guard::{Caller, Connection, Entrance};
pub use routes::ROUTES;

use gathering::{Gathering, Member};
use handlers::Client;
use refusal::Refusal;
use reply::Reply;
use wire::{Progress, Wire};

use crate::coordinator::{Call, Coordinator};

/// How long a client may take to send the head of a request, and to begin the next one.
const HEADER_PATIENCE: Duration = Duration::from_secs(10);

/// How much of a request is kept in memory at once, in bytes: above all its head, whose longest part
/// is a path of 4,096 bytes, each in three characters. Every connection may have as much.
const MAX_BUFFER: usize = 32 * 1024;

/// How long a client that has connected and sent nothing is waited for when the daemon ends.
const NEWCOMER_PATIENCE: Duration = Duration::from_secs(1);

/// What every answer says of its server.
const SERVER: &str = concat!("styxy/", env!("CARGO_PKG_VERSION"));

/// What a connection is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// To go on.
    No,
    /// To end after its current request: somebody else needs its place.
    GiveWay,
    /// To end after its current request, and after the one that a newcomer is about to send.
    End,
}

/// What a connection and whoever has let it in tell each other.
#[derive(Debug, Clone)]
pub struct Seat {
    /// What it is to do.
    pub stop: watch::Receiver<Stop>,
    /// It is an event stream, which somebody reads for hours.
    pub streams: Arc<AtomicBool>,
}

/// The routes of one coordinator.
#[derive(Debug, Clone)]
pub struct Routes {
    coordinator: Arc<Coordinator>,
    activity: Activity,
    gathering: Arc<Gathering>,
}

impl Routes {
    /// The routes, ready to serve connections.
    pub fn new(coordinator: Arc<Coordinator>) -> Self {
        Self { coordinator, activity: Activity::default(), gathering: Arc::default() }
    }

    /// Whether anybody is being served.
    pub fn activity(&self) -> &Activity {
        &self.activity
    }

    /// Serves one connection to its end, or to the end of its current request once `stop` says so.
    /// It counts as activity from this call on, until it is silent or its first request is done.
    pub fn serve<S>(
        self,
        stream: S,
        connection: Connection,
        Seat { mut stop, streams }: Seat,
    ) -> impl Future<Output = ()> + Send + 'static
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Self { coordinator, activity, gathering } = self;
        // Whoever has just connected is about to ask.
        let arrived = Arc::new(Mutex::new(Some(activity.begin())));
        let newcomer = arrived.clone();
        let client = Arc::new(Client {
            coordinator,
            peer: connection.caller.peer(),
            stop: stop.clone(),
            member: Member::of(gathering),
        });
        let progress = Progress::new();
        let (working, streaming) = (progress.clone(), streams.clone());
        let stream = Wire::new(stream, progress.clone(), streams.clone());
        let service = service_fn(move |request: Request<Incoming>| {
            let busy = lock(&newcomer).take().unwrap_or_else(|| activity.begin());
            progress.begin();
            let is_head = request.method() == Method::HEAD;
            let answer = answer(connection, client.clone(), request);
            let (progress, streams) = (progress.clone(), streams.clone());
            async move {
                let mut response = answer.await;
                progress.done();
                if let Reply::Events(stream) = response.body_mut() {
                    // It is in progress until its end.
                    stream.busy = Some(busy);
                    streams.store(!is_head, Ordering::Relaxed);
                }
                Ok::<_, Infallible>(response)
            }
        });
        async move {
            let mut serving = std::pin::pin!(
                http1::Builder::new()
                    .half_close(true)
                    .max_buf_size(MAX_BUFFER)
                    .serve_connection(TokioIo::new(stream), service)
            );
            let mut ended = tokio::select! {
                // What has arrived is answered.
                biased;
                ended = serving.as_mut() => Some(ended),
                () = told_to(&mut stop) => None,
                () = silence(&working, &streaming) => return,
            };
            let order = *stop.borrow();
            if ended.is_none() && order == Stop::GiveWay && !working.is_busy() {
                // Others need the place of one that says nothing, or not enough.
                return;
            }
            if ended.is_none() && order == Stop::End && lock(&arrived).is_some() {
                // hyper would close it without an answer.
                let first_request = poll_fn(|context| match serving.as_mut().poll(context) {
                    Poll::Ready(ended) => Poll::Ready(Some(ended)),
                    Poll::Pending if lock(&arrived).is_none() => Poll::Ready(None),
                    Poll::Pending => Poll::Pending,
                });
                ended = timeout(NEWCOMER_PATIENCE, first_request).await.unwrap_or_default();
            }
            let ended = if let Some(ended) = ended {
                ended
            } else {
                serving.as_mut().graceful_shutdown();
                serving.await
            };
            if let Err(error) = ended {
                // A client that goes away in the middle is no fault of ours.
                tracing::debug!("connection ended: {error}");
            }
        }
    }
}

/// Nothing that can panic is done under this lock.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits until `stop` says so.
async fn told_to(stop: &mut watch::Receiver<Stop>) {
    // A sender that is gone will not say it any more: the same.
    let _ = stop.wait_for(|stop| *stop != Stop::No).await;
}

/// Waits until a client has been silent for too long: it has sent no request, or not all of a head.
///
/// hyper can do that as well, with a timer for each request; this is one for each connection.
async fn silence(progress: &Progress, streams: &AtomicBool) {
    loop {
        let deadline = progress.since() + HEADER_PATIENCE;
        if streams.load(Ordering::Relaxed) {
            // Its reader has nothing more to say.
            return pending().await;
        }
        if progress.is_busy() {
            // Its time begins when it is done.
            sleep(HEADER_PATIENCE).await;
        } else if deadline <= Instant::now() {
            return;
        } else {
            sleep_until(deadline).await;
        }
    }
}

async fn answer(
    connection: Connection,
    client: Arc<Client>,
    request: Request<Incoming>,
) -> Response<Reply> {
    let (head, body) = request.into_parts();
    let answered = match guard::check(&connection, &head) {
        Ok(()) => handlers::answer(&client, head, body).await,
        Err(refusal) => Err(refusal),
    };
    let mut response = answered.unwrap_or_else(Refusal::into_response);
    response.headers_mut().insert(header::SERVER, HeaderValue::from_static(SERVER));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs with a clock that stands still while anything is done, and goes on when all wait.
    fn run(test: impl Future<Output = ()>) {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_time().start_paused(true).build().expect("a runtime").block_on(test);
    }

    /// How long `silence` takes, in seconds.
    async fn silent(progress: &Progress) -> u64 {
        let start = Instant::now();
        silence(progress, &AtomicBool::new(false)).await;
        start.elapsed().as_secs()
    }

    #[test]
    fn silence_begins_with_the_connection_and_with_each_answer() {
        run(async {
            assert_eq!(silent(&Progress::new()).await, 10);
            let progress = Progress::new();
            let client = async {
                for _ in 0..3 {
                    sleep(Duration::from_secs(9)).await;
                    progress.begin();
                    progress.done();
                }
            };
            let (ended_after, ()) = tokio::join!(silent(&progress), client);
            assert_eq!(ended_after, 27 + 10);
        });
    }

    #[test]
    fn who_waits_for_an_answer_is_not_silent() {
        run(async {
            let progress = Progress::new();
            progress.begin();
            let answer = async {
                sleep(Duration::from_secs(100)).await;
                progress.done();
            };
            let (ended_after, ()) = tokio::join!(silent(&progress), answer);
            assert_eq!(ended_after, 110);
        });
    }

    #[test]
    fn the_reader_of_a_stream_may_be_silent() {
        run(async {
            let (progress, streams) = (Progress::new(), AtomicBool::new(true));
            let day = Duration::from_hours(24);
            assert!(timeout(day, silence(&progress, &streams)).await.is_err());
        });
    }
}
