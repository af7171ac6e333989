//! Values of options, and how they are read.

use std::net::SocketAddr;

use clap::ValueEnum;

use crate::api::Protocol;

/// The transport protocols, as typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum Transport {
    Tcp,
    Udp,
    Both,
}

impl From<Transport> for Protocol {
    fn from(transport: Transport) -> Self {
        match transport {
            Transport::Tcp => Self::Tcp,
            Transport::Udp => Self::Udp,
            Transport::Both => Self::Both,
        }
    }
}

/// A lease in whole seconds, rounded up; at least one.
pub(super) fn lease(text: &str) -> Result<u64, String> {
    let duration = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    match duration.as_secs() + u64::from(duration.subsec_nanos() > 0) {
        0 => Err("a lease lasts at least a second".to_owned()),
        seconds => Ok(seconds),
    }
}

/// A range of ports, `3000-9999`, or a single one.
pub(super) fn port_range(text: &str) -> Result<(u16, u16), String> {
    let port = |text: &str| match text.trim().parse() {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(format!("'{text}' is not a port: ports go from 1 to 65535")),
    };
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    match (port(first)?, port(last)?) {
        (first, last) if last < first => Err(format!("{last} is below {first}")),
        range => Ok(range),
    }
}

/// A name that the environment can carry (environ(7)).
pub(super) fn variable(text: &str) -> Result<String, String> {
    if text.is_empty() || text.contains('=') {
        return Err("not a name for an environment variable".to_owned());
    }
    Ok(text.to_owned())
}

pub(super) fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("not KEY=VALUE".to_owned()),
    }
}

/// An address that only this machine reaches.
pub(super) fn loopback(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr =
        text.parse().map_err(|_| "not an address and port such as 127.0.0.1:9876".to_owned())?;
    if !address.ip().is_loopback() {
        return Err("not a loopback address: Styxy serves this machine alone".to_owned());
    }
    Ok(address)
}
