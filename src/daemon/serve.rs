//! The accept loop: it owns the listeners and the idle timer, so that nothing is accepted after the
//! decision to end.

use std::future::{Future, pending, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use super::connections::Connections;
use super::listeners::{Bound, OwnPath};
use crate::coordinator::{Coordinator, Peer};
use crate::detect::peer::{self, Credentials};
use crate::detect::{namespace, sockets};
use crate::http::{Activity, Caller, Connection, Entrance, Routes};

/// How long to wait when no descriptor is left to accept with (EMFILE of accept(2)): a connection
/// must end first.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// So many come in before those who are in are served again: whoever floods the TCP socket keeps
/// nobody of the unix socket waiting for all of its crowd.
const BURST: usize = 16;

/// The listeners and who answers on them.
pub(super) struct Server {
    tcp: Vec<TcpListener>,
    unix: Vec<UnixListener>,
    is_own: bool,
    own_path: Option<OwnPath>,
    addresses: Vec<String>,
    coordinator: Arc<Coordinator>,
    routes: Routes,
    uid: u32,
    net_namespace: Option<u64>,
}

/// Why a daemon ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// It was told to.
    Told,
    /// Nobody has needed it for a while.
    Idle,
}

/// A client, just accepted.
enum Accepted {
    Tcp(TcpStream, SocketAddr),
    Unix(UnixStream),
}

impl Server {
    pub(super) fn new(coordinator: Arc<Coordinator>, bound: Bound) -> io::Result<Self> {
        let addresses = bound.addresses();
        let tcp = bound.tcp.into_iter().map(|listener| {
            listener.set_nonblocking(true)?;
            TcpListener::from_std(listener)
        });
        let unix = bound.unix.into_iter().map(|listener| {
            listener.set_nonblocking(true)?;
            UnixListener::from_std(listener)
        });
        Ok(Self {
            tcp: tcp.collect::<io::Result<_>>()?,
            unix: unix.collect::<io::Result<_>>()?,
            is_own: bound.is_own,
            own_path: bound.own_path,
            addresses,
            routes: Routes::new(coordinator.clone()),
            coordinator,
            uid: rustix::process::geteuid().as_raw(),
            net_namespace: namespace::own().ok().map(|own| own.net),
        })
    }

    pub(super) fn addresses(&self) -> &[String] {
        &self.addresses
    }

    /// Whether anybody is being served.
    pub(super) fn activity(&self) -> &Activity {
        self.routes.activity()
    }

    /// Accepts and answers until it is `told` to end or nobody needs it; says so to `ending`, and
    /// then finishes what was accepted.
    pub(super) async fn run(mut self, told: impl Future<Output = ()>, ending: impl FnOnce(End)) {
        let mut told = std::pin::pin!(told);
        let mut connections = Connections::new();
        loop {
            let end = self.accept_until(told.as_mut(), &mut connections).await;
            if end == End::Idle {
                // Idle connections are closed, while whoever comes waits in the backlog. A request
                // that had arrived on one of them is answered, and may be a reason to stay.
                connections.drain().await;
                if self.idle_for().is_none() {
                    continue;
                }
            }
            ending(end);
            break;
        }
        self.coordinator.leave();
        self.close(&mut connections);
        connections.drain().await;
    }

    async fn accept_until(
        &self,
        mut told: Pin<&mut impl Future<Output = ()>>,
        connections: &mut Connections,
    ) -> End {
        let mut unneeded = std::pin::pin!(self.unneeded());
        let mut burst = 0;
        loop {
            if burst == BURST {
                burst = 0;
                tokio::task::yield_now().await;
            }
            let accepted = tokio::select! {
                biased;
                () = &mut told => return End::Told,
                () = connections.ended() => continue,
                accepted = self.accept(), if connections.have_room() => accepted,
                () = &mut unneeded => return End::Idle,
            };
            match accepted {
                Ok(client) => {
                    self.begin(client, connections);
                    burst += 1;
                }
                Err(error) => {
                    tracing::warn!("can't accept: {error}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Waits until nobody has needed the daemon for as long as the configuration says.
    async fn unneeded(&self) {
        let mut configured = self.coordinator.configured();
        loop {
            let limit = configured.borrow_and_update().daemon.idle_exit;
            tokio::select! {
                () = self.unneeded_for(limit) => return,
                Ok(()) = configured.changed() => {}
            }
        }
    }

    async fn unneeded_for(&self, limit: Option<Duration>) {
        let Some(limit) = limit else { return pending().await };
        // The limit comes first, whatever went before: nobody is left who came while it started.
        let mut wait = limit;
        loop {
            tokio::time::sleep(wait).await;
            wait = match self.idle_for() {
                Some(idle) if idle >= limit => return,
                Some(idle) => limit.saturating_sub(idle),
                // It cannot become due any earlier.
                None => limit,
            };
        }
    }

    /// How long nobody has needed the daemon: no allocation, no instance, no request in progress.
    fn idle_for(&self) -> Option<Duration> {
        Some(self.coordinator.idle_for()?.min(self.activity().quiet_for()?))
    }

    /// Closes the listeners. Those of systemd stay open over there, and the next process serves who
    /// comes; who waits for this process alone is answered yet.
    fn close(&mut self, connections: &mut Connections) {
        if let Some(path) = self.own_path.take() {
            path.remove();
        }
        for listener in std::mem::take(&mut self.unix) {
            let Ok(listener) = listener.into_std() else { continue };
            while self.is_own
                && let Ok((stream, _)) = listener.accept()
                && stream.set_nonblocking(true).is_ok()
                && let Ok(stream) = UnixStream::from_std(stream)
            {
                self.begin(Accepted::Unix(stream), connections);
            }
        }
        for listener in std::mem::take(&mut self.tcp) {
            let Ok(listener) = listener.into_std() else { continue };
            while self.is_own
                && let Ok((stream, peer)) = listener.accept()
                && stream.set_nonblocking(true).is_ok()
                && let Ok(stream) = TcpStream::from_std(stream)
            {
                self.begin(Accepted::Tcp(stream, peer), connections);
            }
        }
    }

    async fn accept(&self) -> io::Result<Accepted> {
        poll_fn(|context| self.poll_accept(context)).await
    }

    fn poll_accept(&self, context: &mut Context<'_>) -> Poll<io::Result<Accepted>> {
        for listener in &self.unix {
            if let Poll::Ready(accepted) = listener.poll_accept(context) {
                return Poll::Ready(accepted.map(|(stream, _)| Accepted::Unix(stream)));
            }
        }
        for listener in &self.tcp {
            if let Poll::Ready(accepted) = listener.poll_accept(context) {
                return Poll::Ready(accepted.map(|(stream, peer)| Accepted::Tcp(stream, peer)));
            }
        }
        Poll::Pending
    }

    /// Sees who is at the other end, before a single byte is read, and serves it in a task.
    fn begin(&self, client: Accepted, connections: &mut Connections) {
        let routes = self.routes.clone();
        match client {
            Accepted::Tcp(stream, peer) => {
                // Answers are small and wanted now.
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!("TCP_NODELAY: {error}");
                }
                let connection = self.identify_tcp(&stream, peer);
                let is_stranger = is_stranger(connection.caller);
                connections.spawn(is_stranger, |seat| routes.serve(stream, connection, seat));
            }
            Accepted::Unix(stream) => {
                let caller = self.identify_unix(&stream);
                let connection = Connection { caller, entrance: Entrance::Unix };
                let is_stranger = is_stranger(caller);
                connections.spawn(is_stranger, |seat| routes.serve(stream, connection, seat));
            }
        }
    }

    fn identify_tcp(&self, stream: &TcpStream, peer: SocketAddr) -> Connection {
        let Ok(local) = stream.local_addr() else {
            let nowhere = Entrance::Tcp(peer.ip(), 0);
            return Connection { caller: Caller::Unknown, entrance: nowhere };
        };
        let caller = match sockets::peer_uid(local, peer) {
            Ok(Some(uid)) => self.judge(uid, Peer::default()),
            Ok(None) => Caller::Unknown,
            Err(error) => {
                tracing::warn!("can't tell whose connection {peer} is: {error}");
                Caller::Unknown
            }
        };
        Connection { caller, entrance: Entrance::Tcp(local.ip(), local.port()) }
    }

    fn identify_unix(&self, stream: &UnixStream) -> Caller {
        let Ok(Credentials { pid, uid }) = peer::credentials(stream) else {
            return Caller::Unknown;
        };
        let namespaces = pid.and_then(|pid| namespace::of(pid).ok());
        // What can't be seen (root's, or a process that hides itself) is taken for ours.
        let is_foreign = namespaces.is_some_and(|theirs| Some(theirs.net) != self.net_namespace);
        match self.judge(uid, Peer { pid, pid_namespace: namespaces.map(|theirs| theirs.pid) }) {
            Caller::Trusted(_) if is_foreign => Caller::ForeignNamespace,
            caller => caller,
        }
    }

    fn judge(&self, uid: u32, peer: Peer) -> Caller {
        if uid == self.uid || uid == 0 { Caller::Trusted(peer) } else { Caller::Stranger(uid) }
    }
}

/// Whether nothing but a refusal is to be had for whoever this is.
fn is_stranger(caller: Caller) -> bool {
    matches!(caller, Caller::Stranger(_) | Caller::Unknown)
}
