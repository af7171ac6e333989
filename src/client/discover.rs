//! Where a daemon may be, by the environment, the paths and the configuration.

use std::env;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use crate::config::Config;
use crate::paths::Paths;
use crate::text::printable;

/// One address of a daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Endpoint {
    /// A loopback address.
    Tcp(SocketAddr),
    /// A socket in the file system.
    Unix(PathBuf),
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "http://{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Where to look for a daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Lookup {
    /// The environment names the one place: nothing else is asked, and a daemon that is started
    /// must listen there.
    Named(Endpoint),
    /// The user's socket, then the TCP address of the configuration.
    Usual([Endpoint; 2]),
}

impl Lookup {
    /// Reads `STYXY_URL`, else `STYXY_DAEMON_PORT`; a variable that is empty counts as unset.
    ///
    /// # Errors
    ///
    /// One sentence that names the variable whose value cannot be.
    pub(super) fn from_env(paths: &Paths, config: &Config) -> Result<Self, String> {
        let variable = |name| env::var_os(name).filter(|value| !value.is_empty());
        let text = |name, value: std::ffi::OsString| {
            value.into_string().map_err(|_| format!("{name} is not UTF-8"))
        };
        if let Some(value) = variable("STYXY_URL") {
            return parse_url(&text("STYXY_URL", value)?).map(Self::Named);
        }
        if let Some(value) = variable("STYXY_DAEMON_PORT") {
            return parse_port(&text("STYXY_DAEMON_PORT", value)?).map(Self::Named);
        }
        let unix = Endpoint::Unix(paths.socket.clone());
        Ok(Self::Usual([unix, Endpoint::Tcp(config.daemon.listen)]))
    }

    /// The places, in the order to ask them.
    pub(super) fn places(&self) -> &[Endpoint] {
        match self {
            Self::Named(place) => std::slice::from_ref(place),
            Self::Usual(places) => places,
        }
    }
}

/// A `STYXY_URL`: `http://HOST[:PORT]` on loopback, or `unix:/PATH`.
///
/// Names are not looked up: a daemon is on this machine, and DNS must not be what a command waits
/// for.
fn parse_url(url: &str) -> Result<Endpoint, String> {
    let wrong = || {
        format!(
            "STYXY_URL is '{}', which is neither http://127.0.0.1:PORT nor unix:/PATH",
            printable(url)
        )
    };
    if let Some(path) = url.strip_prefix("unix:") {
        // `unix:///run/x` is the same with an empty authority (RFC 3986, 3.2).
        let path = path.strip_prefix("//").unwrap_or(path);
        return if path.starts_with('/') { Ok(Endpoint::Unix(path.into())) } else { Err(wrong()) };
    }
    let authority = url.strip_prefix("http://").ok_or_else(wrong)?;
    let authority = authority.strip_suffix('/').unwrap_or(authority);
    let (host, port) = match authority.rsplit_once(':') {
        // A colon within brackets belongs to the address.
        Some((host, port)) if !port.ends_with(']') => (host, port.parse().map_err(|_| wrong())?),
        _ => (authority, 80),
    };
    let ip = match host {
        "localhost" => IpAddr::V4(Ipv4Addr::LOCALHOST),
        "[::1]" => IpAddr::V6(Ipv6Addr::LOCALHOST),
        _ => host.parse::<Ipv4Addr>().map_err(|_| wrong())?.into(),
    };
    if !ip.is_loopback() || port == 0 {
        return Err(wrong());
    }
    Ok(Endpoint::Tcp(SocketAddr::new(ip, port)))
}

/// A `STYXY_DAEMON_PORT`.
fn parse_port(value: &str) -> Result<Endpoint, String> {
    match value.parse::<u16>() {
        Ok(port) if port > 0 => Ok(Endpoint::Tcp((Ipv4Addr::LOCALHOST, port).into())),
        _ => Err(format!(
            "STYXY_DAEMON_PORT is '{}', which is not a port: ports go from 1 to 65535",
            printable(value)
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_forms_of_a_url() {
        let tcp = |text: &str| Ok(Endpoint::Tcp(text.parse().expect("a socket address")));
        let unix = |text: &str| Ok(Endpoint::Unix(text.into()));
        assert_eq!(parse_url("http://127.0.0.1:9876"), tcp("127.0.0.1:9876"));
        assert_eq!(parse_url("http://127.0.0.1:9876/"), tcp("127.0.0.1:9876"));
        assert_eq!(parse_url("http://localhost:81"), tcp("127.0.0.1:81"));
        assert_eq!(parse_url("http://localhost"), tcp("127.0.0.1:80"));
        assert_eq!(parse_url("http://[::1]:81"), tcp("[::1]:81"));
        assert_eq!(parse_url("http://[::1]"), tcp("[::1]:80"));
        assert_eq!(parse_url("unix:/run/a b.sock"), unix("/run/a b.sock"));
        assert_eq!(parse_url("unix:///run/x.sock"), unix("/run/x.sock"));
    }

    #[test]
    fn what_is_no_daemon_of_this_machine_is_refused() {
        for url in [
            "",
            "9876",
            "127.0.0.1:9876",
            "https://127.0.0.1:9876",
            "http://example.com:9876",
            "http://192.0.2.1:9876",
            "http://0.0.0.0:9876",
            "http://127.0.0.1:0",
            "http://127.0.0.1:65536",
            "http://127.0.0.1:9876/path",
            "http://user@127.0.0.1:9876",
            "unix:relative.sock",
            "unix://host/run/x.sock",
        ] {
            assert!(parse_url(url).is_err(), "{url}");
        }
        assert_eq!(parse_port("81"), parse_url("http://127.0.0.1:81"));
        for port in ["", "0", "65536", "-1", "http", "9876 "] {
            assert!(parse_port(port).is_err(), "{port}");
        }
    }

    #[test]
    fn an_endpoint_reads_as_the_url_that_names_it() {
        for url in ["http://127.0.0.1:9876", "http://[::1]:81", "unix:/run/x.sock"] {
            assert_eq!(parse_url(url).map(|place| place.to_string()).as_deref(), Ok(url));
        }
    }
}
