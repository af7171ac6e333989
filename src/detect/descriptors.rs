//! The three things about descriptors that no safe interface does.

use std::io;
use std::os::fd::{OwnedFd, RawFd};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Closes every descriptor from `first` on: close_range(2), Linux 5.9.
///
/// Only for the very beginning of a process, before it has opened anything: an open file would be
/// closed under whoever uses it.
///
/// # Errors
///
/// What the system call says.
#[expect(unsafe_code, reason = "no crate here wraps close_range(2)")]
pub fn close_from(first: u32) -> io::Result<()> {
    // SAFETY: no memory is touched, and nothing of this process uses a descriptor yet.
    let done = unsafe { libc::close_range(first, libc::c_uint::MAX, 0) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Closes a descriptor that this process was handed over (sd_listen_fds(3)) and has no use for.
#[expect(unsafe_code, reason = "an inherited descriptor is a mere number")]
pub fn close_inherited(descriptor: RawFd) {
    // SAFETY: it was handed over to this process, and nothing here has taken it. If it was never
    // open, EBADF does no harm.
    unsafe { libc::close(descriptor) };
}

/// Lets the runtime wait until a descriptor is readable. Called within the runtime.
///
/// # Errors
///
/// What epoll_ctl(2) says.
#[expect(unsafe_code, reason = "tokio asks its callers to vouch for the descriptor")]
pub fn readable(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd is open, is always the same, and closes only when it is dropped, which
    // the AsyncFd that owns it from now on decides.
    Ok(unsafe { AsyncFd::register_with_interest(descriptor, Interest::READABLE) }?)
}
