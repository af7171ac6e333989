//! What a request may say: sizes, characters, numbers. A bad value is named with its field.

use std::time::Duration;

use serde_json::{Map, Value};
use uuid::Uuid;

use crate::error::Error;

/// The longest name, in characters.
const MAX_NAME: usize = 128;

/// The longest path, in bytes: PATH_MAX of linux/limits.h.
const MAX_PATH: usize = 4096;

/// How deep metadata may be nested: whatever reads it again, and everything around it, must be able
/// to, and readers stop somewhere above 100.
const MAX_DEPTH: usize = 32;

/// The longest lease: a year, in seconds.
const MAX_LEASE: u64 = 365 * 24 * 60 * 60;

/// The most requests of one batch, the most services of one `POST /assign`, and the most ports that
/// one request avoids: as many as a styxy.toml may name.
const MAX_BATCH: usize = 64;

/// The most suggestions that one answer gives.
const MAX_SUGGESTIONS: usize = 1000;

/// Checks a name that people will read in logs and terminals.
pub(super) fn name(field: &str, value: &str) -> Result<(), Error> {
    if value.is_empty() {
        return Err(Error::invalid(field, "must not be empty"));
    }
    if value.chars().nth(MAX_NAME).is_some() {
        return Err(Error::invalid(field, format!("must be at most {MAX_NAME} characters long")));
    }
    if value.chars().any(|c| c.is_control() || reorders(c)) {
        return Err(Error::invalid(field, "must not contain control characters"));
    }
    Ok(())
}

/// Checks the id of an instance that is to be registered: it stands in addresses.
pub(super) fn instance_id(value: &str) -> Result<(), Error> {
    name("instance_id", value)?;
    // The last segment of another route, and what clients take out of a path before they send it
    // (RFC 3986, 5.2.4).
    if ["list", "register", "heartbeat", ".", ".."].contains(&value) {
        return Err(Error::invalid("instance_id", format!("must not be '{value}'")));
    }
    Ok(())
}

/// Checks what a client wants to be shown.
pub(super) fn metadata(values: &Map<String, Value>) -> Result<(), Error> {
    if values.values().any(|value| nests_deeper(value, MAX_DEPTH)) {
        let reason = format!("must not be nested deeper than {MAX_DEPTH} levels");
        return Err(Error::invalid("metadata", reason));
    }
    Ok(())
}

/// Whether `value` has more than `levels` arrays and objects within each other.
fn nests_deeper(value: &Value, levels: usize) -> bool {
    let within = |value: &Value| levels == 0 || nests_deeper(value, levels - 1);
    match value {
        Value::Array(values) => levels == 0 || values.iter().any(within),
        Value::Object(values) => levels == 0 || values.values().any(within),
        _ => false,
    }
}

/// Whether a character changes how the text around it is shown (Unicode UAX #9, and the line and
/// paragraph separators).
fn reorders(c: char) -> bool {
    matches!(c, '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Checks a path, and takes off its trailing slashes.
pub(super) fn path(field: &str, value: &str) -> Result<String, Error> {
    if !value.starts_with('/') {
        return Err(Error::invalid(field, "must be an absolute path"));
    }
    if value.len() > MAX_PATH {
        return Err(Error::invalid(field, format!("must be at most {MAX_PATH} bytes long")));
    }
    if value.contains('\0') {
        return Err(Error::invalid(field, "must not contain a NUL character"));
    }
    let trimmed = value.trim_end_matches('/');
    Ok(if trimmed.is_empty() { "/" } else { trimmed }.to_owned())
}

/// Checks a lease's length.
pub(super) fn lease(seconds: Option<u64>) -> Result<Option<Duration>, Error> {
    match seconds {
        Some(seconds) if !(1..=MAX_LEASE).contains(&seconds) => Err(Error::invalid(
            "lease_seconds",
            format!("must be from 1 to {MAX_LEASE} seconds, not {seconds}"),
        )),
        seconds => Ok(seconds.map(Duration::from_secs)),
    }
}

/// Reads a lock id that a client chose.
pub(super) fn chosen_lock_id(value: &str) -> Result<Uuid, Error> {
    Uuid::parse_str(value).map_err(|_| Error::invalid("lock_id", "must be a UUID"))
}

/// Reads a lock id that must name an allocation: what is no UUID names none.
pub(super) fn lock_id(value: &str) -> Result<Uuid, Error> {
    Uuid::parse_str(value).map_err(|_| Error::UnknownLock(value.chars().take(64).collect()))
}

/// Checks how many ports are to be avoided: each is looked for at every candidate.
pub(super) fn avoided(ports: &[u16]) -> Result<(), Error> {
    if ports.len() > MAX_BATCH {
        let reason = format!("must have at most {MAX_BATCH} entries, not {}", ports.len());
        return Err(Error::invalid("avoid_ports", reason));
    }
    Ok(())
}

/// Checks how many suggestions are asked for.
pub(super) fn count(count: usize) -> Result<usize, Error> {
    if (1..=MAX_SUGGESTIONS).contains(&count) {
        Ok(count)
    } else {
        Err(Error::invalid("count", format!("must be from 1 to {MAX_SUGGESTIONS}, not {count}")))
    }
}

/// Checks how many entries a list has.
pub(super) fn entries(field: &str, count: usize) -> Result<(), Error> {
    if (1..=MAX_BATCH).contains(&count) {
        Ok(())
    } else {
        Err(Error::invalid(field, format!("must have from 1 to {MAX_BATCH} entries, not {count}")))
    }
}

/// Says in which entry of a list a bad value stands.
pub(super) fn within(error: Error, list: &str, index: usize) -> Error {
    match error {
        Error::InvalidValue { field, reason } => {
            Error::InvalidValue { field: format!("{list}[{index}].{field}"), reason }
        }
        error => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_would_disturb_a_terminal_are_refused() {
        for bad in ["", "a\nb", "\u{1b}[31m", "a\u{202e}b", "a\u{2028}b", &"x".repeat(129)] {
            assert!(name("service_name", bad).is_err(), "{bad:?}");
        }
        for good in ["web", "main app", "größe", "名前", &"x".repeat(128)] {
            assert!(name("service_name", good).is_ok(), "{good:?}");
        }
    }

    #[test]
    fn paths_are_absolute_and_lose_their_trailing_slash() {
        assert_eq!(path("project_path", "/a/b//").expect("absolute"), "/a/b");
        assert_eq!(path("project_path", "//").expect("absolute"), "/");
        assert!(path("project_path", "a/b").is_err());
        assert!(path("project_path", "").is_err());
        assert!(path("project_path", &format!("/{}", "x".repeat(4096))).is_err());
    }

    #[test]
    fn leases_are_bounded() {
        assert!(lease(Some(0)).is_err());
        assert!(lease(Some(u64::MAX)).is_err());
        assert_eq!(lease(Some(60)).expect("fine"), Some(Duration::from_secs(60)));
    }
}
