//! Errors become answers, once: a status, a code, and never anything but JSON.

use hyper::{Response, StatusCode};
use serde_json::{Map, Value, json};

use super::reply::{self, Reply};
use crate::api::ErrorResponse;
use crate::error::{self, Error};

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

    pub(super) fn into_response(self) -> Response<Reply> {
        let body = serde_json::to_string(&self.body).unwrap_or_default();
        reply::json(self.status, body)
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
