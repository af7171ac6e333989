//! Bodies, path parameters and queries, with refusals that name what is wrong.

use std::borrow::Cow;
use std::future::poll_fn;
use std::pin::Pin;
use std::time::Duration;

use hyper::StatusCode;
use hyper::body::{Body as _, Bytes, Incoming};
use percent_encoding::percent_decode_str;
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

/// A request's body.
pub(super) async fn read(mut body: Incoming) -> Result<Bytes, Refusal> {
    // A Content-Length says it before anything has arrived.
    let length = body.size_hint().lower();
    if length > MAX_BODY as u64 {
        if length <= MAX_DISCARDED {
            discard(&mut body).await;
        }
        return Err(too_large());
    }
    let collected = tokio::time::timeout(BODY_PATIENCE, collect(&mut body))
        .await
        .map_err(|_| Error::MalformedRequest("the body did not arrive in time".to_owned()))?;
    match collected {
        Ok(Some(all)) => Ok(all),
        Ok(None) => {
            discard(&mut body).await;
            Err(too_large())
        }
        Err(error) => Err(Error::MalformedRequest(format!("the body broke off: {error}")).into()),
    }
}

/// All of a body; none when it is too large.
async fn collect(body: &mut Incoming) -> hyper::Result<Option<Bytes>> {
    let mut all = Bytes::new();
    let mut joined = Vec::new();
    while let Some(piece) = next(body).await.transpose()? {
        if all.is_empty() && joined.is_empty() {
            // Almost always there is no other.
            all = piece;
            continue;
        }
        if joined.is_empty() {
            joined.extend_from_slice(&all);
        }
        joined.extend_from_slice(&piece);
        if joined.len() > MAX_BODY {
            return Ok(None);
        }
    }
    let all = if joined.is_empty() { all } else { joined.into() };
    Ok((all.len() <= MAX_BODY).then_some(all))
}

/// Reads what is left of a body, within reason, and keeps nothing.
async fn discard(body: &mut Incoming) {
    let all = async {
        let mut left = MAX_DISCARDED;
        while let Some(Ok(piece)) = next(body).await {
            let Some(rest) = left.checked_sub(piece.len() as u64) else { return };
            left = rest;
        }
    };
    // Who is slower does not see why it was refused.
    let _ = tokio::time::timeout(DISCARD_PATIENCE, all).await;
}

/// The next piece of a body, in bytes. Trailers (RFC 9110, 6.5) say nothing here.
async fn next(body: &mut Incoming) -> Option<hyper::Result<Bytes>> {
    let frame = poll_fn(|context| Pin::new(&mut *body).poll_frame(context)).await?;
    Some(frame.map(|frame| frame.into_data().unwrap_or_default()))
}

fn too_large() -> Refusal {
    Refusal::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        "body_too_large",
        format!("a body has at most {MAX_BODY} bytes"),
        "send less at once",
    )
}

/// A JSON body.
pub(super) fn json<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
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

/// A JSON body that may be absent.
pub(super) fn optional_json<T: DeserializeOwned + Default>(body: &[u8]) -> Result<T, Refusal> {
    if body.is_empty() { Ok(T::default()) } else { json(body) }
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

/// The parameter of a path.
pub(super) fn parameter(encoded: &str) -> Result<String, Error> {
    let decoded = percent_decode_str(encoded).decode_utf8();
    let text = decoded
        .map_err(|_| Error::MalformedRequest("the address is not well-formed UTF-8".to_owned()))?;
    Ok(text.into_owned())
}

/// The value of a query's field, which may stand there once.
pub(super) fn queried<'q>(
    query: Option<&'q str>,
    field: &str,
) -> Result<Option<Cow<'q, str>>, Error> {
    let fields = form_urlencoded::parse(query.unwrap_or_default().as_bytes());
    let mut values = fields.filter(|(name, _)| name == field).map(|(_, value)| value);
    match (values.next(), values.next()) {
        (_, Some(_)) => Err(Error::invalid(field, "stands there twice")),
        (value, None) => Ok(value),
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
pub(super) fn queried_port(query: Option<&str>, field: &str) -> Result<Option<u16>, Error> {
    let Some(value) = queried(query, field)? else { return Ok(None) };
    match value.parse() {
        Ok(port) if port > 0 => Ok(Some(port)),
        _ => {
            Err(Error::invalid(field, format!("'{value}' is not a port: they go from 1 to 65535")))
        }
    }
}
