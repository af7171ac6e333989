//! Netlink sock_diag(7): the kernel's socket tables, filtered by the kernel.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use netlink_packet_core::{
    DecodeError, DoneBuffer, ErrorBuffer, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NLMSG_DONE,
    NLMSG_ERROR, NetlinkBuffer, NetlinkHeader, NetlinkMessage, Parseable,
};
use netlink_packet_sock_diag::SockDiagMessage;
use netlink_packet_sock_diag::constants::{
    AF_INET, AF_INET6, IPPROTO_TCP, IPPROTO_UDP, SOCK_DIAG_BY_FAMILY,
};
use netlink_packet_sock_diag::inet::{
    ExtensionFlags, InetRequest, InetResponseHeader, SocketId, StateFlags,
};
use rustix::buffer::spare_capacity;
use rustix::io::{Errno, retry_on_intr};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with,
};

use super::{Ports, Query, Row, filter};
use crate::api::Protocol;

/// The kernel fills a message of a dump up to the size of the buffer, 32 KiB at most.
const BUFFER_BYTES: usize = 32 * 1024;

/// How often a dump is begun again because the tables changed under it (netlink(7),
/// NLM_F_DUMP_INTR).
const DUMP_ATTEMPTS: usize = 3;

/// The loopback interface has this index in every network namespace.
const LOOPBACK_INDEX: u32 = 1;

/// `TCPDIAG_GETSOCK` of the kernel's `include/uapi/linux/inet_diag.h`: a request as it was before
/// sock_diag(7), for TCP of both families.
const TCPDIAG_GETSOCK: u16 = 18;

/// Bytes of a message's header (netlink(7)).
const HEADER_BYTES: usize = 16;

/// Bytes of a `struct inet_diag_sockid`.
const SOCKET_ID_BYTES: usize = 48;

/// The rows that `query` asks for, of both families.
pub(super) fn rows(query: Query<'_>) -> io::Result<Vec<Row>> {
    let mut rows = both_families(query, Conversation::open)?;
    // The kernel's walk over bound sockets that neither listen nor connect takes no notice of the
    // port (Linux 6.8 to 6.18).
    if let Ports::One(port) = query.ports {
        rows.retain(|row| row.local.port() == port);
    }
    Ok(rows)
}

/// The TCP row of the connection from `local` to `peer`, two addresses of one family. It may also
/// be a listener on `local`: the kernel answers with the socket that a packet would reach.
pub(super) fn connection(local: SocketAddr, peer: SocketAddr) -> io::Result<Option<Row>> {
    let request = message(
        NLM_F_REQUEST,
        InetRequest {
            family: if local.is_ipv4() { AF_INET } else { AF_INET6 },
            protocol: IPPROTO_TCP,
            extensions: ExtensionFlags::empty(),
            states: StateFlags::all(),
            socket_id: SocketId {
                source_port: local.port(),
                destination_port: peer.port(),
                source_address: local.ip(),
                destination_address: peer.ip(),
                // Finds also a socket that is bound to the device (SO_BINDTODEVICE).
                interface_id: LOOPBACK_INDEX,
                // INET_DIAG_NOCOOKIE: any socket that has these addresses.
                cookie: [0xff; 8],
            },
        },
    );
    let mut conversation = Conversation::open()?;
    conversation.send(&request)?;
    match conversation.receive()?.next() {
        Some(Ok((_, Message::Row(row)))) => Ok(Some(row)),
        Some(Ok((_, Message::End(Err(Errno::NOENT))))) => {
            // No such socket, or no such kernel module: a dump of nothing tells which.
            let nothing = Query { protocol: Protocol::Tcp, states: 0, ports: Ports::All };
            conversation.dump(&nothing.request(AF_INET), &mut Vec::new())?;
            Ok(None)
        }
        Some(Ok((_, Message::End(Err(error))))) => Err(error.into()),
        Some(Err(error)) => Err(error),
        Some(Ok((_, Message::End(Ok(()))))) | None => Err(malformed("sock_diag sent no answer")),
    }
}

/// The rows of both families.
///
/// The kernel walks its whole tables for each dump, so TCP is asked for both at once, as that can only
/// be with the older request: half the time where there are thousands of sockets.
fn both_families(
    query: Query<'_>,
    mut open: impl FnMut() -> io::Result<Conversation>,
) -> io::Result<Vec<Row>> {
    let mut rows = Vec::new();
    let ipv4 = query.request(AF_INET);
    if query.protocol.has_tcp()
        && let Some(both) = older(&ipv4)
        && open()?.dump(&both, &mut rows).is_ok()
    {
        return Ok(rows);
    }
    // A kernel that is not Linux's own may not know it. What else is wrong, this says too.
    rows.clear();
    let mut conversation = open()?;
    conversation.dump(&ipv4, &mut rows)?;
    conversation.dump(&query.request(AF_INET6), &mut rows)?;
    Ok(rows)
}

impl Query<'_> {
    /// The request for a dump. Of what listens or is connected, the kernel leaves out whatever has
    /// another source port than the request's id: the one-port question needs no filter program.
    fn request(self, family: u8) -> Vec<u8> {
        let mut socket_id = if family == AF_INET { SocketId::new_v4() } else { SocketId::new_v6() };
        if let Ports::One(port) = self.ports {
            socket_id.source_port = port;
        }
        let mut request = message(
            NLM_F_REQUEST | NLM_F_DUMP,
            InetRequest {
                family,
                protocol: if self.protocol.has_tcp() { IPPROTO_TCP } else { IPPROTO_UDP },
                extensions: ExtensionFlags::empty(),
                // Not all of the kernel's states have a name there.
                states: StateFlags::from_bits_retain(self.states),
                socket_id,
            },
        );
        if let Ports::Within(ranges) = self.ports {
            filter::append(&mut request, ranges);
        }
        request
    }
}

/// The request for TCP of both families that says the same as `request`, which is for one: its
/// fields in the order of a `struct inet_diag_req`.
fn older(request: &[u8]) -> Option<Vec<u8>> {
    let (header, rest) = request.split_at_checked(HEADER_BYTES)?;
    // Family, protocol, extensions and padding, of a byte each, then the states.
    let (start, rest) = rest.split_at_checked(8)?;
    let (socket_id, filter) = rest.split_at_checked(SOCKET_ID_BYTES)?;
    let length = u32::try_from(request.len() + 4).ok()?;
    let (_type, flags_and_on) = header.get(4..)?.split_at_checked(2)?;
    // Family, lengths of the addresses and extensions; behind the states is a field without use.
    let parts: [&[u8]; 8] = [
        &length.to_ne_bytes(),
        &TCPDIAG_GETSOCK.to_ne_bytes(),
        flags_and_on,
        &[0; 4],
        socket_id,
        start.get(4..)?,
        &[0; 4],
        filter,
    ];
    Some(parts.concat())
}

fn message(flags: u16, request: InetRequest) -> Vec<u8> {
    let mut header = NetlinkHeader::default();
    header.flags = flags;
    let mut message = NetlinkMessage::new(header, SockDiagMessage::InetRequest(request).into());
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

/// A netlink socket, and the datagram that was read from it last.
struct Conversation {
    socket: OwnedFd,
    buffer: Vec<u8>,
}

impl Conversation {
    /// A socket of its own for each question: it costs two microseconds of a busy daemon and 14 of one
    /// that has slept, never has an old answer in it, and belongs to the network namespace of the
    /// thread that asks.
    fn open() -> io::Result<Self> {
        let socket = socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            Some(netlink::SOCK_DIAG),
        )?;
        Ok(Self { socket, buffer: Vec::with_capacity(BUFFER_BYTES) })
    }

    /// Without an address a message goes to the kernel (netlink(7)).
    fn send(&self, request: &[u8]) -> io::Result<()> {
        retry_on_intr(|| send(&self.socket, request, SendFlags::empty()))?;
        Ok(())
    }

    /// Reads one datagram. It never waits: the kernel answers within the send.
    fn receive(&mut self) -> io::Result<Messages<'_>> {
        self.buffer.clear();
        let (_, length) = retry_on_intr(|| {
            recv(&self.socket, spare_capacity(&mut self.buffer), RecvFlags::TRUNC)
        })?;
        if length == 0 || length > self.buffer.len() {
            return Err(malformed(format!("sock_diag sent a datagram of {length} bytes")));
        }
        Ok(Messages { rest: &self.buffer })
    }

    /// Adds the rows of a dump.
    fn dump(&mut self, request: &[u8], rows: &mut Vec<Row>) -> io::Result<()> {
        let before = rows.len();
        for _ in 0..DUMP_ATTEMPTS {
            rows.truncate(before);
            if self.dump_once(request, rows)? {
                return Ok(());
            }
        }
        Err(io::Error::new(io::ErrorKind::Interrupted, "the socket tables change all the time"))
    }

    /// Adds the rows of a dump, however many datagrams it comes in. Whether it was consistent.
    fn dump_once(&mut self, request: &[u8], rows: &mut Vec<Row>) -> io::Result<bool> {
        self.send(request)?;
        let mut consistent = true;
        loop {
            for message in self.receive()? {
                let (flags, message) = message?;
                consistent &= flags & NLM_F_DUMP_INTR == 0;
                match message {
                    Message::Row(row) => rows.push(row),
                    Message::End(outcome) => return Ok(outcome.map(|()| consistent)?),
                }
            }
        }
    }
}

/// What a message of an answer says.
enum Message {
    Row(Row),
    End(Result<(), Errno>),
}

/// The messages of one datagram, with their flags.
struct Messages<'a> {
    rest: &'a [u8],
}

impl Iterator for Messages<'_> {
    type Item = io::Result<(u16, Message)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let message = NetlinkBuffer::new_checked(self.rest).and_then(|message| {
            // NLMSG_ALIGN of netlink(3).
            let end = (message.length() as usize).next_multiple_of(4);
            self.rest = self.rest.get(end..).unwrap_or_default();
            Ok((message.flags(), Message::parse(&message)?))
        });
        Some(message.map_err(malformed))
    }
}

impl Message {
    fn parse(message: &NetlinkBuffer<&[u8]>) -> Result<Self, DecodeError> {
        let payload = message.payload();
        let code = match message.message_type() {
            // The attributes behind the header repeat what nobody asked for.
            SOCK_DIAG_BY_FAMILY | TCPDIAG_GETSOCK => {
                return Ok(Self::Row(InetResponseHeader::parse(payload)?.into()));
            }
            NLMSG_DONE => DoneBuffer::new_checked(payload)?.code(),
            NLMSG_ERROR => ErrorBuffer::new_checked(payload)?.code().map_or(0, i32::from),
            other => return Err(format!("sock_diag sent a message of type {other}").into()),
        };
        // A negative errno, or what is left over of a dump that went well (netlink(7)).
        Ok(Self::End(if code < 0 { Err(Errno::from_raw_os_error(-code)) } else { Ok(()) }))
    }
}

impl From<InetResponseHeader> for Row {
    fn from(header: InetResponseHeader) -> Self {
        let id = header.socket_id;
        Self {
            local: SocketAddr::new(id.source_address, id.source_port),
            peer: SocketAddr::new(id.destination_address, id.destination_port),
            state: header.state,
            uid: header.uid,
            inode: header.inode.into(),
        }
    }
}

fn malformed(what: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;

    use netlink_packet_core::{DoneMessage, NetlinkPayload};
    use netlink_packet_sock_diag::inet::InetResponse;

    use super::*;
    use crate::detect::sockets::TCP_LISTEN;
    use crate::detect::sockets::testing::listen;

    /// A conversation with a kernel that says just this, a datagram each.
    fn conversation(datagrams: &[Vec<u8>]) -> (Conversation, UnixDatagram) {
        let (ours, kernel) = UnixDatagram::pair().expect("a pair");
        for datagram in datagrams {
            kernel.send(datagram).expect("a datagram");
        }
        let socket = ours.into();
        (Conversation { socket, buffer: Vec::with_capacity(BUFFER_BYTES) }, kernel)
    }

    fn row(port: u16) -> Vec<u8> {
        let mut socket_id = SocketId::new_v4();
        socket_id.source_port = port;
        let header = InetResponseHeader {
            family: AF_INET,
            state: 10,
            timer: None,
            socket_id,
            recv_queue: 0,
            send_queue: 0,
            uid: 1000,
            inode: 7,
        };
        let response = Box::new(InetResponse { header, nlas: std::iter::empty().collect() });
        bytes(0, NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(response)))
    }

    fn done(flags: u16, code: i32) -> Vec<u8> {
        let mut done = DoneMessage::default();
        done.code = code;
        bytes(flags, NetlinkPayload::Done(done))
    }

    fn bytes(flags: u16, payload: NetlinkPayload<SockDiagMessage>) -> Vec<u8> {
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        let mut message = NetlinkMessage::new(header, payload);
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        bytes
    }

    fn ports(datagrams: &[Vec<u8>]) -> io::Result<Vec<u16>> {
        let (mut conversation, _kernel) = conversation(datagrams);
        let mut rows = Vec::new();
        conversation.dump(&[0; 16], &mut rows)?;
        Ok(rows.iter().map(|row| row.local.port()).collect())
    }

    #[test]
    fn a_dump_comes_in_any_number_of_datagrams() {
        let datagrams = [[row(1), row(2)].concat(), row(3), [row(4), done(0, 0)].concat()];
        assert_eq!(ports(&datagrams).expect("rows"), [1, 2, 3, 4]);
    }

    #[test]
    fn an_interrupted_dump_is_begun_again() {
        let interrupted = [row(1), done(NLM_F_DUMP_INTR, 0)].concat();
        let whole = [row(2), done(0, 0)].concat();
        assert_eq!(ports(&[interrupted.clone(), whole]).expect("rows"), [2]);
        let error = ports(&vec![interrupted; DUMP_ATTEMPTS]).expect_err("no end of it");
        assert_eq!(error.kind(), io::ErrorKind::Interrupted);
    }

    const LISTENING: Query<'_> =
        Query { protocol: Protocol::Tcp, states: 1 << 10, ports: Ports::All };

    #[test]
    fn one_dump_has_both_families_and_says_the_same() {
        let ask = |query: Query<'_>| {
            let mut conversation = Conversation::open().expect("netlink");
            let mut rows = Vec::new();
            let both = older(&query.request(AF_INET)).expect("a request");
            conversation.dump(&both, &mut rows).expect("this kernel knows it");
            rows
        };
        let each = |query: Query<'_>| {
            let mut conversation = Conversation::open().expect("netlink");
            let mut rows = Vec::new();
            conversation.dump(&query.request(AF_INET), &mut rows).expect("IPv4");
            conversation.dump(&query.request(AF_INET6), &mut rows).expect("IPv6");
            rows
        };
        let listeners = ["127.0.0.1", "::1"].map(listen);
        let ports = listeners.each_ref().map(|it| it.local_addr().expect("a name").port());
        let ranges = [ports[0].min(ports[1])..=ports[0].max(ports[1])];
        let within = Query { ports: Ports::Within(&ranges), ..LISTENING };
        let one = Query { ports: Ports::One(ports[1]), ..LISTENING };
        for query in [within, one, Query { states: u32::MAX, ..one }] {
            let mine = |rows: Vec<Row>| {
                let mut ports: Vec<_> = rows
                    .into_iter()
                    .filter(|row| ports.contains(&row.local.port()) && row.state == TCP_LISTEN)
                    .map(|row| row.local)
                    .collect();
                ports.sort_unstable();
                ports
            };
            let expected = if matches!(query.ports, Ports::One(_)) { 1 } else { 2 };
            let seen = mine(ask(query));
            assert_eq!(seen.len(), expected, "{query:?}");
            assert_eq!(seen, mine(each(query)), "{query:?}");
        }
    }

    #[test]
    fn who_does_not_know_the_older_request_is_asked_for_each_family() {
        let each = [[row(1), done(0, 0)].concat(), [row(2), done(0, 0)].concat()];
        let refused = [done(0, -Errno::OPNOTSUPP.raw_os_error())];
        let broken = [row(1)[..40].to_vec(), [row(3), done(0, 0)].concat()];
        for first in [&refused[..], &broken] {
            let (first, first_kernel) = conversation(first);
            let (second, kernel) = conversation(&each);
            let mut conversations = [first, second].into_iter();
            let open = || Ok(conversations.next().expect("two are enough"));
            let rows = both_families(LISTENING, open).expect("rows");
            assert_eq!(rows.iter().map(|row| row.local.port()).collect::<Vec<_>>(), [1, 2]);
            let types = [&first_kernel, &kernel, &kernel].map(|kernel| {
                let mut request = [0; 256];
                let length = kernel.recv(&mut request).expect("a request");
                let said = u32::from_ne_bytes(request[..4].try_into().expect("four bytes"));
                assert_eq!(usize::try_from(said).expect("small"), length);
                u16::from_ne_bytes([request[4], request[5]])
            });
            assert_eq!(types, [TCPDIAG_GETSOCK, SOCK_DIAG_BY_FAMILY, SOCK_DIAG_BY_FAMILY]);
        }
    }

    #[test]
    fn an_error_of_the_kernel_is_said() {
        let error = ports(&[done(0, -Errno::NOENT.raw_os_error())]).expect_err("no such module");
        assert_eq!(error.raw_os_error(), Some(Errno::NOENT.raw_os_error()));
    }

    #[test]
    fn what_cannot_be_read_is_an_error() {
        let cut = row(1)[..40].to_vec();
        let long = vec![0; BUFFER_BYTES + 1];
        for datagram in [vec![0; 3], vec![0xff; 64], cut, long, vec![]] {
            let error = ports(&[datagram]).expect_err("nonsense");
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        }
    }
}
