//! A daemon that does nothing: what HTTP and JSON alone cost, written as most are, on axum.
//!
//!     noop-daemon ADDRESS:PORT|SOCKET BYTES [JOURNAL]
//!
//! Serves one POST route, and any path: parses the body of an allocation and answers as many bytes
//! as an allocation's answer has. SOCKET is the path of a unix socket. Where systemd handed over a
//! socket, it serves that.
//!
//! With a journal it still decides nothing, and makes the system calls that an allocation and its
//! release can't do without, in turn: the bind probe, and an append to a file that is looked at
//! before. What those cost, no program can be faster than.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::net::{Ipv6Addr, SocketAddrV6, TcpListener};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

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
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with, sockopt};
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncWrite};
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

/// What it answers, and what it does besides.
struct App {
    answer: String,
    calls: Option<Calls>,
}

async fn answer(State(app): State<Arc<App>>, body: Bytes) -> impl IntoResponse {
    let created = match serde_json::from_slice::<AllocateRequest>(&body) {
        Ok(_) => StatusCode::CREATED,
        Err(_) => StatusCode::BAD_REQUEST,
    };
    if let Some(calls) = &app.calls {
        calls.make().expect("the calls of an allocation");
    }
    (created, [(header::CONTENT_TYPE, "application/json")], Body::from(app.answer.clone()))
}

/// The system calls of an allocation, and of its release.
struct Calls {
    journal: File,
    count: AtomicU16,
}

impl Calls {
    fn open(path: &str) -> std::io::Result<Self> {
        let journal = OpenOptions::new().create(true).append(true).open(path)?;
        Ok(Self { journal, count: AtomicU16::new(0) })
    }

    fn make(&self) -> std::io::Result<()> {
        let count = self.count.fetch_add(1, Ordering::Relaxed);
        let is_release = count % 2 == 1;
        if !is_release {
            let flags = SocketFlags::CLOEXEC;
            let socket = socket_with(AddressFamily::INET6, SocketType::STREAM, flags, None)?;
            sockopt::set_ipv6_v6only(&socket, false)?;
            let port = 10_000 + count % 16_384;
            bind(&socket, &SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, port, 0, 0))?;
        }
        self.journal.metadata()?;
        // As long as the journal's lines are.
        let line = [b'x'; 330];
        (&self.journal).write_all(&line[..if is_release { 100 } else { 330 }])
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(address), Some(bytes)) = (arguments.next(), arguments.next()) else {
        return Err("usage: noop-daemon ADDRESS:PORT|SOCKET BYTES [JOURNAL]".into());
    };
    let calls = arguments.next().map(|journal| Calls::open(&journal)).transpose()?;
    // A JSON string is as good as any answer.
    let text = format!("\"{}\"", "x".repeat(bytes.parse::<usize>()? - 2));
    let app = Arc::new(App { answer: text, calls });
    let router = Router::new().route("/{*any}", post(answer)).with_state(app);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    if address.starts_with('/') {
        return runtime.block_on(serve_unix(UnixListener::bind(address)?, router));
    }
    let listener = match ListenFd::from_env().take_tcp_listener(0)? {
        Some(handed_over) => handed_over,
        None => TcpListener::bind(address)?,
    };
    runtime.block_on(serve_tcp(listener, router))
}

async fn serve_tcp(
    listener: TcpListener,
    router: Router,
) -> Result<(), Box<dyn std::error::Error>> {
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    // Its unit waits for that (sd_notify(3)).
    if let Some(manager) = std::env::var_os("NOTIFY_SOCKET") {
        UnixDatagram::unbound()?.send_to(b"READY=1", manager)?;
    }
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(answer_all(stream, router.clone()));
    }
}

async fn serve_unix(
    listener: UnixListener,
    router: Router,
) -> Result<(), Box<dyn std::error::Error>> {
    listener.set_nonblocking(true)?;
    let listener = tokio::net::UnixListener::from_std(listener)?;
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(answer_all(stream, router.clone()));
    }
}

/// Answers all requests of one client.
async fn answer_all(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, router: Router) {
    let service = service_fn(move |request: Request<Incoming>| {
        let mut router = router.clone();
        async move { router.call(request.map(Body::new)).await }
    });
    // Who goes away in the middle is no fault.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}
