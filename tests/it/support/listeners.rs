//! Sockets on ports: in this process, and in processes of their own.

use std::io::Read as _;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};

use socket2::{Domain, Protocol, Socket, Type};

use super::{PATIENCE, Running, eventually};

/// A program that listens on a TCP port until it is killed.
pub(crate) struct Serve;

impl Serve {
    /// Its Python text: listens on `argv[1]`, port `argv[2]`, says so, and waits.
    pub(crate) const SCRIPT: &str = "\
import signal, socket, sys
address, port = sys.argv[1], int(sys.argv[2])
family = socket.AF_INET6 if ':' in address else socket.AF_INET
server = socket.create_server((address, port), family=family)
print('ready', flush=True)
signal.pause()
";

    /// The arguments of `python3` that listen on 127.0.0.1.
    pub(crate) fn args(port: u16) -> [String; 4] {
        ["-c".into(), Self::SCRIPT.into(), "127.0.0.1".into(), port.to_string()]
    }
}

/// Adds "listen on 127.0.0.1:`port`" to a command that ends in `python3`, starts it, and returns
/// when it listens.
#[track_caller]
pub(crate) fn serve(command: &mut Command, port: u16) -> Running {
    command.args(Serve::args(port)).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut server = Running::spawn(command);
    assert_eq!(server.line(), "ready");
    server
}

/// A TCP socket of this process, bound to `address`, and listening if it should.
#[track_caller]
pub(crate) fn tcp_socket(address: &str, reuse_address: bool, listens: bool) -> Socket {
    let socket = bound(address, Type::STREAM, Protocol::TCP, reuse_address);
    if listens {
        socket.listen(8).expect("a bound socket can listen");
    }
    socket
}

/// A UDP socket of this process, bound to `address`.
#[track_caller]
pub(crate) fn udp_socket(address: &str, reuse_address: bool) -> Socket {
    bound(address, Type::DGRAM, Protocol::UDP, reuse_address)
}

#[track_caller]
fn bound(address: &str, kind: Type, protocol: Protocol, reuse_address: bool) -> Socket {
    let address: SocketAddr = address.parse().expect("an address and port");
    let socket = Socket::new(Domain::for_address(address), kind, Some(protocol));
    let socket = socket.expect("a socket");
    if address.is_ipv6() {
        socket.set_only_v6(true).expect("IPV6_V6ONLY");
    }
    socket.set_reuse_address(reuse_address).expect("SO_REUSEADDR");
    socket.bind(&address.into()).unwrap_or_else(|error| panic!("bind {address}: {error}"));
    socket
}

/// Serves one connection on the port, closes it first, and stops: the kernel keeps the connection
/// in TIME_WAIT (RFC 9293, section 3.3.2).
pub(crate) fn leave_time_wait(port: u16) {
    let listener = TcpListener::bind(("127.0.0.1", port)).expect("a free port");
    let mut client = TcpStream::connect(("127.0.0.1", port)).expect("a server");
    let (connection, _) = listener.accept().expect("a connection");
    drop(connection);
    let end = client.read(&mut [0]).expect("the end of the connection");
    assert_eq!(end, 0);
    drop(client);
    drop(listener);
    // A program that another test starts has this process's closed sockets until its execve(2).
    eventually(PATIENCE, || {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP));
        let socket = socket.expect("a socket");
        socket.set_reuse_address(true).expect("SO_REUSEADDR");
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        socket.bind(&address.into()).map_err(|error| error.to_string())
    });
    let strict = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).expect("a socket");
    let bind = strict.bind(&SocketAddr::from(([0, 0, 0, 0], port)).into());
    assert!(bind.is_err(), "no TIME_WAIT is left on port {port}");
}
