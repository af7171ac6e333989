//! Errors become answers, once: a status, a code, and never anything but JSON.

use axum::body::Body;
use axum::http::{HeaderValue, Response, StatusCode, header};
use axum::response::IntoResponse;
use serde_json::{Map, Value, json};

use crate::api::ErrorResponse;
use crate::error::{self, Error};
use crate::text::printable_json;

/// A request that was refused before or by the coordinator.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) body: Box<ErrorResponse>,
}

impl Refusal {
    /// A refusal of the interface itself: guard, router, body.
    pub(super) fn new(
        status: StatusCode,
        code: &'static str,
        error: impl AsRef<str>,
        suggestion: &str,
    ) -> Self {
        let mut context = Map::new();
        context.insert("suggestions".to_owned(), json!([suggestion]));
        Self { status, body: Box::new(error::response(code, error.as_ref(), context)) }
    }

    /// Adds a fact.
    pub(super) fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.body.context.insert(name.to_owned(), value.into());
        self
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self { status: status(&error), body: Box::new(error.to_response()) }
    }
}

fn status(error: &Error) -> StatusCode {
    match error {
        Error::MalformedRequest(_) => StatusCode::BAD_REQUEST,
        Error::UnknownLock(_) | Error::UnknownInstance(_) => StatusCode::NOT_FOUND,
        Error::PortUnavailable { .. }
        | Error::AlreadyRunning { .. }
        | Error::LockIdConflict { .. }
        | Error::ForeignNamespace => StatusCode::CONFLICT,
        Error::InvalidValue { .. }
        | Error::UnknownServiceType { .. }
        | Error::UnknownProcess { .. } => StatusCode::UNPROCESSABLE_ENTITY,
        Error::RangeExhausted { .. } | Error::ShuttingDown => StatusCode::SERVICE_UNAVAILABLE,
        Error::StateNotWritable(_) => StatusCode::INSUFFICIENT_STORAGE,
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response<Body> {
        let body = serde_json::to_string(&self.body).unwrap_or_default();
        json_response(self.status, body)
    }
}

/// An answer of JSON text. A person may have asked, with curl and a terminal.
pub(super) fn json_response(status: StatusCode, body: String) -> Response<Body> {
    let mut response = Response::new(Body::from(printable_json(body)));
    *response.status_mut() = status;
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}
