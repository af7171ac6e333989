//! The coordination layer: HTTP on a TCP and a unix socket, with the same routes.
//!
//! A connection's peer is known from its accept on; `guard` looks at every request before any
//! route does; a handler turns a request into a [`Call`] and that into an answer.

mod extract;
mod guard;
mod handlers;
mod refusal;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderValue, Response, header};
use axum::response::IntoResponse;
use axum::routing::{delete, get, post, put};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tower_service::Service;

pub use guard::{Caller, Connection, Entrance};

use crate::coordinator::{Call, Coordinator};

/// Every route: method, and path as OpenAPI writes it.
pub const ROUTES: &[(&str, &str)] = &[
    ("POST", "/allocate"),
    ("POST", "/allocate/batch"),
    ("POST", "/allocate/{lockId}/renew"),
    ("DELETE", "/allocate/{lockId}"),
    ("GET", "/check/{port}"),
    ("GET", "/suggest/{serviceType}"),
    ("POST", "/instance/register"),
    ("POST", "/instance/heartbeat"),
    ("PUT", "/instance/{id}/heartbeat"),
    ("GET", "/instance/list"),
    ("DELETE", "/instance/{id}"),
    ("GET", "/status"),
    ("POST", "/cleanup"),
    ("GET", "/assignments"),
    ("POST", "/assign"),
    ("GET", "/allocations"),
    ("GET", "/config"),
    ("GET", "/openapi.json"),
];

/// How long a client may take to send the head of a request, and to begin the next one.
const HEADER_PATIENCE: Duration = Duration::from_secs(10);

/// What every answer says of its server.
const SERVER: &str = concat!("styxy/", env!("CARGO_PKG_VERSION"));

/// The routes of one coordinator.
#[derive(Debug, Clone)]
pub struct Routes(Router);

impl Routes {
    /// The routes, ready to serve connections.
    pub fn new(coordinator: Arc<Coordinator>) -> Self {
        let router = Router::new()
            .route("/allocate", post(handlers::allocate))
            .route("/allocate/batch", post(handlers::allocate_batch))
            .route("/allocate/{lockId}/renew", post(handlers::renew))
            .route("/allocate/{lockId}", delete(handlers::release))
            .route("/check/{port}", get(handlers::check))
            .route("/suggest/{serviceType}", get(handlers::suggest))
            .route("/instance/register", post(handlers::register))
            .route("/instance/heartbeat", post(handlers::heartbeat))
            .route("/instance/{id}/heartbeat", put(handlers::heartbeat_of))
            .route("/instance/list", get(handlers::instances))
            .route("/instance/{id}", delete(handlers::remove_instance))
            .route("/status", get(handlers::status))
            .route("/cleanup", post(handlers::cleanup))
            .route("/assignments", get(handlers::assignments))
            .route("/assign", post(handlers::assign))
            .route("/allocations", get(handlers::allocations))
            .route("/config", get(handlers::config))
            .route("/openapi.json", get(handlers::openapi))
            .fallback(handlers::unknown_route)
            .method_not_allowed_fallback(handlers::method_not_allowed);
        Self(router.with_state(coordinator))
    }

    /// Serves one connection to its end, or to the end of its current request once `stop` says so.
    pub async fn serve<S>(self, stream: S, connection: Connection, mut stop: watch::Receiver<bool>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let service = service_fn(move |request| answer(self.0.clone(), connection, request));
        let mut serving = std::pin::pin!(
            http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_PATIENCE)
                .serve_connection(TokioIo::new(stream), service)
        );
        let ended = tokio::select! {
            ended = serving.as_mut() => ended,
            () = told_to(&mut stop) => {
                serving.as_mut().graceful_shutdown();
                serving.await
            }
        };
        if let Err(error) = ended {
            // A client that goes away in the middle is no fault of ours.
            tracing::debug!("connection ended: {error}");
        }
    }
}

/// Waits until `stop` says so.
async fn told_to(stop: &mut watch::Receiver<bool>) {
    // A sender that is gone will not say it any more: the same.
    let _ = stop.wait_for(|stop| *stop).await;
}

async fn answer(
    mut router: Router,
    connection: Connection,
    request: hyper::Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let (mut head, body) = request.into_parts();
    let mut response = match guard::check(&connection, &head) {
        Ok(peer) => {
            head.extensions.insert(peer);
            let request = Request::from_parts(head, Body::new(body));
            let Ok(response) = router.call(request).await;
            response
        }
        Err(refusal) => refusal.into_response(),
    };
    response.headers_mut().insert(header::SERVER, HeaderValue::from_static(SERVER));
    Ok(response)
}
