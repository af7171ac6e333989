//! A call as HTTP says it: method, path, body.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;
use ureq::http::Method;

use crate::coordinator::Call;

/// One request.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) method: Method,
    /// Path and query.
    pub(super) target: String,
    /// JSON.
    pub(super) body: Option<Vec<u8>>,
}

impl Request {
    fn new(method: Method, target: impl Into<String>) -> Self {
        Self { method, target: target.into(), body: None }
    }

    fn get(target: impl Into<String>) -> Self {
        Self::new(Method::GET, target)
    }

    /// The one route that is no call: its answer goes on.
    pub(super) fn events() -> Self {
        Self::get("/events")
    }

    fn post(target: impl Into<String>, body: &impl Serialize) -> Self {
        // It cannot fail: the wire types have text for keys, and no Serialize of their own.
        let body = serde_json::to_vec(body).expect("wire types are JSON");
        Self { body: Some(body), ..Self::new(Method::POST, target) }
    }
}

impl From<&Call> for Request {
    fn from(call: &Call) -> Self {
        match call {
            Call::Allocate(request) => Self::post("/allocate", request),
            Call::AllocateBatch(request) => Self::post("/allocate/batch", request),
            Call::Renew(lock_id, request) => {
                Self::post(path("/allocate/", lock_id) + "/renew", request)
            }
            Call::Release(lock_id) => Self::new(Method::DELETE, path("/allocate/", lock_id)),
            Call::Check(port, protocol) => {
                Self::get(format!("/check/{port}?protocol={}", protocol.as_str()))
            }
            Call::Suggest(service_type, wish, count) => {
                let near = wish.map(|wish| format!("&preferred_port={wish}")).unwrap_or_default();
                Self::get(format!("{}?count={count}{near}", path("/suggest/", service_type)))
            }
            Call::Register(request) => Self::post("/instance/register", request),
            Call::Heartbeat(request) => Self::post("/instance/heartbeat", request),
            Call::Instances => Self::get("/instance/list"),
            Call::RemoveInstance(id) => Self::new(Method::DELETE, path("/instance/", id)),
            Call::Status => Self::get("/status"),
            Call::Cleanup(request) => Self::post("/cleanup", request),
            Call::Assignments(None) => Self::get("/assignments"),
            Call::Assignments(Some(project)) => {
                Self::get(path("/assignments?project_path=", project))
            }
            Call::Assign(request) => Self::post("/assign", request),
            Call::Allocations => Self::get("/allocations"),
            Call::Scan(start, end) => Self::get(format!("/scan?start={start}&end={end}")),
            Call::Config => Self::get("/config"),
        }
    }
}

/// All but the unreserved characters (RFC 3986, 2.3).
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// `prefix` and `part`, which stays one part of the path whatever it is.
fn path(prefix: &str, part: &str) -> String {
    format!("{prefix}{}", utf8_percent_encode(part, RESERVED))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api;

    #[test]
    fn text_from_people_stays_one_part_of_the_path() {
        let request = Request::from(&Call::Release("a/../b?c#d e%ü".to_owned()));
        assert_eq!(request.method, Method::DELETE);
        assert_eq!(request.target, "/allocate/a%2F..%2Fb%3Fc%23d%20e%25%C3%BC");
        let request = Request::from(&Call::Assignments(Some("/home/u/a&b=c".to_owned())));
        assert_eq!(request.target, "/assignments?project_path=%2Fhome%2Fu%2Fa%26b%3Dc");
    }

    #[test]
    fn a_call_is_the_route_of_the_interface() {
        let lease = api::RenewRequest { lease_seconds: Some(60) };
        let request = Request::from(&Call::Renew("id".to_owned(), lease));
        assert_eq!(request.target, "/allocate/id/renew");
        assert_eq!(request.body.as_deref(), Some(&br#"{"lease_seconds":60}"#[..]));

        let request = Request::from(&Call::Check(3000, api::Protocol::Both));
        assert_eq!(request, Request::get("/check/3000?protocol=both"));
        let request = Request::from(&Call::Suggest("dev".to_owned(), None, 3));
        assert_eq!(request, Request::get("/suggest/dev?count=3"));
        let request = Request::from(&Call::Suggest("dev".to_owned(), Some(3000), 3));
        assert_eq!(request, Request::get("/suggest/dev?count=3&preferred_port=3000"));
    }
}
