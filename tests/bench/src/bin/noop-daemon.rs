//! A daemon that does nothing: what HTTP and JSON alone cost.
//!
//!     noop-daemon ADDRESS:PORT BYTES
//!
//! Serves one POST route, and any path: parses the body of an allocation and answers as many bytes
//! as an allocation's answer has. Where systemd handed over a socket, it serves that.

use std::net::TcpListener;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{Request, StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::post;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use listenfd::ListenFd;
use serde::Deserialize;
use tower_service::Service as _;

/// The body of `POST /allocate`.
#[derive(Deserialize)]
#[expect(dead_code, reason = "parsing them is the point")]
struct AllocateRequest {
    service_type: String,
    service_name: Option<String>,
    preferred_port: Option<u16>,
    #[serde(default)]
    exact: bool,
    process_id: Option<u32>,
    process_start_time: Option<u64>,
    #[serde(default)]
    implicit_owner: bool,
    pid_namespace: Option<u64>,
    instance_id: Option<String>,
    project_path: Option<String>,
    lease_seconds: Option<u64>,
    protocol: Option<String>,
    if_running: Option<String>,
    lock_id: Option<String>,
    #[serde(default)]
    dry_run: bool,
}

async fn answer(State(answer): State<Arc<str>>, body: Bytes) -> impl IntoResponse {
    let created = match serde_json::from_slice::<AllocateRequest>(&body) {
        Ok(_) => StatusCode::CREATED,
        Err(_) => StatusCode::BAD_REQUEST,
    };
    (created, [(header::CONTENT_TYPE, "application/json")], Body::from(answer.to_string()))
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(address), Some(bytes)) = (arguments.next(), arguments.next()) else {
        return Err("usage: noop-daemon ADDRESS:PORT BYTES".into());
    };
    // A JSON string is as good as any answer.
    let text: Arc<str> = format!("\"{}\"", "x".repeat(bytes.parse::<usize>()? - 2)).into();
    let listener = match ListenFd::from_env().take_tcp_listener(0)? {
        Some(handed_over) => handed_over,
        None => TcpListener::bind(address)?,
    };
    listener.set_nonblocking(true)?;
    let router = Router::new().route("/{*any}", post(answer)).with_state(text);
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().build()?.block_on(serve(listener, router))
}

async fn serve(listener: TcpListener, router: Router) -> Result<(), Box<dyn std::error::Error>> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let router = router.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request: Request<Incoming>| {
                let mut router = router.clone();
                async move { router.call(request.map(Body::new)).await }
            });
            // Who goes away in the middle is no fault.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}
