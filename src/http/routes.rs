//! The routes: one table, for the router and for whoever compares it with what is written of it.

use std::sync::Arc;

use axum::Router;
use axum::routing::{MethodFilter, on};

use super::handlers;
use crate::coordinator::Coordinator;

/// Makes the list of routes and the router from the same rows: a method, a path as OpenAPI and axum
/// both write it, and the handler.
macro_rules! routes {
    ($($method:ident $path:literal => $handler:ident;)+) => {
        /// Every route: method, and path as OpenAPI writes it.
        pub const ROUTES: &[(&str, &str)] = &[$((stringify!($method), $path)),+];

        /// The router of one coordinator.
        pub(super) fn router(coordinator: Arc<Coordinator>) -> Router {
            Router::new()
                $(.route($path, on(MethodFilter::$method, handlers::$handler)))+
                .fallback(handlers::unknown_route)
                .method_not_allowed_fallback(handlers::method_not_allowed)
                .with_state(coordinator)
        }
    };
}

routes! {
    POST "/allocate" => allocate;
    POST "/allocate/batch" => allocate_batch;
    POST "/allocate/{lockId}/renew" => renew;
    DELETE "/allocate/{lockId}" => release;
    GET "/check/{port}" => check;
    GET "/suggest/{serviceType}" => suggest;
    POST "/instance/register" => register;
    POST "/instance/heartbeat" => heartbeat;
    PUT "/instance/{id}/heartbeat" => heartbeat_of;
    GET "/instance/list" => instances;
    DELETE "/instance/{id}" => remove_instance;
    GET "/status" => status;
    POST "/cleanup" => cleanup;
    GET "/assignments" => assignments;
    POST "/assign" => assign;
    GET "/allocations" => allocations;
    GET "/scan" => scan;
    GET "/config" => config;
    GET "/events" => events;
    GET "/openapi.json" => openapi;
}
