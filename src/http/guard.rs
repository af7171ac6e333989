//! Who may ask. In front of every route, on both sockets.
//!
//! Anyone on the machine, and any web page in the user's browser, can reach a loopback port. So a
//! request is believed only when its peer is this user, its `Host` is this daemon (DNS rebinding),
//! and no other page made a browser send it.

use std::net::IpAddr;

use hyper::header::{self, HeaderMap};
use hyper::http::request::Parts;
use hyper::{StatusCode, Uri};

use super::refusal::Refusal;
use crate::coordinator::Peer;
use crate::error::Error;

/// What is known of a connection from its accept on.
#[derive(Debug, Clone, Copy)]
pub struct Connection {
    /// Who is at the other end.
    pub caller: Caller,
    /// Where it came in.
    pub entrance: Entrance,
}

/// Who is at the other end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caller {
    /// This user, or root; with what the kernel tells of the process.
    Trusted(Peer),
    /// This user in another network namespace: its ports are not ours.
    ForeignNamespace,
    /// Another user.
    Stranger(u32),
    /// Nobody can say who.
    Unknown,
}

/// Where a connection came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entrance {
    /// A TCP listener with this address and port.
    Tcp(IpAddr, u16),
    /// A unix socket.
    Unix,
}

/// What may be asked from another network namespace: it says nothing of ports.
const PORTLESS: [&str; 3] = ["/status", "/config", "/openapi.json"];

impl Caller {
    /// What is known of its process; nothing of one that is not trusted.
    pub(super) fn peer(self) -> Peer {
        match self {
            Self::Trusted(peer) => peer,
            Self::ForeignNamespace | Self::Stranger(_) | Self::Unknown => Peer::default(),
        }
    }
}

/// Checks a request's head.
pub(super) fn check(connection: &Connection, head: &Parts) -> Result<(), Refusal> {
    check_caller(connection.caller, head.uri.path())?;
    check_host(connection.entrance, head)?;
    check_origin(connection.entrance, &head.headers)?;
    check_media_type(&head.headers)
}

fn check_caller(caller: Caller, path: &str) -> Result<(), Refusal> {
    let forbidden = |error: String| {
        Refusal::new(
            StatusCode::FORBIDDEN,
            "forbidden_peer",
            error,
            "start a Styxy of your own: every user has one",
        )
    };
    match caller {
        Caller::Trusted(_) => Ok(()),
        Caller::ForeignNamespace if PORTLESS.contains(&path) => Ok(()),
        Caller::ForeignNamespace => Err(Error::ForeignNamespace.into()),
        Caller::Stranger(uid) => {
            Err(forbidden(format!("this Styxy belongs to another user than yours (uid {uid})"))
                .with("uid", uid))
        }
        Caller::Unknown => Err(forbidden("the kernel doesn't say whose connection this is".into())),
    }
}

fn check_host(entrance: Entrance, head: &Parts) -> Result<(), Refusal> {
    let host = only(&head.headers, header::HOST);
    let named = match (host, authority(&head.uri)) {
        // RFC 9112, 3.2.2: the authority of an absolute-form target counts, and Host is ignored.
        (Ok(_), Some(authority)) => Some(authority),
        (Ok(host), None) => host,
        (Err(TooMany), _) => None,
    };
    if named.is_some_and(|named| names_us(named, entrance)) {
        return Ok(());
    }
    let shown = named.map_or("none".to_owned(), |named| format!("'{named}'"));
    Err(Refusal::new(
        StatusCode::FORBIDDEN,
        "forbidden_host",
        format!("the Host header must name this daemon, not {shown}"),
        "ask for http://127.0.0.1:PORT, localhost or [::1]",
    ))
}

/// Whether `HOST[:PORT]` is one of the names that this daemon answers to.
fn names_us(named: &str, entrance: Entrance) -> bool {
    let (name, port) = match named.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => (name, Some(port)),
        _ => (named, None),
    };
    let known = ["127.0.0.1", "localhost", "[::1]"];
    let is_known = known.iter().any(|known| known.eq_ignore_ascii_case(name));
    match entrance {
        // A client of a unix socket has no port to name.
        Entrance::Unix => is_known,
        Entrance::Tcp(address, own) => {
            let is_address = || match address.to_canonical() {
                IpAddr::V4(address) => address.to_string() == name,
                IpAddr::V6(address) => format!("[{address}]") == name,
            };
            let is_port = match port {
                // A number may have a sign and zeros in front; the name of a port has neither.
                Some(port) => !port.starts_with(['+', '0']) && port.parse() == Ok(own),
                None => own == 80,
            };
            is_port && (is_known || is_address())
        }
    }
}

fn check_origin(entrance: Entrance, headers: &HeaderMap) -> Result<(), Refusal> {
    let forbidden = |error: String| {
        Refusal::new(
            StatusCode::FORBIDDEN,
            "forbidden_origin",
            error,
            "ask from a program, not from a web page",
        )
    };
    match only(headers, header::ORIGIN) {
        Ok(None) => {}
        // No page comes from a unix socket, so there every origin is foreign.
        Ok(Some(origin))
            if entrance != Entrance::Unix
                && origin.strip_prefix("http://").is_some_and(|host| names_us(host, entrance)) => {}
        Ok(Some(origin)) => {
            return Err(forbidden(format!("a page of '{origin}' must not use this daemon")));
        }
        Err(TooMany) => return Err(forbidden("there must be one Origin header".into())),
    }
    let mut sites = headers.get_all("sec-fetch-site").into_iter();
    if sites.all(|site| site == "same-origin" || site == "none") {
        Ok(())
    } else {
        Err(forbidden("another page's request must not reach this daemon".into()))
    }
}

fn check_media_type(headers: &HeaderMap) -> Result<(), Refusal> {
    let has_body = headers.contains_key(header::TRANSFER_ENCODING)
        || headers.get(header::CONTENT_LENGTH).is_some_and(|length| length != "0");
    if !has_body {
        return Ok(());
    }
    let media_type = only(headers, header::CONTENT_TYPE).ok().flatten();
    let essence = media_type.and_then(|it| it.split(';').next()).map(str::trim);
    if essence.is_some_and(|it| it.eq_ignore_ascii_case("application/json")) {
        return Ok(());
    }
    Err(Refusal::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "unsupported_media_type",
        "a body must be application/json",
        "send the header Content-Type: application/json",
    ))
}

/// There are several values where one is meant.
struct TooMany;

/// The one value of a header; text that is not visible ASCII is no value anybody may send here.
fn only(headers: &HeaderMap, name: header::HeaderName) -> Result<Option<&str>, TooMany> {
    let mut values = headers.get_all(name).into_iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => value.to_str().map(Some).map_err(|_| TooMany),
        (Some(_), Some(_)) => Err(TooMany),
    }
}

/// The authority of an absolute-form request target, with its port.
fn authority(uri: &Uri) -> Option<&str> {
    uri.authority().map(hyper::http::uri::Authority::as_str)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const TCP: Entrance = Entrance::Tcp(IpAddr::V4(Ipv4Addr::LOCALHOST), 9876);

    fn head(headers: &[(&str, &str)]) -> Parts {
        let mut request = hyper::Request::builder().uri("/status");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).expect("a valid request").into_parts().0
    }

    fn code(entrance: Entrance, headers: &[(&str, &str)]) -> String {
        let connection = Connection { caller: Caller::Trusted(Peer::default()), entrance };
        match check(&connection, &head(headers)) {
            Ok(()) => "ok".to_owned(),
            Err(refusal) => refusal.body.code,
        }
    }

    #[test]
    fn only_our_own_names_with_our_own_port_are_hosts() {
        for host in ["127.0.0.1:9876", "localhost:9876", "LOCALHOST:9876", "[::1]:9876"] {
            assert_eq!(code(TCP, &[("host", host)]), "ok", "{host}");
        }
        let bad = [
            "",
            "evil.example",
            "evil.example:9876",
            "127.0.0.1",
            "127.0.0.1:9877",
            "localhost.:9876",
            "127.0.0.1:9876:9876",
            "[::1]",
            "::1:9876",
            "127.0.0.1:09876",
            "a@127.0.0.1:9876",
        ];
        for host in bad {
            assert_eq!(code(TCP, &[("host", host)]), "forbidden_host", "{host}");
        }
        assert_eq!(code(TCP, &[]), "forbidden_host");
        let twice = [("host", "127.0.0.1:9876"), ("host", "127.0.0.1:9876")];
        assert_eq!(code(TCP, &twice), "forbidden_host");
        assert_eq!(code(Entrance::Unix, &[("host", "localhost")]), "ok");
        assert_eq!(code(Entrance::Unix, &[("host", "evil.example")]), "forbidden_host");
    }

    #[test]
    fn a_page_of_another_origin_is_refused() {
        let host = ("host", "127.0.0.1:9876");
        for good in ["http://127.0.0.1:9876", "http://localhost:9876", "http://[::1]:9876"] {
            assert_eq!(code(TCP, &[host, ("origin", good)]), "ok", "{good}");
        }
        for bad in ["null", "http://evil.example", "https://127.0.0.1:9876", "http://localhost:1"] {
            assert_eq!(code(TCP, &[host, ("origin", bad)]), "forbidden_origin", "{bad}");
        }
        for (site, expected) in [
            ("same-origin", "ok"),
            ("none", "ok"),
            ("cross-site", "forbidden_origin"),
            ("same-site", "forbidden_origin"),
        ] {
            assert_eq!(code(TCP, &[host, ("sec-fetch-site", site)]), expected, "{site}");
        }
        // Node's fetch says so on every request.
        assert_eq!(code(TCP, &[host, ("sec-fetch-mode", "cors")]), "ok");
    }

    #[test]
    fn a_body_must_be_json() {
        let host = ("host", "127.0.0.1:9876");
        let length = ("content-length", "2");
        let json = ("content-type", "application/json; charset=utf-8");
        assert_eq!(code(TCP, &[host, length, json]), "ok");
        assert_eq!(code(TCP, &[host, ("content-length", "0")]), "ok");
        assert_eq!(code(TCP, &[host, length]), "unsupported_media_type");
        let form = ("content-type", "text/plain");
        assert_eq!(code(TCP, &[host, length, form]), "unsupported_media_type");
        let chunked = ("transfer-encoding", "chunked");
        assert_eq!(code(TCP, &[host, chunked, form]), "unsupported_media_type");
    }

    #[test]
    fn the_peer_comes_before_everything_else() {
        let connection = Connection { caller: Caller::Stranger(1001), entrance: TCP };
        let refusal = check(&connection, &head(&[])).expect_err("a stranger");
        assert_eq!(
            (refusal.status, refusal.body.code.as_str()),
            (StatusCode::FORBIDDEN, "forbidden_peer")
        );
    }
}
