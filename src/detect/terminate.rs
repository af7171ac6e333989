//! Ending another process of this user: that very one, and no other that got its pid.

use std::io;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Signal, pidfd_send_signal};

use super::process;
use crate::registry::Process;

/// What became of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Termination {
    /// It had ended before.
    Absent,
    /// It has ended.
    Ended,
    /// It was told to end and had not done so in time.
    Lingers,
}

/// Sends SIGTERM to that very process and waits up to `patience` for its end.
///
/// # Errors
///
/// What pidfd_send_signal(2) and poll(2) say; `Unsupported` where there is no pidfd: the signal
/// could hit another process that got the pid meanwhile.
pub fn terminate(process: Process, patience: Duration) -> io::Result<Termination> {
    let found = process::identify(process.pid).ok().filter(|found| found.process == process);
    let Some(found) = found else { return Ok(Termination::Absent) };
    let pidfd = found.pidfd.ok_or(io::ErrorKind::Unsupported)?;
    match pidfd_send_signal(&pidfd, Signal::TERM) {
        Ok(()) => {}
        Err(Errno::SRCH) => return Ok(Termination::Absent),
        Err(error) => return Err(error.into()),
    }
    let deadline = Instant::now() + patience;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).map_err(io::Error::other)?;
        match poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&left)) {
            Ok(0) => return Ok(Termination::Lingers),
            Ok(_) => return Ok(Termination::Ended),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;
    use std::process::{Command, Stdio};

    #[test]
    fn it_ends_that_very_process_and_no_other() -> Result<(), Box<dyn std::error::Error>> {
        let mut child = Command::new("sleep").arg("60").spawn()?;
        let process = process::identify(child.id())?.process;
        let later = Process { start_ticks: process.start_ticks + 1, ..process };
        let patience = Duration::from_secs(10);

        assert_eq!(terminate(later, patience)?, Termination::Absent, "a recycled pid");
        assert!(child.try_wait()?.is_none(), "it lives");
        assert_eq!(terminate(process, patience)?, Termination::Ended);
        child.wait()?;
        assert_eq!(terminate(process, patience)?, Termination::Absent);
        Ok(())
    }

    #[test]
    fn it_does_not_wait_for_ever() -> Result<(), Box<dyn std::error::Error>> {
        // It says when it no longer heeds the signal.
        let script = "trap '' TERM; echo; read _";
        let mut child = Command::new("sh")
            .args(["-c", script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = [0];
        child.stdout.take().ok_or("a pipe")?.read_exact(&mut line)?;
        let process = process::identify(child.id())?.process;
        assert_eq!(terminate(process, Duration::from_millis(1))?, Termination::Lingers);
        child.kill()?;
        child.wait()?;
        Ok(())
    }
}
