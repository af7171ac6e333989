//! What the tests of ports and sockets share: ports of their own, and kernels that lack something.

use std::io::ErrorKind;
use std::net::{Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use libc::{
    AF_INET6, AF_NETLINK, BPF_ABS, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W, EAFNOSUPPORT,
    SECCOMP_RET_ALLOW, SECCOMP_RET_ERRNO, SYS_socket,
};
use socket2::{Domain, Socket, Type};

use crate::detect::testing::until;

/// A port on which nothing is, neither TCP nor UDP, not even what a connection left behind.
///
/// Each call gives another one, below the ports that the kernel gives to clients, so that nobody
/// comes upon it by chance.
pub(in crate::detect) fn free_port() -> u16 {
    const FIRST: u32 = 12_000;
    const COUNT: u32 = 8_000;
    static CALLS: AtomicU32 = AtomicU32::new(0);
    // Test processes that run side by side begin far from each other.
    let start = process::id().wrapping_mul(997);
    for _ in 0..COUNT {
        let offset = start.wrapping_add(CALLS.fetch_add(1, Ordering::Relaxed)) % COUNT;
        let port = u16::try_from(FIRST + offset).expect("below 65536");
        let address = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
        let tcp = Socket::new(Domain::IPV6, Type::STREAM, None).expect("a socket");
        if tcp.bind(&address.into()).is_ok() && UdpSocket::bind(address).is_ok() {
            return port;
        }
    }
    panic!("no port is free");
}

/// A listener on a port of its own. A child that another test is starting has a copy of every socket
/// until its execve(2), also of one that has just tried that port.
pub(in crate::detect) fn listen(ip: &str) -> TcpListener {
    let mut listener = None;
    until("a port is free", || {
        listener = match TcpListener::bind((ip, free_port())) {
            Err(error) if error.kind() == ErrorKind::AddrInUse => None,
            bound => Some(bound.expect("a listener")),
        };
        listener.is_some()
    });
    listener.expect("a port was free")
}

/// Runs `question` in a kernel that looks as if it had no netlink.
pub(in crate::detect) fn without_netlink<T: Send>(question: impl FnOnce() -> T + Send) -> T {
    without(AF_NETLINK, question)
}

/// Runs `question` in a kernel that looks as if it had no IPv6.
pub(in crate::detect) fn without_ipv6<T: Send>(question: impl FnOnce() -> T + Send) -> T {
    without(AF_INET6, question)
}

/// Refuses a socket family as RestrictAddressFamilies= of systemd.exec(5) and sandboxes do:
/// seccomp(2) answers socket(2) with EAFNOSUPPORT. The filter stays with its thread for good, so
/// the question gets one of its own.
fn without<T: Send>(family: i32, question: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            rustix::thread::set_no_new_privs(true).expect("every process may give up privileges");
            refuse(family).expect("the kernel has seccomp filters");
            question()
        });
        thread.join().expect("the question has an answer")
    })
}

/// Refuses `family` to the calling thread.
#[expect(unsafe_code, reason = "no safe wrapper installs a seccomp filter")]
fn refuse(family: i32) -> std::io::Result<()> {
    // Offsets in struct seccomp_data: the number of the call, and the low half of its first
    // argument.
    let argument = if cfg!(target_endian = "big") { 20 } else { 16 };
    let mut program = [
        step(BPF_LD | BPF_W | BPF_ABS, 0, 0),
        step(BPF_JMP | BPF_JEQ | BPF_K, number(SYS_socket), 3),
        step(BPF_LD | BPF_W | BPF_ABS, argument, 0),
        step(BPF_JMP | BPF_JEQ | BPF_K, number(family), 1),
        step(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | number(EAFNOSUPPORT), 0),
        step(BPF_RET | BPF_K, SECCOMP_RET_ALLOW, 0),
    ];
    let length = u16::try_from(program.len()).expect("six");
    let program = libc::sock_fprog { len: length, filter: program.as_mut_ptr() };
    // SAFETY: the program outlives the call, and the kernel copies it.
    let result =
        unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) };
    if result == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

/// One instruction, which jumps `otherwise` instructions further when it compares in vain.
fn step(code: u32, k: u32, otherwise: u8) -> libc::sock_filter {
    libc::sock_filter { code: u16::try_from(code).expect("16 bits"), jt: 0, jf: otherwise, k }
}

fn number(value: impl TryInto<u32>) -> u32 {
    value.try_into().ok().expect("32 bits")
}
