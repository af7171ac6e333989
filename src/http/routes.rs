//! The routes: one table, for what a request finds and for whoever compares it with what is written
//! of it.

use hyper::Method;

/// Makes the list of routes and what tells them apart from the same rows: a method, a path as
/// OpenAPI writes it, and a name.
macro_rules! routes {
    ($($method:ident $path:literal => $route:ident;)+) => {
        /// What can be asked for.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(super) enum Route {
            $($route),+
        }

        /// Every route: its method, and its path as OpenAPI writes it.
        pub const ROUTES: &[(&str, &str)] = &[$((stringify!($method), $path)),+];

        const ROWS: &[Row] = &[
            $(Row { method: Method::$method, path: $path, route: Route::$route }),+
        ];
    };
}

// The first path that matches counts, whatever its methods: what is written out stands before what
// has a parameter.
routes! {
    POST "/allocate" => Allocate;
    POST "/allocate/batch" => AllocateBatch;
    DELETE "/allocate/{lockId}" => Release;
    POST "/allocate/{lockId}/renew" => Renew;
    GET "/check/{port}" => Check;
    GET "/suggest/{serviceType}" => Suggest;
    POST "/instance/register" => Register;
    POST "/instance/heartbeat" => Heartbeat;
    PUT "/instance/{id}/heartbeat" => HeartbeatOf;
    GET "/instance/list" => Instances;
    DELETE "/instance/{id}" => RemoveInstance;
    GET "/status" => Status;
    POST "/cleanup" => Cleanup;
    GET "/assignments" => Assignments;
    POST "/assign" => Assign;
    GET "/allocations" => Allocations;
    GET "/scan" => Scan;
    GET "/config" => Config;
    GET "/events" => Events;
    GET "/openapi.json" => OpenApi;
}

struct Row {
    method: Method,
    path: &'static str,
    route: Route,
}

/// Where a request goes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found<'p> {
    /// There, with the one parameter of its path; empty where it has none.
    Route(Route, &'p str),
    /// Nowhere with this method; these are allowed, as the header `Allow` has them.
    OtherMethod(String),
    Nowhere,
}

impl Row {
    /// The parameter of a path that this row is for; empty where it has none.
    fn parameter<'p>(&self, path: &'p str) -> Option<&'p str> {
        let Some((before, rest)) = self.path.split_once('{') else {
            return (self.path == path).then_some("");
        };
        let (_, after) = rest.split_once('}')?;
        let parameter = path.strip_prefix(before)?.strip_suffix(after)?;
        (!parameter.is_empty() && !parameter.contains('/')).then_some(parameter)
    }

    /// RFC 9110, 9.3.2: a HEAD is a GET whose content is not sent. hyper leaves it out.
    fn takes(&self, method: &Method) -> bool {
        self.method == method || self.method == Method::GET && method == Method::HEAD
    }
}

/// Finds the route of a request.
pub(super) fn find<'p>(method: &Method, path: &'p str) -> Found<'p> {
    let matching = |row: &Row| Some((row.path, row.parameter(path)?));
    let Some((found, parameter)) = ROWS.iter().find_map(matching) else { return Found::Nowhere };
    let mut allowed = Vec::new();
    for row in ROWS.iter().filter(|row| row.path == found) {
        if row.takes(method) {
            return Found::Route(row.route, parameter);
        }
        allowed.push(row.method.as_str());
        if row.method == Method::GET {
            allowed.push("HEAD");
        }
    }
    Found::OtherMethod(allowed.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_finds_its_route() {
        let to = |route, parameter| Found::Route(route, parameter);
        for (method, path, expected) in [
            (Method::POST, "/allocate", to(Route::Allocate, "")),
            (Method::POST, "/allocate/batch", to(Route::AllocateBatch, "")),
            (Method::DELETE, "/allocate/1f", to(Route::Release, "1f")),
            (Method::POST, "/allocate/1f/renew", to(Route::Renew, "1f")),
            (Method::GET, "/check/%33", to(Route::Check, "%33")),
            (Method::GET, "/check/{port}", to(Route::Check, "{port}")),
            (Method::HEAD, "/status", to(Route::Status, "")),
            (Method::DELETE, "/instance/x", to(Route::RemoveInstance, "x")),
            (Method::PUT, "/instance/x/heartbeat", to(Route::HeartbeatOf, "x")),
        ] {
            assert_eq!(find(&method, path), expected, "{method} {path}");
        }
    }

    #[test]
    fn what_has_no_route_is_told_why() {
        for path in ["/", "", "/status/", "/allocate/", "/check/1/2", "/allocate//renew", "/Status"]
        {
            assert_eq!(find(&Method::GET, path), Found::Nowhere, "{path}");
        }
        for (method, path, allowed) in [
            (Method::PATCH, "/allocate", "POST"),
            (Method::POST, "/status", "GET,HEAD"),
            // No lock id and no instance is called so.
            (Method::DELETE, "/allocate/batch", "POST"),
            (Method::DELETE, "/instance/list", "GET,HEAD"),
            (Method::HEAD, "/instance/x", "DELETE"),
        ] {
            let expected = Found::OtherMethod(allowed.to_owned());
            assert_eq!(find(&method, path), expected, "{method} {path}");
        }
    }
}
