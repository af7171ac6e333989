//! The life of the daemon: activation, readiness, signals, logging.

mod background;
mod configuration;
mod connections;
mod listeners;
mod logging;
mod notify;
mod serve;
mod upkeep;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;

use crate::config::Config;
use crate::coordinator::{self, Coordinator};
use crate::detect::watch::{raise_descriptor_limit, widen_descriptor_table};
use crate::paths::Paths;
use crate::store::{self, LockHolder, OpenError};
use configuration::Configuration;
use listeners::{Bound, Inherited};
use notify::Notifier;
use serve::{End, Server};

/// The most threads for what may take long, a walk through /proc above all: one walks at a time.
const MAX_THREADS: usize = 8;

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
    let notifier = Arc::new(Notifier::from_env());
    let outcome = start(options, inherited, &notifier);
    if let Err(error) = &outcome {
        notifier.say(&[NotifyState::Status(&error.to_string()), NotifyState::Errno(1)]);
    }
    outcome
}

fn start(
    options: &Options,
    inherited: Inherited,
    notifier: &Arc<Notifier>,
) -> Result<(), StartError> {
    if let Some(address) = options.listen.filter(|address| !address.ip().is_loopback()) {
        return Err(StartError::NotLoopback(address));
    }
    let paths = Paths::from_env().map_err(StartError::NoPlace)?;
    let (config, diagnostics) = Config::load(&paths.config_files);
    let mut configuration = Configuration {
        files: paths.config_files.clone(),
        diagnostics,
        problems: Vec::new(),
        bound: None,
    };
    configuration.log();
    if let Err(error) = raise_descriptor_limit() {
        tracing::warn!("the limit of open files stays as it is: {error}");
    }
    if let Err(error) = widen_descriptor_table() {
        tracing::debug!("the table of descriptors grows as it is needed: {error}");
    }
    let systemd = inherited.is_some() || is_started_by_systemd();
    // One that says no sockets is on its way out: its state can be had in a moment.
    let other = store::lock_holder(&paths.state_dir)
        .filter(|other| other.role == "daemon" && !other.sockets.is_empty());
    if let Some(holder) = other.filter(|_| !systemd) {
        return Err(StartError::AlreadyRunning(holder));
    }

    let listen = options.listen.unwrap_or(config.daemon.listen);
    let ports = inherited.tcp_ports().into_iter().chain([listen.port()]);
    let holder = coordinator::lock_holder("daemon", Vec::new(), systemd);
    let coordinator = Coordinator::for_daemon(&paths, config.clone(), holder.clone(), ports);
    let coordinator = coordinator.map_err(|error| match error {
        OpenError::Locked { holder: Some(holder), .. } if holder.role == "daemon" => {
            StartError::AlreadyRunning(holder)
        }
        error => StartError::State(error),
    })?;

    configuration.problems.clone_from(&inherited.problems);
    let bound = if inherited.is_some() {
        inherited.into_bound()
    } else {
        let (bound, more) = Bound::bind(options, listen, &paths.socket)?;
        configuration.problems.extend(more);
        configuration.bound = options.listen.is_none().then_some(listen);
        bound
    };
    for problem in &configuration.problems {
        tracing::warn!("{problem}");
    }
    let holder = LockHolder { sockets: bound.addresses(), ..holder };
    coordinator.announce(&holder, configuration.problems(&config));

    let coordinator = Arc::new(coordinator);
    let idle = coordinator.clone();
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().max_blocking_threads(MAX_THREADS);
    // What can be answered on this thread is answered then.
    runtime.on_thread_park(move || idle.prepare());
    let runtime = runtime.build();
    let runtime = runtime.map_err(|error| StartError::Machine("can't start the runtime", error))?;
    let served = runtime.block_on(serve(coordinator, bound, configuration, notifier));
    // A walk through /proc that nobody waits for any more is not waited for here either.
    runtime.shutdown_background();
    served
}

/// Whether systemd started this very process (`SYSTEMD_EXEC_PID`, systemd.exec(5), since 248):
/// `INVOCATION_ID` and `NOTIFY_SOCKET` are inherited by whatever a service starts.
fn is_started_by_systemd() -> bool {
    let pid = std::env::var("SYSTEMD_EXEC_PID");
    pid.is_ok_and(|pid| pid.parse() == Ok(std::process::id()))
}

/// From readiness to the end.
async fn serve(
    coordinator: Arc<Coordinator>,
    bound: Bound,
    configuration: Configuration,
    notifier: &Arc<Notifier>,
) -> Result<(), StartError> {
    let machine = |error| StartError::Machine("can't serve", error);
    let mut terminated = signal(SignalKind::terminate()).map_err(machine)?;
    let mut interrupted = signal(SignalKind::interrupt()).map_err(machine)?;
    let server = Server::new(coordinator.clone(), bound).map_err(machine)?;
    let mut tasks = JoinSet::new();
    tasks.spawn(upkeep::run(coordinator.clone(), server.activity().clone()));
    tasks.spawn(upkeep::reap(coordinator.clone()));
    if configuration.has_errors() {
        tasks.spawn(configuration.mend(coordinator.clone()));
    }
    tracing::info!("ready on {}", server.addresses().join(" and "));
    notifier.say(&[NotifyState::Ready]);
    tasks.spawn(notify::report(coordinator.clone(), notifier.clone()));
    tasks.spawn(notify::keep_alive(coordinator.clone(), notifier.clone()));
    let told = async {
        tokio::select! {
            _ = terminated.recv() => {}
            _ = interrupted.recv() => {}
        }
    };
    let ending = |end| {
        notifier.say(&[NotifyState::Stopping]);
        tracing::info!(
            "{}",
            match end {
                End::Told => "told to end",
                End::Idle => "nobody needs this daemon: it ends",
            }
        );
    };
    server.run(told, ending).await;
    tasks.shutdown().await;
    coordinator.shut_down();
    tracing::info!("stopped");
    Ok(())
}
