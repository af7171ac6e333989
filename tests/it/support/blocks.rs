//! Ports that belong to one test while it runs.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};

use socket2::{Domain, Protocol, Socket, Type};

/// Below the ephemeral ports (32768 and up), above what the built-in service types use.
const FIRST: u16 = 21_000;
/// Ports in one unit of claiming.
const UNIT: u16 = 32;
/// How many units there are.
const UNITS: u16 = 340;

/// A run of ports that no other test of any test process is given while this value lives.
///
/// A claim is an abstract unix socket (unix(7)): the kernel drops it with the process, and its
/// names belong to the network namespace, as ports do.
#[derive(Debug)]
pub(crate) struct Block {
    first: u16,
    count: u16,
    _claims: Vec<UnixListener>,
}

impl Block {
    /// Claims at least `ports` ports, all of them free now.
    pub(crate) fn claim(ports: u16) -> Self {
        let units = ports.div_ceil(UNIT);
        let places = UNITS - units;
        // Test processes that start at once begin at different places.
        let random = u16::from_le_bytes([uuid_byte(), uuid_byte()]) % places;
        (0..places)
            .map(|step| (random + step) % places)
            .find_map(|unit| Self::try_claim(unit, units))
            .expect("a free block of ports")
    }

    fn try_claim(unit: u16, units: u16) -> Option<Self> {
        let claims = (unit..unit + units)
            .map(|n| {
                let name = SocketAddr::from_abstract_name(format!("styxy-test-ports-{n}")).ok()?;
                UnixListener::bind_addr(&name).ok()
            })
            .collect::<Option<Vec<_>>>()?;
        let (first, count) = (FIRST + unit * UNIT, units * UNIT);
        (first..first + count).all(is_free).then_some(Self { first, count, _claims: claims })
    }

    /// The `n`th port of the block, from 0.
    pub(crate) fn port(&self, n: u16) -> u16 {
        assert!(n < self.count, "the block has {} ports", self.count);
        self.first + n
    }

    /// How many ports it has.
    pub(crate) fn len(&self) -> u16 {
        self.count
    }
}

fn uuid_byte() -> u8 {
    uuid::Uuid::new_v4().as_bytes()[0]
}

fn is_free(port: u16) -> bool {
    let bind = |kind, protocol| -> std::io::Result<()> {
        let socket = Socket::new(Domain::IPV4, kind, Some(protocol))?;
        socket.bind(&std::net::SocketAddr::from(([0, 0, 0, 0], port)).into())
    };
    bind(Type::STREAM, Protocol::TCP).is_ok() && bind(Type::DGRAM, Protocol::UDP).is_ok()
}
