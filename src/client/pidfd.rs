//! Waiting for the end of a process by its pidfd (pidfd_open(2), Linux 5.3).

use std::io;
use std::os::fd::OwnedFd;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// A pidfd of the process `pid`; `None` where the kernel has none for us.
///
/// # Errors
///
/// `ESRCH` when there is no such process (any more).
pub(super) fn open(pid: u32) -> io::Result<Option<OwnedFd>> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(Errno::SRCH)?;
    match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(pidfd) => Ok(Some(pidfd)),
        // Older kernels, and sandboxes that refuse what they do not know.
        Err(Errno::NOSYS | Errno::PERM) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Waits until the process has ended; false at the deadline.
pub(super) fn wait(pidfd: &OwnedFd, deadline: Instant) -> io::Result<bool> {
    wait_any(&mut [PollFd::new(pidfd, PollFlags::IN)], deadline)
}

/// Waits until one of `fds` is ready; false at the deadline.
pub(super) fn wait_any(fds: &mut [PollFd<'_>], deadline: Instant) -> io::Result<bool> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).map_err(io::Error::other)?;
        match poll(fds, Some(&timeout)) {
            Ok(ready) => return Ok(ready > 0),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
