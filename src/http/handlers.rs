//! A request becomes a call, a call an answer. Thin on purpose: what is decided is decided below.

use std::borrow::Cow;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use hyper::body::{Bytes, Incoming};
use hyper::header::{self, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, Response, StatusCode};
use tokio::sync::watch;

use super::extract::{self, json, optional_json, parameter, port, queried, queried_port};
use super::gathering::Member;
use super::refusal::Refusal;
use super::reply::{self, Reply};
use super::routes::{self, Found, Route};
use super::{Call, Stop, stream};
use crate::api;
use crate::coordinator::{Answer, Coordinator, Decided, Peer};
use crate::error::Error;

type Outcome = Result<Response<Reply>, Refusal>;

/// What is known of a request from the connection that it came by.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) coordinator: Arc<Coordinator>,
    pub(super) peer: Peer,
    pub(super) stop: watch::Receiver<Stop>,
    pub(super) member: Member,
}

/// How many suggestions are given when nobody says.
const DEFAULT_SUGGESTIONS: usize = 5;

/// The description of all this. A test holds it against the routes and the wire types.
const OPENAPI: &str = include_str!("openapi.json");

/// Answers a request that the guard has let pass.
pub(super) async fn answer(client: &Client, head: Parts, body: Incoming) -> Outcome {
    let (route, argument) = match routes::find(&head.method, head.uri.path()) {
        Found::Route(route, argument) => (route, argument),
        Found::OtherMethod(allowed) => return Ok(method_not_allowed(&head, &allowed)),
        Found::Nowhere => return Err(unknown_route(&head)),
    };
    // What the others send along says nothing.
    let has_body = head.method == Method::POST;
    let body = if has_body { extract::read(body).await? } else { Bytes::new() };
    match asked(route, argument, head.uri.query(), &body)? {
        Asked::Call(call) => carry_out(client, call).await,
        Asked::Events => Ok(stream::answer(client.coordinator.events(), client.stop.clone())),
        Asked::Description => Ok(reply::json(StatusCode::OK, OPENAPI.to_owned())),
    }
}

/// What a request is for.
#[expect(clippy::large_enum_variant, reason = "it is taken apart where it is made")]
enum Asked {
    Call(Call),
    Events,
    Description,
}

fn asked(route: Route, argument: &str, query: Option<&str>, body: &[u8]) -> Result<Asked, Refusal> {
    Ok(Asked::Call(match route {
        Route::Allocate => Call::Allocate(json(body)?),
        Route::AllocateBatch => Call::AllocateBatch(json(body)?),
        Route::Renew => Call::Renew(parameter(argument)?, optional_json(body)?),
        Route::Release => Call::Release(parameter(argument)?),
        Route::Check => Call::Check(port(&parameter(argument)?)?, protocol(query)?),
        Route::Suggest => {
            let wish = queried_port(query, "preferred_port")?;
            Call::Suggest(parameter(argument)?, wish, count(query)?)
        }
        Route::Register => Call::Register(json(body)?),
        Route::Heartbeat => Call::Heartbeat(json(body)?),
        Route::HeartbeatOf => {
            Call::Heartbeat(api::HeartbeatRequest { instance_id: parameter(argument)? })
        }
        Route::Instances => Call::Instances,
        Route::RemoveInstance => Call::RemoveInstance(parameter(argument)?),
        Route::Status => Call::Status,
        Route::Cleanup => Call::Cleanup(optional_json(body)?),
        Route::Assignments => {
            Call::Assignments(queried(query, "project_path")?.map(Cow::into_owned))
        }
        Route::Assign => Call::Assign(json(body)?),
        Route::Allocations => Call::Allocations,
        Route::Scan => {
            let (start, end) = (queried_port(query, "start")?, queried_port(query, "end")?);
            Call::Scan(start.unwrap_or(1), end.unwrap_or(u16::MAX))
        }
        Route::Config => Call::Config,
        Route::Events => return Ok(Asked::Events),
        Route::OpenApi => return Ok(Asked::Description),
    }))
}

fn protocol(query: Option<&str>) -> Result<api::Protocol, Error> {
    match queried(query, "protocol")?.as_deref() {
        None | Some("tcp") => Ok(api::Protocol::Tcp),
        Some("udp") => Ok(api::Protocol::Udp),
        Some("both") => Ok(api::Protocol::Both),
        Some(_) => Err(Error::invalid("protocol", "must be tcp, udp or both")),
    }
}

fn count(query: Option<&str>) -> Result<usize, Error> {
    let given = queried(query, "count")?.map(|count| count.parse());
    let given = given.transpose().map_err(|_| Error::invalid("count", "must be a number"))?;
    Ok(given.unwrap_or(DEFAULT_SUGGESTIONS))
}

fn unknown_route(head: &Parts) -> Refusal {
    let error = format!("there is no {} {}", head.method, head.uri.path());
    let suggestion = "GET /openapi.json describes all there is";
    Refusal::new(StatusCode::NOT_FOUND, "unknown_route", error, suggestion)
}

/// RFC 9110, 15.5.6: says what is allowed.
fn method_not_allowed(head: &Parts, allowed: &str) -> Response<Reply> {
    let error = format!("{} does not take {}", head.uri.path(), head.method);
    let suggestion = "GET /openapi.json tells what it takes";
    let status = StatusCode::METHOD_NOT_ALLOWED;
    let mut response =
        Refusal::new(status, "method_not_allowed", error, suggestion).into_response();
    if let Ok(allowed) = HeaderValue::from_str(allowed) {
        response.headers_mut().insert(header::ALLOW, allowed);
    }
    response
}

/// A call's way to its answer.
enum Work {
    /// Decided at once: that takes microseconds.
    Decided(Result<Decided<Answer>, Error>),
    /// Done elsewhere: it may look through /proc.
    Aside(Aside<Result<Answer, Error>>),
}

/// Carries out a call. What has to wait is small: the call itself is not kept.
fn carry_out(client: &Client, call: Call) -> impl Future<Output = Outcome> + use<'_> {
    let (coordinator, peer) = (&client.coordinator, client.peer);
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
                    client.member.gather().await;
                }
                coordinator.written(decided)
            }
            Work::Decided(Err(error)) => Err(error),
            Work::Aside(work) => work.await,
        };
        match done {
            Ok(Answer { body, created: true }) => Ok(reply::json(StatusCode::CREATED, body)),
            Ok(Answer { body, created: false }) => Ok(reply::json(StatusCode::OK, body)),
            Err(error @ Error::PortUnavailable { allocated_to: None, .. }) => {
                let coordinator = coordinator.clone();
                Err(aside(move || coordinator.name_holder(error)).await.into())
            }
            Err(error) => Err(error.into()),
        }
    }
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
