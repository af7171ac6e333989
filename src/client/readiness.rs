//! Hearing from a daemon that starts: the other end of sd_notify(3).

use std::fs;
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::Instant;

use rustix::event::{PollFd, PollFlags};

use super::pidfd;

/// Where the daemon says that it is ready, or why it can't be.
#[derive(Debug)]
pub(super) struct Readiness {
    socket: UnixDatagram,
    path: PathBuf,
    status: Option<String>,
}

impl Readiness {
    /// Listens at `path` for as long as this lives. What an earlier starter left there is removed:
    /// only one starts at a time. No abstract socket, because not everybody who speaks this
    /// protocol knows those.
    pub(super) fn new(path: PathBuf) -> io::Result<Self> {
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let socket = UnixDatagram::bind(&path)?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket, path, status: None })
    }

    /// The value of `NOTIFY_SOCKET` for the daemon.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Waits until the daemon says that it is ready.
    ///
    /// # Errors
    ///
    /// A clause: it ended, with the reason that it gave, or the deadline came first.
    pub(super) fn wait(
        &mut self,
        daemon: Option<&OwnedFd>,
        deadline: Instant,
    ) -> Result<(), String> {
        loop {
            let mut fds = vec![PollFd::new(&self.socket, PollFlags::IN)];
            fds.extend(daemon.map(|pidfd| PollFd::new(pidfd, PollFlags::IN)));
            let in_time = pidfd::wait_any(&mut fds, deadline).map_err(|error| error.to_string())?;
            let ended = fds.get(1).is_some_and(|pidfd| !pidfd.revents().is_empty());
            drop(fds);
            // Whoever has ended may have said why before.
            if self.hear() {
                return Ok(());
            }
            if ended || !in_time {
                return Err(self.complaint(ended));
            }
        }
    }

    /// Reads what has been said; true once it is `READY=1`.
    fn hear(&mut self) -> bool {
        let mut message = [0; 4096];
        // Nothing more to hear is the only error that there is here.
        while let Ok(length) = self.socket.recv(&mut message) {
            let text = String::from_utf8_lossy(&message[..length]);
            for line in text.lines() {
                match line.split_once('=') {
                    Some(("READY", "1")) => return true,
                    Some(("STATUS", status)) => self.status = Some(status.to_owned()),
                    _ => {}
                }
            }
        }
        false
    }

    /// Why the daemon is not ready.
    pub(super) fn complaint(&self, ended: bool) -> String {
        match (&self.status, ended) {
            (Some(status), true) => status.clone(),
            (None, true) => "it ended without a word".to_owned(),
            (Some(status), false) => format!("it is not ready in time: {status}"),
            (None, false) => "it is not ready in time".to_owned(),
        }
    }
}

impl Drop for Readiness {
    fn drop(&mut self) {
        // Whoever starts next removes what stays.
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Child, Command};
    use std::time::Duration;

    fn readiness() -> io::Result<(Readiness, tempfile::TempDir)> {
        let dir = tempfile::tempdir()?;
        Ok((Readiness::new(dir.path().join("start.sock"))?, dir))
    }

    fn say(readiness: &Readiness, message: &str) -> io::Result<()> {
        UnixDatagram::unbound()?.send_to(message.as_bytes(), readiness.path())?;
        Ok(())
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(10)
    }

    fn process(program: &str, argument: &str) -> io::Result<(Child, OwnedFd)> {
        let child = Command::new(program).arg(argument).spawn()?;
        let pidfd = pidfd::open(child.id())?.expect("this kernel has pidfds");
        Ok((child, pidfd))
    }

    #[test]
    fn a_ready_daemon_is_heard_after_its_progress() -> io::Result<()> {
        let (mut readiness, _dir) = readiness()?;
        say(&readiness, "STATUS=replaying")?;
        say(&readiness, "READY=1\nSTATUS=serving")?;
        assert_eq!(readiness.wait(None, soon()), Ok(()));
        Ok(())
    }

    #[test]
    fn the_reason_of_a_daemon_that_ended_is_told() -> io::Result<()> {
        let (mut readiness, _dir) = readiness()?;
        let (mut child, pidfd) = process("true", "")?;
        child.wait()?;
        say(&readiness, "STATUS=the state can't be written: no space left on device\nERRNO=28")?;
        let heard = readiness.wait(Some(&pidfd), soon());
        assert_eq!(heard, Err("the state can't be written: no space left on device".to_owned()));
        Ok(())
    }

    #[test]
    fn a_daemon_that_ends_silently_is_not_waited_for() -> io::Result<()> {
        let (mut readiness, _dir) = readiness()?;
        let (mut child, pidfd) = process("sleep", "0.01")?;
        let heard = readiness.wait(Some(&pidfd), soon());
        assert_eq!(heard, Err("it ended without a word".to_owned()));
        child.wait()?;
        Ok(())
    }

    #[test]
    fn what_a_killed_starter_left_is_no_obstacle() -> io::Result<()> {
        let (readiness, dir) = readiness()?;
        std::mem::forget(readiness);
        drop(Readiness::new(dir.path().join("start.sock"))?);
        assert_eq!(fs::read_dir(dir.path())?.count(), 0, "nothing stays");
        Ok(())
    }

    #[test]
    fn the_deadline_ends_the_wait() -> io::Result<()> {
        let (mut readiness, _dir) = readiness()?;
        let (mut child, pidfd) = process("sleep", "60")?;
        let heard = readiness.wait(Some(&pidfd), Instant::now());
        assert_eq!(heard, Err("it is not ready in time".to_owned()));
        child.kill()?;
        child.wait()?;
        Ok(())
    }
}
