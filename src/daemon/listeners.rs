//! The sockets that the daemon serves: handed over by systemd, or bound by itself.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use listenfd::ListenFd;
use rustix::net::sockopt::socket_acceptconn;

use super::{Options, StartError};
use crate::api::{Protocol, SystemUsage};
use crate::detect::descriptors::close_inherited;
use crate::detect::holders::{self, Finder};
use crate::text::printable;

/// The sockets that systemd handed over (sd_listen_fds(3)), told apart by what they are: their
/// order differs between versions. Their names (`FileDescriptorName=` of systemd.socket(5)) decide
/// nothing. A unit of somebody's own may name its socket otherwise or not at all, and must be served
/// all the same; and a name could only say again, or wrongly, what the kernel says of the socket.
#[derive(Debug, Default)]
pub(super) struct Inherited {
    tcp: Vec<TcpListener>,
    unix: Vec<UnixListener>,
    /// What was handed over and cannot be served, a sentence each.
    pub(super) problems: Vec<String>,
}

/// The sockets that are served, ready to accept.
#[derive(Debug, Default)]
pub(super) struct Bound {
    pub(super) tcp: Vec<TcpListener>,
    pub(super) unix: Vec<UnixListener>,
    /// This process bound them: nobody else serves them.
    pub(super) is_own: bool,
    /// The path that this process made, and removes when it goes.
    pub(super) own_path: Option<OwnPath>,
}

/// A socket in the file system that this process made.
#[derive(Debug)]
pub(super) struct OwnPath {
    path: PathBuf,
    /// Device and inode, which no other socket gets as long as this one is open.
    identity: (u64, u64),
}

impl Inherited {
    /// Takes every socket that was handed over, and clears the environment that says so. One that
    /// is not served would activate the service again and again, so it is closed.
    ///
    /// `LISTEN_FDNAMES`, of which a person is told what can't be served, stays: without the other
    /// variables it means nothing, and the daemon starts no other program.
    pub(super) fn take() -> Self {
        let mut inherited = Self::default();
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut names = names.split(':');
        let mut descriptors = ListenFd::from_env();
        for index in 0..descriptors.len() {
            let name = names.next().unwrap_or("unknown");
            if let Ok(Some(listener)) = descriptors.take_tcp_listener(index)
                && socket_acceptconn(&listener) == Ok(true)
            {
                inherited.tcp.push(listener);
            } else if let Ok(Some(listener)) = descriptors.take_unix_listener(index)
                && socket_acceptconn(&listener) == Ok(true)
            {
                inherited.unix.push(listener);
            } else {
                if let Ok(Some(descriptor)) = descriptors.take_raw_fd(index) {
                    close_inherited(descriptor);
                }
                let problem = format!("the descriptor '{name}' is no TCP or unix stream listener");
                inherited.problems.push(problem);
            }
        }
        inherited
    }

    pub(super) fn is_some(&self) -> bool {
        !self.tcp.is_empty() || !self.unix.is_empty()
    }

    /// The TCP ports among them.
    pub(super) fn tcp_ports(&self) -> Vec<u16> {
        self.tcp.iter().filter_map(|it| it.local_addr().ok()).map(|it| it.port()).collect()
    }

    pub(super) fn into_bound(self) -> Bound {
        Bound { tcp: self.tcp, unix: self.unix, is_own: false, own_path: None }
    }
}

impl Bound {
    /// Binds what the options or the configuration say. What could not be bound and need not be is
    /// told, a sentence each.
    pub(super) fn bind(
        options: &Options,
        listen: SocketAddr,
        socket: &Path,
    ) -> Result<(Self, Vec<String>), StartError> {
        let mut bound = Self { is_own: true, ..Self::default() };
        let mut problems = Vec::new();
        match TcpListener::bind(listen) {
            Ok(listener) => {
                queue(&listener);
                bound.tcp.push(listener);
            }
            Err(error) => {
                let holder = (error.kind() == io::ErrorKind::AddrInUse)
                    .then(|| holders::usage(&Finder::default(), listen.port(), Protocol::Tcp).ok())
                    .flatten()
                    .flatten()
                    .map(|usage| holder_name(&usage));
                // By hand means: this one or none. A client's wish is not by hand.
                if options.listen.is_some() && !options.background {
                    return Err(match error.kind() {
                        io::ErrorKind::AddrInUse => {
                            StartError::AddressTaken { address: listen.to_string(), holder }
                        }
                        _ => StartError::Machine("can't listen", error),
                    });
                }
                problems.push(match holder {
                    Some(holder) => {
                        format!("{listen} is taken by {holder}: only the unix socket is served")
                    }
                    None => format!(
                        "can't listen on {listen} ({error}): only the unix socket is served"
                    ),
                });
            }
        }
        let socket = options.socket.as_deref().unwrap_or(socket);
        match bind_unix(socket) {
            Ok((listener, own_path)) => {
                bound.unix.push(listener);
                bound.own_path = Some(own_path);
            }
            Err(error) => problems.push(format!("can't listen on {}: {error}", socket.display())),
        }
        if bound.tcp.is_empty() && bound.unix.is_empty() {
            return Err(StartError::NoListener(problems.join("; ")));
        }
        Ok((bound, problems))
    }

    /// The addresses, as `/status` shows them.
    pub(super) fn addresses(&self) -> Vec<String> {
        let tcp = self.tcp.iter().filter_map(|it| it.local_addr().ok()).map(|it| it.to_string());
        let unix = self
            .unix
            .iter()
            .filter_map(|it| it.local_addr().ok())
            .filter_map(|it| it.as_pathname().map(|path| format!("unix:{}", path.display())));
        tcp.chain(unix).collect()
    }
}

impl OwnPath {
    /// Removes it, unless another socket has its place by now: systemd puts its own there. Called
    /// while the socket is open.
    pub(super) fn remove(&self) {
        let is_there = std::fs::symlink_metadata(&self.path)
            .is_ok_and(|found| (found.dev(), found.ino()) == self.identity);
        if is_there && let Err(error) = std::fs::remove_file(&self.path) {
            tracing::debug!("{}: {error}", self.path.display());
        }
    }
}

/// Who holds a port, in a few words.
fn holder_name(usage: &SystemUsage) -> String {
    match &usage.process {
        Some(process) => format!("{} (pid {})", printable(&process.name), process.pid),
        None => format!("a process of uid {}", usage.uid),
    }
}

/// Lets as many clients wait as the kernel allows (listen(2), net.core.somaxconn): a TCP client that
/// finds no place tries again only after a second. The library asks for 128.
fn queue(listener: impl AsFd) {
    // The listener is one already; where this is refused its queue stays as it was.
    if let Err(error) = rustix::net::listen(listener, i32::MAX) {
        tracing::debug!("listen(2) again: {error}");
    }
}

/// Binds a unix socket that only this user can reach. A path that a dead daemon left behind is
/// taken over; the lock on the state says that no living one of ours uses it.
fn bind_unix(path: &Path) -> io::Result<(UnixListener, OwnPath)> {
    if let Some(directory) = path.parent() {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    }
    let listener = match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            if UnixStream::connect(path).is_ok() {
                return Err(io::Error::new(error.kind(), "another program listens there"));
            }
            std::fs::remove_file(path)?;
            UnixListener::bind(path)?
        }
        bound => bound?,
    };
    queue(&listener);
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    let made = std::fs::symlink_metadata(path)?;
    Ok((listener, OwnPath { path: path.to_owned(), identity: (made.dev(), made.ino()) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_removed_only_while_it_is_its_own() -> io::Result<()> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("styxy/styxy.sock");
        let (_listener, own) = bind_unix(&path)?;
        assert!(bind_unix(&path).is_err(), "somebody listens there");
        // As systemd does it.
        std::fs::remove_file(&path)?;
        let systemd = UnixListener::bind(&path)?;
        own.remove();
        assert!(path.exists(), "it is systemd's");

        drop(systemd);
        let (_listener, own) = bind_unix(&path)?;
        own.remove();
        assert!(!path.exists());
        Ok(())
    }
}
