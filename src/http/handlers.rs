//! A request becomes a call, a call an answer. Thin on purpose: what is decided is decided below.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use axum::body::Body;
use axum::extract::{Extension, State};
use axum::http::{Method, Response, StatusCode, Uri};
use axum::response::IntoResponse;
use serde::Deserialize;

use super::Call;
use super::extract::{Json, OptionalJson, Parameter, Queried, port, queried_port};
use super::refusal::{Refusal, json_response};
use super::{Client, stream};
use crate::api;
use crate::coordinator::{Answer, Coordinator, Decided};
use crate::error::Error;

type App = State<Arc<Coordinator>>;
type From = Extension<Arc<Client>>;
type Outcome = Result<Response<Body>, Refusal>;

/// How many suggestions are given when nobody says.
const DEFAULT_SUGGESTIONS: usize = 5;

/// The description of all this. A test holds it against the routes and the wire types.
const OPENAPI: &str = include_str!("openapi.json");

/// A call's way to its answer.
enum Work {
    /// Decided at once: that takes microseconds.
    Decided(Result<Decided<Answer>, Error>),
    /// Done elsewhere: it may look through /proc.
    Aside(Aside<Result<Answer, Error>>),
}

/// Carries out a call. What has to wait is small: the call itself is not kept.
fn carry_out(
    State(coordinator): App,
    Extension(client): From,
    call: Call,
) -> impl Future<Output = Outcome> + use<> {
    let peer = client.peer;
    let work = if call.is_slow() {
        let coordinator = coordinator.clone();
        Work::Aside(aside(move || coordinator.call(&call, peer)))
    } else {
        Work::Decided(coordinator.begin(&call, peer))
    };
    async move {
        let done = match work {
            Work::Decided(Ok(decided)) => {
                if decided.is_waiting() {
                    after_the_others().await;
                }
                coordinator.written(decided)
            }
            Work::Decided(Err(error)) => Err(error),
            Work::Aside(work) => work.await,
        };
        match done {
            Ok(Answer { body, created: true }) => Ok(json_response(StatusCode::CREATED, body)),
            Ok(Answer { body, created: false }) => Ok(json_response(StatusCode::OK, body)),
            Err(error @ Error::PortUnavailable { allocated_to: None, .. }) => {
                Err(aside(move || coordinator.name_holder(error)).await.into())
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// Lets everybody else go first whose request has arrived: then one append serves all.
async fn after_the_others() {
    let mut has_waited = false;
    poll_fn(|context| {
        if std::mem::replace(&mut has_waited, true) {
            return Poll::Ready(());
        }
        // To the end of the queue, without a look at what arrives meanwhile.
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Work on another thread.
type Aside<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Runs slow work on another thread.
fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Aside<T> {
    Box::pin(async {
        match tokio::task::spawn_blocking(work).await {
            Ok(done) => done,
            // The work panicked: so does this request, and only it.
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    })
}

pub(super) fn allocate(
    app: App,
    from: From,
    Json(request): Json<api::AllocateRequest>,
) -> impl Future<Output = Outcome> {
    carry_out(app, from, Call::Allocate(request))
}

pub(super) async fn allocate_batch(
    app: App,
    from: From,
    Json(batch): Json<api::BatchRequest>,
) -> Outcome {
    carry_out(app, from, Call::AllocateBatch(batch)).await
}

pub(super) async fn renew(
    app: App,
    from: From,
    Parameter(lock_id): Parameter,
    OptionalJson(request): OptionalJson<api::RenewRequest>,
) -> Outcome {
    carry_out(app, from, Call::Renew(lock_id, request)).await
}

pub(super) fn release(
    app: App,
    from: From,
    Parameter(lock_id): Parameter,
) -> impl Future<Output = Outcome> {
    carry_out(app, from, Call::Release(lock_id))
}

#[derive(Deserialize)]
pub(super) struct CheckQuery {
    protocol: Option<String>,
}

pub(super) async fn check(
    app: App,
    from: From,
    Parameter(number): Parameter,
    Queried(query): Queried<CheckQuery>,
) -> Outcome {
    let protocol = match query.protocol.as_deref() {
        None | Some("tcp") => api::Protocol::Tcp,
        Some("udp") => api::Protocol::Udp,
        Some("both") => api::Protocol::Both,
        Some(_) => return Err(Error::invalid("protocol", "must be tcp, udp or both").into()),
    };
    carry_out(app, from, Call::Check(port(&number)?, protocol)).await
}

#[derive(Deserialize)]
pub(super) struct SuggestQuery {
    count: Option<String>,
    preferred_port: Option<String>,
}

pub(super) async fn suggest(
    app: App,
    from: From,
    Parameter(service_type): Parameter,
    Queried(query): Queried<SuggestQuery>,
) -> Outcome {
    let count = query.count.map_or(Ok(DEFAULT_SUGGESTIONS), |count| count.parse());
    let count = count.map_err(|_| Error::invalid("count", "must be a number"))?;
    let wish =
        query.preferred_port.map(|port| queried_port("preferred_port", &port)).transpose()?;
    carry_out(app, from, Call::Suggest(service_type, wish, count)).await
}

pub(super) async fn register(
    app: App,
    from: From,
    Json(request): Json<api::RegisterRequest>,
) -> Outcome {
    carry_out(app, from, Call::Register(request)).await
}

pub(super) async fn heartbeat(
    app: App,
    from: From,
    Json(request): Json<api::HeartbeatRequest>,
) -> Outcome {
    carry_out(app, from, Call::Heartbeat(request)).await
}

pub(super) async fn heartbeat_of(
    app: App,
    from: From,
    Parameter(instance_id): Parameter,
) -> Outcome {
    carry_out(app, from, Call::Heartbeat(api::HeartbeatRequest { instance_id })).await
}

pub(super) async fn instances(app: App, from: From) -> Outcome {
    carry_out(app, from, Call::Instances).await
}

pub(super) async fn remove_instance(app: App, from: From, Parameter(id): Parameter) -> Outcome {
    carry_out(app, from, Call::RemoveInstance(id)).await
}

pub(super) async fn status(app: App, from: From) -> Outcome {
    carry_out(app, from, Call::Status).await
}

pub(super) async fn cleanup(
    app: App,
    from: From,
    OptionalJson(request): OptionalJson<api::CleanupRequest>,
) -> Outcome {
    carry_out(app, from, Call::Cleanup(request)).await
}

#[derive(Deserialize)]
pub(super) struct AssignmentsQuery {
    project_path: Option<String>,
}

pub(super) async fn assignments(
    app: App,
    from: From,
    Queried(query): Queried<AssignmentsQuery>,
) -> Outcome {
    carry_out(app, from, Call::Assignments(query.project_path)).await
}

pub(super) async fn assign(
    app: App,
    from: From,
    Json(request): Json<api::AssignRequest>,
) -> Outcome {
    carry_out(app, from, Call::Assign(request)).await
}

pub(super) async fn allocations(app: App, from: From) -> Outcome {
    carry_out(app, from, Call::Allocations).await
}

#[derive(Deserialize)]
pub(super) struct ScanQuery {
    start: Option<String>,
    end: Option<String>,
}

pub(super) async fn scan(
    app: App,
    from: From,
    Queried(ScanQuery { start, end }): Queried<ScanQuery>,
) -> Outcome {
    let start = start.map_or(Ok(1), |start| queried_port("start", &start))?;
    let end = end.map_or(Ok(u16::MAX), |end| queried_port("end", &end))?;
    carry_out(app, from, Call::Scan(start, end)).await
}

pub(super) async fn config(app: App, from: From) -> Outcome {
    carry_out(app, from, Call::Config).await
}

pub(super) async fn events(State(coordinator): App, Extension(client): From) -> Response<Body> {
    stream::answer(coordinator.events(), client.stop.clone())
}

pub(super) async fn openapi() -> Response<Body> {
    json_response(StatusCode::OK, OPENAPI.to_owned())
}

pub(super) async fn unknown_route(method: Method, uri: Uri) -> Response<Body> {
    let error = format!("there is no {method} {}", uri.path());
    let suggestion = "GET /openapi.json describes all there is";
    Refusal::new(StatusCode::NOT_FOUND, "unknown_route", error, suggestion).into_response()
}

pub(super) async fn method_not_allowed(method: Method, uri: Uri) -> Response<Body> {
    let error = format!("{} does not take {method}", uri.path());
    let suggestion = "GET /openapi.json tells what it takes";
    Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", error, suggestion)
        .into_response()
}
