//! Who is at the other end of a unix socket (SO_PEERCRED, unix(7)).

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// The process at the other end, as the kernel noted it at connect(2) or listen(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Credentials {
    /// Its process id; `None` where it lives in a pid namespace that we cannot see into.
    pub pid: Option<u32>,
    /// Its effective user.
    pub uid: u32,
}

/// The process at the other end of a connected unix socket. Of a listener that was handed over,
/// that is whoever called listen(2): the user's service manager.
///
/// # Errors
///
/// What getsockopt(2) says; any other kind of socket has no credentials.
// rustix's and nix's types for this hold a pid that cannot be 0, and 0 is just what the kernel
// says of a process in another pid namespace.
#[expect(unsafe_code, reason = "getsockopt(2) into a plain struct")]
pub fn credentials(socket: impl AsFd) -> io::Result<Credentials> {
    let mut peer = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut length = libc::socklen_t::try_from(size_of::<libc::ucred>()).unwrap_or(0);
    // SAFETY: `peer` and `length` live through the call, `length` is the size of `peer`, and every
    // bit pattern is a valid ucred.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut peer).cast(),
            &raw mut length,
        )
    };
    if result == -1 {
        return Err(io::Error::last_os_error());
    }
    // A socket that is no unix socket answers with pid 0 and uid -1.
    if peer.uid == libc::uid_t::MAX {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    let pid = u32::try_from(peer.pid).ok().filter(|pid| *pid != 0);
    Ok(Credentials { pid, uid: peer.uid })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_unix_socket_knows_its_peer_and_a_tcp_socket_does_not() -> io::Result<()> {
        let (one, _other) = UnixStream::pair()?;
        let own = rustix::process::geteuid().as_raw();
        let expected = Credentials { pid: Some(std::process::id()), uid: own };
        assert_eq!(credentials(&one)?, expected);

        let listener = TcpListener::bind("127.0.0.1:0")?;
        let tcp = TcpStream::connect(listener.local_addr()?)?;
        assert!(credentials(&tcp).is_err());
        Ok(())
    }
}
