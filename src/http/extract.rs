//! Bodies, path parameters and queries, with refusals that name what is wrong.

use std::future::Future;
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody as _};
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::{StatusCode, request::Parts};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::refusal::Refusal;
use crate::error::Error;

/// The largest body, in bytes.
const MAX_BODY: usize = 64 * 1024;

/// How long a body may take to arrive.
const BODY_PATIENCE: Duration = Duration::from_secs(10);

/// How much of a body that is too large is read and thrown away, in bytes, and for how long. Who
/// sends less has sent all of it before the answer comes, and so sees the answer: many clients look
/// for none while they write, and find a closed connection instead.
const MAX_DISCARDED: u64 = 1024 * 1024;
const DISCARD_PATIENCE: Duration = Duration::from_secs(1);

/// A JSON body.
pub(super) struct Json<T>(pub(super) T);

/// A JSON body that may be absent.
pub(super) struct OptionalJson<T>(pub(super) T);

/// The one parameter of a path.
pub(super) struct Parameter(pub(super) String);

/// The query of an address.
pub(super) struct Queried<T>(pub(super) T);

impl<S: Sync, T: DeserializeOwned> FromRequest<S> for Json<T> {
    type Rejection = Refusal;

    fn from_request(request: Request, _: &S) -> impl Future<Output = Result<Self, Refusal>> + Send {
        let body = request.into_body();
        async { parse(&read(body).await?).map(Self) }
    }
}

impl<S: Sync, T: DeserializeOwned + Default> FromRequest<S> for OptionalJson<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, _: &S) -> Result<Self, Refusal> {
        let body = read(request.into_body()).await?;
        if body.is_empty() { Ok(Self(T::default())) } else { parse(&body).map(Self) }
    }
}

async fn read(mut body: Body) -> Result<Bytes, Refusal> {
    // A Content-Length says it before anything has arrived.
    let length = body.size_hint().lower();
    if length > MAX_BODY as u64 {
        if length <= MAX_DISCARDED {
            discard(&mut body).await;
        }
        return Err(too_large());
    }
    let collected = Limited::new(&mut body, MAX_BODY).collect();
    let collected = tokio::time::timeout(BODY_PATIENCE, collected)
        .await
        .map_err(|_| Error::MalformedRequest("the body did not arrive in time".to_owned()))?;
    match collected {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            discard(&mut body).await;
            Err(too_large())
        }
        Err(error) => Err(Error::MalformedRequest(format!("the body broke off: {error}")).into()),
    }
}

/// Reads what is left of a body, within reason, and keeps nothing.
async fn discard(body: &mut Body) {
    let all = async {
        let mut left = MAX_DISCARDED;
        while let Some(Ok(frame)) = body.frame().await {
            let length = frame.data_ref().map_or(0, |data| data.len() as u64);
            let Some(rest) = left.checked_sub(length) else { return };
            left = rest;
        }
    };
    // Who is slower does not see why it was refused.
    let _ = tokio::time::timeout(DISCARD_PATIENCE, all).await;
}

fn too_large() -> Refusal {
    Refusal::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        "body_too_large",
        format!("a body has at most {MAX_BODY} bytes"),
        "send less at once",
    )
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    // serde also reads a struct from an array, field by field; the interface has objects alone.
    if body.trim_ascii_start().first() == Some(&b'[') {
        serde_json::from_slice::<Value>(body).map_err(|error| not_json(&error))?;
        return Err(Error::invalid("body", "an array, expected an object").into());
    }
    if let Ok(value) = serde_json::from_slice(body) {
        return Ok(value);
    }
    // Once more, to learn where it is wrong: that takes a string for each field.
    let mut json = serde_json::Deserializer::from_slice(body);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let field = error.path().to_string();
        let error = error.into_inner();
        // A number in an enum's place counts as a fault of syntax too.
        if error.is_data() || serde_json::from_slice::<Value>(body).is_ok() {
            wrong_value(&field, &error)
        } else {
            not_json(&error)
        }
    })?;
    json.end().map_err(|error| not_json(&error))?;
    Ok(value)
}

fn not_json(error: &serde_json::Error) -> Error {
    Error::MalformedRequest(format!("the body is not JSON: {error}"))
}

/// Names the field, which is missing or at `path`.
fn wrong_value(path: &str, error: &serde_json::Error) -> Error {
    // Without its " at line 1 column 8": there is one line, and the field says where.
    let reason = error.to_string();
    let reason = reason.split(" at line ").next().unwrap_or_default();
    let missing = reason.strip_prefix("missing field `").and_then(|rest| rest.strip_suffix('`'));
    match (path, missing) {
        (".", Some(field)) => Error::invalid(field, "is missing"),
        (".", None) => Error::invalid("body", reason),
        (path, Some(field)) => Error::invalid(format!("{path}.{field}"), "is missing"),
        (path, None) => Error::invalid(path, reason),
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Parameter {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let Path(value) = Path::from_request_parts(parts, state).await.map_err(|_| {
            Error::MalformedRequest("the address is not well-formed UTF-8".to_owned())
        })?;
        Ok(Self(value))
    }
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Queried<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let query = Query::from_request_parts(parts, state).await;
        let Query(value) =
            query.map_err(|rejection| Error::invalid("query", rejection.body_text()))?;
        Ok(Self(value))
    }
}

/// A port of a path. What is none is a bad address, not a bad value.
pub(super) fn port(parameter: &str) -> Result<u16, Error> {
    match parameter.parse() {
        // A sign is none of a port's digits, though a number may have one.
        Ok(port) if port > 0 && !parameter.starts_with('+') => Ok(port),
        _ => Err(Error::MalformedRequest(format!(
            "'{parameter}' is not a port: ports go from 1 to 65535"
        ))),
    }
}

/// A port of a query.
pub(super) fn queried_port(field: &str, value: &str) -> Result<u16, Error> {
    match value.parse() {
        Ok(port) if port > 0 => Ok(port),
        _ => {
            Err(Error::invalid(field, format!("'{value}' is not a port: they go from 1 to 65535")))
        }
    }
}
