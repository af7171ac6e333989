//! The accept loop: it owns the listeners, so that nothing is accepted after the decision to end.

use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use super::listeners::Bound;
use crate::coordinator::Coordinator;
use crate::detect::peer::{self, Credentials};
use crate::detect::{namespace, sockets};
use crate::http::{Caller, Connection, Entrance, Routes};

/// The most connections at once; more wait in the kernel's backlog.
const MAX_CONNECTIONS: usize = 512;

/// How long requests in progress may take once the daemon is told to end.
const DRAIN_PATIENCE: Duration = Duration::from_secs(5);

/// How long to wait when no descriptor is left to accept with (EMFILE of accept(2)): a connection
/// must end first.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The listeners and who answers on them.
pub(super) struct Server {
    tcp: Vec<TcpListener>,
    unix: Vec<UnixListener>,
    own_path: Option<PathBuf>,
    addresses: Vec<String>,
    routes: Routes,
    uid: u32,
    net_namespace: Option<u64>,
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
            own_path: bound.own_path,
            addresses,
            routes: Routes::new(coordinator),
            uid: rustix::process::geteuid().as_raw(),
            net_namespace: namespace::own().ok().map(|own| own.net),
        })
    }

    pub(super) fn addresses(&self) -> &[String] {
        &self.addresses
    }

    /// Accepts and answers until `ended`; then finishes what was accepted.
    pub(super) async fn run(self, ended: impl Future<Output = ()>) {
        let mut ended = std::pin::pin!(ended);
        let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let (stop, stopped) = watch::channel(false);
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                biased;
                () = &mut ended => break,
                Some(_) = connections.join_next() => continue,
                accepted = self.accept(&slots) => accepted,
            };
            match accepted {
                Ok((client, slot)) => {
                    let served = self.answer(client, stopped.clone());
                    connections.spawn(async move {
                        served.await;
                        drop(slot);
                    });
                }
                Err(error) => {
                    tracing::warn!("can't accept: {error}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        if let Some(path) = &self.own_path
            && let Err(error) = std::fs::remove_file(path)
        {
            tracing::debug!("{} was gone already: {error}", path.display());
        }
        // Whoever waits in the backlog is answered too, where the listener is ours alone.
        stop.send_replace(true);
        let drained = tokio::time::timeout(DRAIN_PATIENCE, async {
            while connections.join_next().await.is_some() {}
        });
        if drained.await.is_err() {
            tracing::warn!("{} connections did not end in time", connections.len());
        }
    }

    async fn accept(
        &self,
        slots: &Arc<Semaphore>,
    ) -> io::Result<(Accepted, tokio::sync::OwnedSemaphorePermit)> {
        let slot = slots.clone().acquire_owned().await.map_err(io::Error::other)?;
        let client = poll_fn(|context| self.poll_accept(context)).await?;
        Ok((client, slot))
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

    /// Sees who is at the other end, before a single byte is read.
    fn answer(
        &self,
        client: Accepted,
        stop: watch::Receiver<bool>,
    ) -> impl Future<Output = ()> + Send + 'static {
        let routes = self.routes.clone();
        let connection = match &client {
            Accepted::Tcp(stream, peer) => self.identify_tcp(stream, *peer),
            Accepted::Unix(stream) => {
                Connection { caller: self.identify_unix(stream), entrance: Entrance::Unix }
            }
        };
        async move {
            match client {
                Accepted::Tcp(stream, _) => {
                    // Answers are small and wanted now.
                    if let Err(error) = stream.set_nodelay(true) {
                        tracing::debug!("TCP_NODELAY: {error}");
                    }
                    routes.serve(stream, connection, stop).await;
                }
                Accepted::Unix(stream) => routes.serve(stream, connection, stop).await,
            }
        }
    }

    fn identify_tcp(&self, stream: &TcpStream, peer: SocketAddr) -> Connection {
        let Ok(local) = stream.local_addr() else {
            let nowhere = Entrance::Tcp(peer.ip(), 0);
            return Connection { caller: Caller::Unknown, entrance: nowhere };
        };
        let caller = match sockets::peer_uid(local, peer) {
            Ok(Some(uid)) => self.judge(uid, None),
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
        let namespace = pid.and_then(|pid| namespace::of(pid).ok()).map(|of| of.net);
        // What can't be seen (root's, or a process that hides itself) is taken for ours.
        let is_foreign = namespace.is_some() && namespace != self.net_namespace;
        match self.judge(uid, pid) {
            Caller::Trusted(_) if is_foreign => Caller::ForeignNamespace,
            caller => caller,
        }
    }

    fn judge(&self, uid: u32, pid: Option<u32>) -> Caller {
        if uid == self.uid || uid == 0 { Caller::Trusted(pid) } else { Caller::Stranger(uid) }
    }
}
