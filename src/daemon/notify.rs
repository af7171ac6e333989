//! What the service manager hears of this daemon (sd_notify(3)). It is never waited for.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::coordinator::Coordinator;

/// How often the status line may change: nobody reads faster.
const STATUS_PAUSE: Duration = Duration::from_millis(500);

/// The socket of whoever waits for readiness, if anybody does.
#[derive(Debug)]
pub(super) struct Notifier(Option<(UnixDatagram, SocketAddr)>);

impl Notifier {
    /// Reads `NOTIFY_SOCKET`.
    pub(super) fn from_env() -> Self {
        let Some(name) = std::env::var_os("NOTIFY_SOCKET") else { return Self(None) };
        match Self::open(&name) {
            Ok(opened) => Self(Some(opened)),
            Err(error) => {
                tracing::warn!("nobody can be told of the start: NOTIFY_SOCKET: {error}");
                Self(None)
            }
        }
    }

    fn open(name: &OsStr) -> io::Result<(UnixDatagram, SocketAddr)> {
        let address = match name.as_bytes().strip_prefix(b"@") {
            Some(name) => SocketAddr::from_abstract_name(name)?,
            None => SocketAddr::from_pathname(name)?,
        };
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        Ok((socket, address))
    }

    /// Tells all of `states` at once, to whoever may hear it.
    pub(super) fn say(&self, states: &[NotifyState<'_>]) {
        if let Err(error) = self.tell(states) {
            tracing::debug!("can't tell {states:?}: {error}");
        }
    }

    /// Tells all of `states` at once.
    ///
    /// # Errors
    ///
    /// `WouldBlock` when the service manager does not keep up with its reading.
    pub(super) fn tell(&self, states: &[NotifyState<'_>]) -> io::Result<()> {
        let Some((socket, address)) = &self.0 else { return Ok(()) };
        let mut message = String::new();
        for state in states {
            // Each is a line, whatever it says. Writing to a String cannot fail.
            let line = state.to_string().replace(char::is_control, " ");
            let _ = writeln!(message, "{line}");
        }
        let sent = socket.send_to_addr(message.as_bytes(), address);
        sent.map(drop)
    }
}

/// Keeps the status line of `systemctl status` right.
pub(super) async fn report(coordinator: Arc<Coordinator>, notifier: Arc<Notifier>) {
    let mut recounted = coordinator.recounted();
    let mut told = String::new();
    loop {
        let status = coordinator.counts().to_string();
        if status != told {
            match notifier.tell(&[NotifyState::Status(&status)]) {
                Ok(()) => told.clone_from(&status),
                // It has much to read, and will hear it later.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // Whoever waited for readiness has gone.
                Err(_) => return,
            }
        }
        sleep(STATUS_PAUSE).await;
        if status == told && recounted.changed().await.is_err() {
            return;
        }
    }
}

/// Says that this daemon works, as often as the service manager asked for: twice in the time after
/// which it would replace it.
pub(super) async fn keep_alive(coordinator: Arc<Coordinator>, notifier: Arc<Notifier>) {
    let Some(limit) = sd_notify::watchdog_enabled() else { return };
    ping(&coordinator, &notifier, limit / 2).await;
}

async fn ping(coordinator: &Coordinator, notifier: &Notifier, pause: Duration) {
    let mut ticks = interval(pause);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        // It takes the lock: so a deadlock is a missed ping, and so is a runtime that hangs.
        coordinator.is_sound();
        notifier.say(&[NotifyState::Watchdog]);
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error;

    use super::*;
    use crate::config::Config;
    use crate::coordinator::lock_holder;
    use crate::paths::Paths;

    #[test]
    fn it_does_not_say_that_it_works_while_the_registry_is_locked() -> Result<(), Box<dyn Error>> {
        let dir = tempfile::tempdir()?;
        let paths = Paths {
            state_dir: dir.path().join("state"),
            socket: dir.path().join("socket"),
            config_files: Vec::new(),
        };
        let holder = lock_holder("daemon", Vec::new(), false);
        let coordinator = Coordinator::for_daemon(&paths, Config::built_in(), holder, [])?;
        let receiver = UnixDatagram::bind(dir.path().join("notify"))?;
        let notifier = Notifier(Some(Notifier::open(dir.path().join("notify").as_os_str())?));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();

        std::thread::scope(|scope| {
            let held = coordinator.hold();
            let pings = ping(&coordinator, &notifier, Duration::from_millis(1));
            scope.spawn(|| {
                runtime.block_on(async {
                    tokio::select! {
                        () = pings => {}
                        _ = stopped => {}
                    }
                });
            });
            let mut message = [0; 100];
            receiver.set_read_timeout(Some(Duration::from_millis(300)))?;
            let early = receiver.recv(&mut message).map_err(|error| error.kind());
            drop(held);
            receiver.set_read_timeout(Some(Duration::from_secs(10)))?;
            let later = receiver.recv(&mut message);
            drop(stop);
            assert_eq!(early, Err(io::ErrorKind::WouldBlock), "it is locked");
            assert_eq!(&message[..later?], b"WATCHDOG=1\n");
            Ok(())
        })
    }

    #[test]
    fn a_message_is_one_line_for_each_state_and_never_blocks() -> io::Result<()> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("notify");
        let receiver = UnixDatagram::bind(&path)?;
        let notifier = Notifier(Some(Notifier::open(path.as_os_str())?));
        notifier.tell(&[NotifyState::Ready, NotifyState::Status("/a\nMAINPID=1")])?;
        let mut message = [0; 100];
        let length = receiver.recv(&mut message)?;
        assert_eq!(&message[..length], b"READY=1\nSTATUS=/a MAINPID=1\n");

        let full = loop {
            if let Err(error) = notifier.tell(&[NotifyState::Watchdog]) {
                break error;
            }
        };
        assert_eq!(full.kind(), io::ErrorKind::WouldBlock);
        receiver.recv(&mut message)?;
        notifier.tell(&[NotifyState::Watchdog])?;
        Ok(())
    }

    #[test]
    fn an_abstract_socket_is_told_too() -> io::Result<()> {
        let name = format!("styxy-test-{}", std::process::id());
        let receiver = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name)?)?;
        let notifier = Notifier(Some(Notifier::open(OsStr::new(&format!("@{name}")))?));
        notifier.tell(&[NotifyState::Stopping])?;
        let mut message = [0; 100];
        assert_eq!(receiver.recv(&mut message)?, "STOPPING=1\n".len());
        Ok(())
    }
}
