use std::io::Read;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;

use rustix::io::FdFlags;
use rustix::thread::{CapabilitySet, CapabilitySets};
use socket2::{Domain, Socket, Type};

use super::*;
use crate::detect::sockets::testing::{free_port, listen, without_ipv6, without_netlink};
use crate::detect::testing::until;
use crate::testing::skip;

const ADDRESSES: [&str; 6] = ["127.0.0.1", "127.0.0.2", "0.0.0.0", "::1", "::", "::ffff:127.0.0.1"];

/// How a program prepares its socket.
#[derive(Debug, Clone, Copy)]
struct Options {
    reuse_address: bool,
    reuse_port: bool,
    v6_only: bool,
}

const ALL_OPTIONS: [Options; 8] = {
    let mut all = [Options { reuse_address: false, reuse_port: false, v6_only: false }; 8];
    let mut i = 0;
    while i < 8 {
        all[i] = Options { reuse_address: i & 1 != 0, reuse_port: i & 2 != 0, v6_only: i & 4 != 0 };
        i += 1;
    }
    all
};

/// A bound socket, or none where the options do not allow the address: an IPv6-only socket has no
/// IPv4 address.
fn bound(kind: Type, ip: &str, port: u16, options: Options) -> Option<Socket> {
    let address = SocketAddr::new(ip.parse().expect("an address"), port);
    let socket = Socket::new(Domain::for_address(address), kind, None).expect("a socket");
    if address.is_ipv6() {
        socket.set_only_v6(options.v6_only).expect("IPV6_V6ONLY");
    }
    socket.set_reuse_address(options.reuse_address).expect("SO_REUSEADDR");
    sockopt::set_socket_reuseport(&socket, options.reuse_port).expect("SO_REUSEPORT");
    socket.bind(&address.into()).is_ok().then_some(socket)
}

/// Another test's fork keeps a closed socket open until its exec, so free may need a moment.
fn eventually_free(port: u16, protocol: Protocol, case: &str) {
    until(&format!("{case}: {protocol:?} is free"), || probe(port, protocol) == Probe::Free);
}

#[test]
fn any_socket_at_any_address_takes_the_port() {
    let mut seen = 0;
    for address in ADDRESSES {
        for options in ALL_OPTIONS {
            let port = free_port();
            if let Some(socket) = bound(Type::STREAM, address, port, options) {
                let case = format!("TCP {address} {options:?}");
                assert_eq!(probe(port, Protocol::Tcp), Probe::Taken, "{case} bound");
                socket.listen(1).expect("a listener");
                assert_eq!(probe(port, Protocol::Tcp), Probe::Taken, "{case} listening");
                assert_eq!(probe(port, Protocol::Both), Probe::Taken, "{case} listening");
                eventually_free(port, Protocol::Udp, &case);
                seen += 1;
            }
            if let Some(_socket) = bound(Type::DGRAM, address, port, options) {
                let case = format!("UDP {address} {options:?}");
                assert_eq!(probe(port, Protocol::Udp), Probe::Taken, "{case}");
                assert_eq!(probe(port, Protocol::Both), Probe::Taken, "{case}");
                eventually_free(port, Protocol::Tcp, &case);
                seen += 1;
            }
        }
    }
    assert!(seen > 80, "only {seen} of the sockets could be made");
}

#[test]
fn a_socket_that_was_made_before_sees_what_has_come_since() {
    let mut prober = Prober::default();
    for address in ADDRESSES {
        let port = free_port();
        prober.prepare();
        let server = bound(Type::STREAM, address, port, ALL_OPTIONS[0]).expect("it is free");
        assert_eq!(prober.probe(port, Protocol::Udp), Probe::Free);
        assert!(prober.spare.is_some(), "it is TCP's");
        assert_eq!(prober.probe(port, Protocol::Both), Probe::Taken, "{address}");
        drop(server);
        until(address, || {
            prober.prepare();
            prober.probe(port, Protocol::Both) == Probe::Free
        });
        let left_behind = stopped_server("127.0.0.1");
        prober.prepare();
        assert_eq!(prober.probe(left_behind, Protocol::Tcp), Probe::Free);
        assert!(prober.spare.is_none(), "it was bound");
    }
}

#[test]
fn a_client_takes_the_port_that_it_connects_from() {
    let (client, _server, _listener) = connection();
    let port = client.local_addr().expect("a name").port();
    assert_eq!(probe(port, Protocol::Tcp), Probe::Taken);
    assert!(TcpListener::bind(("0.0.0.0", port)).is_err(), "a server is refused too");
}

#[test]
fn a_port_is_free_when_its_server_has_just_stopped() {
    for address in ["127.0.0.1", "::1", "::"] {
        let port = stopped_server(address);
        assert_eq!(strict(port).err(), Some(Errno::ADDRINUSE), "{address} left nothing behind");
        assert_eq!(probe(port, Protocol::Tcp), Probe::Free, "{address}");

        let held = hold(port, Protocol::Both).expect("the port is free");
        assert_eq!(held.len(), 2);
        assert_eq!(probe(port, Protocol::Tcp), Probe::Taken, "{address} held");
        drop(held);

        let server = TcpListener::bind(("0.0.0.0", port)).expect("a server can start");
        assert_eq!(probe(port, Protocol::Tcp), Probe::Taken, "{address} started again");
        drop(server);
        assert_eq!(probe(port, Protocol::Tcp), Probe::Free, "{address} stopped again");
    }
}

#[test]
fn a_bound_socket_among_leftovers_takes_the_port() {
    let port = stopped_server("127.0.0.1");
    let options = Options { reuse_address: true, reuse_port: false, v6_only: false };
    let _socket = bound(Type::STREAM, "127.0.0.2", port, options).expect("a bound socket");
    let alone = claim(port, SocketType::STREAM, IfInUse::Reuse, None);
    assert!(alone.is_ok(), "a bind alone does not see it");
    drop(alone);
    // TCP_BOUND_INACTIVE.
    if kernel_is_at_least(6, 8) {
        assert_eq!(probe(port, Protocol::Tcp), Probe::Taken);
    }
}

#[test]
fn leftovers_of_a_server_that_does_not_reuse_its_address_keep_the_port() {
    let options = Options { reuse_address: false, reuse_port: false, v6_only: false };
    let port = free_port();
    let socket = bound(Type::STREAM, "127.0.0.1", port, options).expect("a socket");
    socket.listen(1).expect("a listener");
    leave_connection_behind(&socket.into());
    assert_eq!(probe(port, Protocol::Tcp), Probe::Taken);
    assert!(TcpListener::bind(("0.0.0.0", port)).is_err(), "a server is refused too");
}

#[test]
fn open_connections_of_a_server_that_listens_no_more_leave_the_port_free() {
    let (_client, _server, listener) = connection();
    let port = port_of(&listener);
    assert_eq!(probe(port, Protocol::Tcp), Probe::Taken);
    drop(listener);
    assert_eq!(probe(port, Protocol::Tcp), Probe::Free);
    TcpListener::bind(("0.0.0.0", port)).expect("a server can start");
}

#[test]
fn a_held_port_is_closed_to_servers_and_clients_until_it_is_dropped() {
    let port = free_port();
    let held = hold(port, Protocol::Both).expect("the port is free");
    for socket in &held {
        let flags = rustix::io::fcntl_getfd(socket).expect("flags");
        assert!(flags.contains(FdFlags::CLOEXEC), "execve would pass the socket on");
    }
    assert!(TcpListener::bind(("127.0.0.1", port)).is_err());
    assert!(TcpListener::bind(("::1", port)).is_err());
    assert!(UdpSocket::bind(("127.0.0.1", port)).is_err());
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err());
    assert_eq!(hold(port, Protocol::Tcp).err(), Some(Probe::Taken));
    drop(held);
    TcpListener::bind(("127.0.0.1", port)).expect("a server can start");
}

#[test]
fn a_privileged_port_is_forbidden() {
    let lowest = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start")
        .map_or(1024, |text| text.trim().parse().expect("a number"));
    if lowest < 2 {
        return skip("everybody may bind every port");
    }
    thread::scope(|scope| {
        scope.spawn(|| {
            // Capabilities belong to the thread.
            let none = CapabilitySet::empty();
            let sets = CapabilitySets { effective: none, permitted: none, inheritable: none };
            rustix::thread::set_capabilities(None, sets).expect("privileges can be given up");
            for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Both] {
                assert_eq!(probe(1, protocol), Probe::Forbidden);
            }
        });
    });
}

#[test]
fn what_cannot_be_tried_is_taken() {
    for error in [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM, Errno::AFNOSUPPORT] {
        assert_eq!(answer(1, error), Probe::Taken);
    }
    assert_eq!(answer(1, Errno::PERM), Probe::Forbidden);
}

#[test]
fn a_kernel_without_ipv6_is_probed_in_ipv4() {
    let stopped = stopped_server("127.0.0.1");
    let listener = listen("127.0.0.2");
    let udp = free_port();
    let _datagrams = UdpSocket::bind(("127.0.0.2", udp)).expect("a socket");
    without_ipv6(|| {
        assert!(TcpListener::bind("[::1]:0").is_err(), "IPv6 is not refused");
        assert_eq!(probe(stopped, Protocol::Both), Probe::Free);
        assert_eq!(probe(port_of(&listener), Protocol::Tcp), Probe::Taken);
        assert_eq!(probe(udp, Protocol::Udp), Probe::Taken);
    });
}

#[test]
fn a_stopped_server_is_recognised_without_netlink() {
    let stopped = stopped_server("127.0.0.1");
    let listener = listen("::1");
    without_netlink(|| {
        assert_eq!(probe(stopped, Protocol::Tcp), Probe::Free);
        assert_eq!(probe(port_of(&listener), Protocol::Tcp), Probe::Taken);
    });
}

fn port_of(listener: &TcpListener) -> u16 {
    listener.local_addr().expect("a name").port()
}

fn strict(port: u16) -> rustix::io::Result<OwnedFd> {
    claim(port, SocketType::STREAM, IfInUse::Fail, None).map(|claim| claim.socket)
}

/// The client's end, the server's end and the listener.
fn connection() -> (TcpStream, TcpStream, TcpListener) {
    let listener = listen("127.0.0.1");
    let (client, server) = connect(&listener);
    (client, server, listener)
}

fn connect(listener: &TcpListener) -> (TcpStream, TcpStream) {
    let name = listener.local_addr().expect("a name");
    let client = TcpStream::connect(name).expect("a client");
    let (server, _) = listener.accept().expect("a connection");
    (client, server)
}

/// The port of a server that had a client, closed first, and ended.
fn stopped_server(ip: &str) -> u16 {
    let listener = listen(ip);
    leave_connection_behind(&listener);
    port_of(&listener)
}

/// Leaves a connection in TIME_WAIT on the listener's port: that is the fate of whoever closes
/// first (RFC 9293, 3.6).
fn leave_connection_behind(listener: &TcpListener) {
    let (mut client, server) = connect(listener);
    server.shutdown(Shutdown::Write).expect("the server closes first");
    assert_eq!(client.read(&mut [0]).expect("the client sees it"), 0);
    drop(server);
    drop(client);
}

fn kernel_is_at_least(major: u32, minor: u32) -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("a release");
    let mut parts = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    (parts.next(), parts.next()) >= (Some(major), Some(minor))
}
