use std::io::Read;
use std::net::{IpAddr, Shutdown, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::fstat;
use rustix::process::{Resource, Rlimit, getrlimit, getuid, setrlimit};
use rustix::thread::set_thread_res_uid;
use socket2::{Domain, Socket as Plain, Type};

use super::testing::{free_port, listen, without_netlink};
use super::*;
use crate::detect::testing::until;
use crate::testing::skip;

/// Nobody's uid on most systems; any other than ours will do.
const OTHER_USER: u32 = 65534;

fn inode(socket: impl AsFd) -> u64 {
    fstat(socket).expect("an inode").st_ino
}

fn inodes(sockets: &[Socket]) -> Vec<u64> {
    let mut inodes: Vec<u64> = sockets.iter().map(|socket| socket.inode).collect();
    inodes.sort_unstable();
    inodes
}

/// Asks both sources.
fn both_ways<T: Send + PartialEq + std::fmt::Debug>(question: impl Fn() -> T + Sync) -> T {
    let answer = question();
    assert_eq!(without_netlink(&question), answer, "netlink (right) and /proc/net (left) differ");
    answer
}

#[test]
fn a_listener_is_listed_with_its_address_its_user_and_its_inode() {
    let port = free_port();
    for ip in ["127.0.0.1", "0.0.0.0", "::1", "::", "::ffff:127.0.0.1"] {
        let ip: IpAddr = ip.parse().expect("an address");
        let listener = TcpListener::bind((ip, port)).expect("a listener");
        let expected = Socket {
            protocol: Protocol::Tcp,
            local: SocketAddr::new(ip, port),
            uid: getuid().as_raw(),
            inode: inode(&listener),
        };
        for protocol in [Protocol::Tcp, Protocol::Both] {
            assert_eq!(both_ways(|| on_port(port, protocol).expect("rows")), [expected]);
        }
        assert!(all(Protocol::Tcp).expect("rows").contains(&expected));
        assert_eq!(on_port(port, Protocol::Udp).expect("rows"), []);
    }
}

#[test]
fn the_sockets_of_many_ports_are_listed_at_once() {
    let mut listeners: Vec<_> = (0..100)
        .map(|index| {
            let ip = ["127.0.0.1", "::1", "::"][index % 3];
            listen(ip)
        })
        .collect();
    let datagrams = UdpSocket::bind(("::1", free_port())).expect("a socket");
    let port = |listener: &TcpListener| listener.local_addr().expect("a name").port();
    listeners.sort_by_key(port);
    for step in [1, 7, 50] {
        let wanted = || listeners.iter().step_by(step);
        let ports: Vec<u16> = wanted().map(port).collect();
        let listed = |ports: &[u16]| {
            let mut sockets = on_ports(ports.iter().copied(), Protocol::Both).expect("rows");
            sockets.retain(|socket| ports.contains(&socket.local.port()));
            inodes(&sockets)
        };
        let mut expected: Vec<u64> = wanted().map(inode).collect();
        expected.sort_unstable();
        until("netlink lists them", || listed(&ports) == expected);
        until("/proc/net lists them", || without_netlink(|| listed(&ports)) == expected);
    }
    let port = datagrams.local_addr().expect("a name").port();
    let found = both_ways(|| on_ports([port], Protocol::Both).expect("rows"));
    assert_eq!(inodes(&found), [inode(&datagrams)], "and nothing that is on other ports");
    assert_eq!(on_ports([], Protocol::Both).expect("nothing to ask"), []);
}

#[test]
fn a_bound_udp_socket_is_listed_connected_or_not() {
    let port = free_port();
    for ip in ["127.0.0.1", "::1"] {
        let socket = UdpSocket::bind((ip, port)).expect("a socket");
        let expected = Socket {
            protocol: Protocol::Udp,
            local: socket.local_addr().expect("a name"),
            uid: getuid().as_raw(),
            inode: inode(&socket),
        };
        assert_eq!(both_ways(|| on_port(port, Protocol::Udp).expect("rows")), [expected]);
        socket.connect((ip, 9)).expect("a UDP socket connects to nobody");
        assert_eq!(both_ways(|| on_port(port, Protocol::Both).expect("rows")), [expected]);
        assert!(all(Protocol::Udp).expect("rows").contains(&expected));
        assert_eq!(on_port(port, Protocol::Tcp).expect("rows"), []);
    }
}

#[test]
fn a_connection_and_a_socket_that_only_is_bound_are_no_listeners() {
    let (client, _server) = connect(&listen("127.0.0.1"), client_socket(Domain::IPV4));
    let port = client.local_addr().expect("a name").port();
    assert_eq!(both_ways(|| on_port(port, Protocol::Tcp).expect("rows")), []);

    let bound = client_socket(Domain::IPV4);
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
    bound.bind(&address.into()).expect("a bound socket");
    assert_eq!(both_ways(|| on_port(address.port(), Protocol::Tcp).expect("rows")), []);
}

#[test]
fn a_listener_of_multipath_tcp_is_listed() {
    // IPPROTO_MPTCP: what servers written in Go use since Go 1.24.
    let Ok(socket) = Plain::new(Domain::IPV4, Type::STREAM, Some(262.into())) else { return };
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
    socket.bind(&address.into()).expect("a bound socket");
    socket.listen(1).expect("a listener");
    let listed = both_ways(|| on_port(address.port(), Protocol::Tcp).expect("rows"));
    assert_eq!(inodes(&listed), [inode(&socket)], "a process is found by this inode");
}

#[test]
fn more_listeners_than_one_buffer_holds_are_all_listed_once() {
    let listeners: Vec<TcpListener> = (0..400).map(|_| listen("127.0.0.1")).collect();
    let mut expected: Vec<u64> = listeners.iter().map(inode).collect();
    expected.sort_unstable();
    let ours = || {
        let mut listed = all(Protocol::Tcp).expect("rows");
        listed.retain(|socket| expected.binary_search(&socket.inode).is_ok());
        inodes(&listed)
    };
    // Where other tests' sockets come or go between two parts of a list, it may lack one.
    until("netlink lists all", || ours() == expected);
    until("/proc/net lists all", || without_netlink(ours) == expected);
}

#[test]
fn the_user_at_the_other_end_is_known() {
    // The listener's address, and the client's: the last two are IPv4 on IPv6 sockets.
    for (listening, calling) in [
        ("127.0.0.1", "127.0.0.1"),
        ("::1", "::1"),
        ("::", "127.0.0.1"),
        ("::", "::ffff:127.0.0.1"),
    ] {
        let listener = listen(listening);
        let ip: IpAddr = calling.parse().expect("an address");
        let to = SocketAddr::new(ip, listener.local_addr().expect("a name").port());
        for user in [getuid().as_raw(), OTHER_USER] {
            let Some(client) = connect_as(user, to) else { continue };
            let (server, peer) = listener.accept().expect("a connection");
            let local = server.local_addr().expect("a name");
            let said = both_ways(|| peer_uid(local, peer).expect("an answer"));
            assert_eq!(said, Some(user), "{calling} to {listening}");
            // The other way round it is our own end.
            let said = both_ways(|| peer_uid(peer, local).expect("an answer"));
            assert_eq!(said, Some(getuid().as_raw()));
            drop(client);
        }
    }
}

#[test]
fn a_client_that_is_bound_to_its_device_is_known() {
    let listener = listen("127.0.0.1");
    let client = client_socket(Domain::IPV4);
    if client.bind_device(Some(b"lo")).is_err() {
        return skip("a socket cannot be bound to a device");
    }
    let (_client, server) = connect(&listener, client);
    let (local, peer) = (server.local_addr(), server.peer_addr());
    let said = peer_uid(local.expect("a name"), peer.expect("a name")).expect("an answer");
    assert_eq!(said, Some(getuid().as_raw()));
}

#[test]
fn a_client_that_has_closed_is_nobody() {
    let (client, mut server) = connect(&listen("127.0.0.1"), client_socket(Domain::IPV4));
    let (local, peer) = ends(&server);
    // FIN_WAIT2: the kernel lists it as root's, with inode 0.
    drop(client);
    assert_eq!(server.read(&mut [0]).expect("the client's end"), 0);
    assert_eq!(both_ways(|| peer_uid(local, peer).expect("an answer")), None);
    // TIME_WAIT.
    drop(server);
    assert_eq!(both_ways(|| peer_uid(local, peer).expect("an answer")), None);
}

#[test]
fn a_listener_on_the_port_of_a_client_that_is_gone_is_not_taken_for_it() {
    let gone = || {
        let client = client_socket(Domain::IPV4);
        client.set_reuse_address(true).expect("SO_REUSEADDR");
        client.set_linger(Some(Duration::ZERO)).expect("SO_LINGER");
        let (client, server) = connect(&listen("127.0.0.1"), client);
        let (local, peer) = ends(&server);
        drop(client);
        // Somebody else's connection may have got the port in the meantime.
        Some((local, peer, TcpListener::bind(peer).ok()?))
    };
    let (local, peer, _listener) = (0..50).find_map(|_| gone()).expect("a listener there");
    assert_eq!(both_ways(|| peer_uid(local, peer).expect("an answer")), None);
}

#[test]
fn ends_of_two_families_belong_to_no_connection() {
    let ipv6 = SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], 1));
    assert_eq!(peer_uid(ipv6, SocketAddr::from(([127, 0, 0, 1], 1))).expect("an answer"), None);
}

#[test]
fn connections_alone_are_told_from_sockets_that_take_the_port() {
    let listener = listen("127.0.0.1");
    let port = listener.local_addr().expect("a name").port();
    let own = client_socket(Domain::IPV4);
    let alone = || both_ways(|| only_connections(port, &own).expect("rows"));
    assert!(!alone(), "a listener and no connection");
    let (client, server) = connect(&listener, client_socket(Domain::IPV4));
    assert!(!alone(), "a listener");
    drop(listener);
    assert!(alone(), "an open connection");
    server.shutdown(Shutdown::Both).expect("the server closes first");
    drop((server, client));
    assert!(alone(), "what a connection left behind");
    assert!(!only_connections(free_port(), &own).expect("rows"), "nothing at all");
}

#[test]
fn a_line_that_cannot_be_read_is_an_error() {
    let query = Query { protocol: Protocol::Tcp, states: u32::MAX, ports: Ports::All };
    for line in ["", "0: 0100007F:1F90", "0: é:1 0:0 0A 0 0 0 0 0 0", "0: 0100007F:1F90 x 0A"] {
        let table = format!("heading\n{line}\n");
        let error = procfs::add(&table, query, &mut Vec::new()).expect_err("an error");
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}

/// What each question costs here. Run it alone:
/// `cargo test --release --lib measure -- --ignored --nocapture`
#[test]
#[ignore = "prints times, proves nothing"]
fn measure() {
    let files = getrlimit(Resource::Nofile);
    let enough = Rlimit { current: Some(8000), maximum: files.maximum.map(|most| most.max(8000)) };
    setrlimit(Resource::Nofile, enough).expect("8,000 descriptors");
    let mut listeners = Vec::new();
    let one = listen("127.0.0.1");
    let port = one.local_addr().expect("a name").port();
    let (_client, server) = connect(&one, client_socket(Domain::IPV4));
    let (local, peer) = ends(&server);
    for count in [0, 500, 5000] {
        listeners.resize_with(count, || TcpListener::bind("127.0.0.1:0").expect("a listener"));
        println!("{count} listeners");
        let free = free_port();
        time("probe, free", || crate::detect::ports::probe(free, Protocol::Tcp));
        time("probe, taken", || crate::detect::ports::probe(port, Protocol::Tcp));
        time("probe, both", || crate::detect::ports::probe(free, Protocol::Both));
        time("on_port, TCP", || on_port(port, Protocol::Tcp).expect("rows"));
        time("on_port, UDP", || on_port(port, Protocol::Udp).expect("rows"));
        time("only_connections", || only_connections(port, &one).expect("rows"));
        time("all, TCP", || all(Protocol::Tcp).expect("rows"));
        time("peer_uid", || peer_uid(local, peer).expect("an answer"));
        without_netlink(|| {
            time("on_port, /proc/net", || on_port(port, Protocol::Tcp).expect("rows"));
            time("peer_uid, /proc/net", || peer_uid(local, peer).expect("an answer"));
        });
    }
}

/// Prints the median of 200 calls, in microseconds.
fn time<T>(what: &str, question: impl Fn() -> T) {
    let mut times: Vec<Duration> = (0..200)
        .map(|_| {
            let start = Instant::now();
            std::hint::black_box(question());
            start.elapsed()
        })
        .collect();
    times.sort_unstable();
    println!("  {what:22}{:9.1} µs", times[times.len() / 2].as_secs_f64() * 1e6);
}

fn client_socket(domain: Domain) -> Plain {
    Plain::new(domain, Type::STREAM, None).expect("a socket")
}

/// The client's end and the server's.
fn connect(listener: &TcpListener, client: Plain) -> (TcpStream, TcpStream) {
    let to = listener.local_addr().expect("a name");
    client.connect(&to.into()).expect("a client");
    let (server, _) = listener.accept().expect("a connection");
    (client.into(), server)
}

/// The server's end and the client's, as the server sees them.
fn ends(server: &TcpStream) -> (SocketAddr, SocketAddr) {
    (server.local_addr().expect("a name"), server.peer_addr().expect("a name"))
}

/// A connection that `user` made, where we may become `user`.
fn connect_as(user: u32, to: SocketAddr) -> Option<TcpStream> {
    let connect = || {
        let uid = rustix::process::Uid::from_raw(user);
        set_thread_res_uid(uid, uid, uid).ok()?;
        Some(TcpStream::connect(to).expect("a client"))
    };
    // A user id belongs to the thread (credentials(7)).
    thread::scope(|scope| scope.spawn(connect).join().expect("a client"))
}
