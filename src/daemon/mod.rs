//! The life of the daemon: activation, readiness, signals, logging.

mod background;
mod listeners;
mod logging;
mod serve;
mod upkeep;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};

use crate::config::Config;
use crate::coordinator::{self, Coordinator};
use crate::detect::watch::raise_descriptor_limit;
use crate::paths::Paths;
use crate::store::{self, LockHolder, OpenError};
use crate::text::printable;
use listeners::{Bound, Inherited};

/// What `styxy daemon run` was told.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// `--listen ADDR:PORT`; given by hand, so a taken one is an error.
    pub listen: Option<SocketAddr>,
    /// `--socket PATH`.
    pub socket: Option<PathBuf>,
    /// A client started it: leave its session, directory and descriptors; a taken TCP port is
    /// reported and the unix socket served alone.
    pub background: bool,
}

/// Why a daemon could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Another daemon of this user runs.
    #[error("a daemon of yours runs already (pid {}){}", .0.pid, at(&.0.sockets))]
    AlreadyRunning(LockHolder),
    /// `--listen` named an address that other machines could reach.
    #[error("{0} is not a loopback address: Styxy serves this machine alone")]
    NotLoopback(SocketAddr),
    /// An address that had to be served is taken.
    #[error("{address} is taken{}", holder.as_ref().map(|h| format!(" by {h}")).unwrap_or_default())]
    AddressTaken {
        /// The address.
        address: String,
        /// Who has it.
        holder: Option<String>,
    },
    /// There is nothing to serve on.
    #[error("nothing to listen on: {0}")]
    NoListener(String),
    /// The state could not be opened.
    #[error("{0}")]
    State(#[from] OpenError),
    /// The places of this user are unknown.
    #[error("{0}")]
    NoPlace(String),
    /// The machine refused something else.
    #[error("{0}: {1}")]
    Machine(&'static str, #[source] io::Error),
}

fn at(sockets: &[String]) -> impl fmt::Display {
    if sockets.is_empty() { String::new() } else { format!(" on {}", sockets.join(" and ")) }
}

/// Serves until a signal ends it.
///
/// # Errors
///
/// [`StartError`]. Who waits for readiness (`sd_notify(3)`) is told why too.
pub fn run(options: &Options) -> Result<(), StartError> {
    if options.background {
        background::detach().map_err(|error| StartError::Machine("can't detach", error))?;
    }
    // Before any thread starts: it reads and clears the environment.
    let inherited = Inherited::take();
    logging::start();
    let outcome = start(options, inherited);
    if let Err(error) = &outcome {
        tell(&[NotifyState::Status(&error.to_string()), NotifyState::Errno(1)]);
    }
    outcome
}

fn start(options: &Options, inherited: Inherited) -> Result<(), StartError> {
    if let Some(address) = options.listen.filter(|address| !address.ip().is_loopback()) {
        return Err(StartError::NotLoopback(address));
    }
    let paths = Paths::from_env().map_err(StartError::NoPlace)?;
    let (config, diagnostics) = Config::load(&paths.config_files);
    for diagnostic in &diagnostics {
        tracing::warn!("{}", printable(&diagnostic.to_string()));
    }
    if let Err(error) = raise_descriptor_limit() {
        tracing::warn!("the limit of open files stays as it is: {error}");
    }
    let other = store::lock_holder(&paths.state_dir).filter(|it| it.role == "daemon");
    if let Some(holder) = other.filter(|_| !inherited.is_some()) {
        return Err(StartError::AlreadyRunning(holder));
    }

    let systemd = inherited.is_some();
    let listen = options.listen.unwrap_or(config.daemon.listen);
    let ports = inherited.tcp_ports().into_iter().chain([listen.port()]);
    let holder = coordinator::lock_holder("daemon", Vec::new(), systemd);
    let coordinator = Coordinator::for_daemon(&paths, config, holder.clone(), ports);
    let coordinator = coordinator.map_err(|error| match error {
        OpenError::Locked { holder: Some(holder), .. } if holder.role == "daemon" => {
            StartError::AlreadyRunning(holder)
        }
        error => StartError::State(error),
    })?;

    let (bound, mut problems) = if inherited.is_some() {
        (inherited.into_bound(), Vec::new())
    } else {
        Bound::bind(options, listen, &paths.socket)?
    };
    problems.extend(diagnostics.iter().filter(|it| !it.is_warning).map(ToString::to_string));
    for problem in &problems {
        tracing::warn!("{problem}");
    }
    let holder = LockHolder { sockets: bound.addresses(), ..holder };
    coordinator.announce(&holder, problems);

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| StartError::Machine("can't start the runtime", error))?;
    runtime.block_on(serve(Arc::new(coordinator), bound))
}

/// From readiness to the end.
async fn serve(coordinator: Arc<Coordinator>, bound: Bound) -> Result<(), StartError> {
    let machine = |error| StartError::Machine("can't serve", error);
    let mut terminated = signal(SignalKind::terminate()).map_err(machine)?;
    let mut interrupted = signal(SignalKind::interrupt()).map_err(machine)?;
    let upkeep = tokio::spawn(upkeep::run(coordinator.clone()));
    let deaths = tokio::spawn(upkeep::reap(coordinator.clone()));
    let server = serve::Server::new(coordinator.clone(), bound).map_err(machine)?;
    tracing::info!("ready on {}", server.addresses().join(" and "));
    tell(&[NotifyState::Ready]);
    server
        .run(async {
            tokio::select! {
                _ = terminated.recv() => {}
                _ = interrupted.recv() => {}
            }
            tell(&[NotifyState::Stopping]);
        })
        .await;
    upkeep.abort();
    deaths.abort();
    coordinator.shut_down();
    tracing::info!("stopped");
    Ok(())
}

/// Tells who waits for readiness. Without anybody it does nothing.
fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!("can't tell {state:?}: {error}");
    }
}
