//! A TOML text with its places: values by kind, and what is wrong with them by line and column.
//!
//! Nothing here ends the reading. A mistake is noted, the value is `None`, and the next one is
//! read, so that a person sees all mistakes at once.

use std::ops::{Range, RangeInclusive};
use std::path::Path;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeInteger, DeString, DeTable, DeValue, Error};

use super::{Diagnostic, nearest};
use crate::text::printable;

/// A key with its place.
pub(crate) type Key<'t> = Spanned<DeString<'t>>;
/// A value with its place.
pub(crate) type Value<'t> = Spanned<DeValue<'t>>;

/// The mistakes of one file, and where its text is of no use.
pub(crate) struct Reader<'t> {
    file: &'t Path,
    text: &'t str,
    /// Where a syntax error leaves in doubt what was meant, in bytes.
    doubtful: Vec<Range<usize>>,
    diagnostics: Vec<Diagnostic>,
    /// How many more mistakes there are than anybody reads.
    unlisted: usize,
}

impl<'t> Reader<'t> {
    /// Reads `text` as TOML, as far as it is.
    pub(crate) fn new(file: &'t Path, text: &'t str) -> (Self, DeTable<'t>) {
        let (table, errors) = DeTable::parse_recoverable(text);
        let mut reader =
            Self { file, text, doubtful: Vec::new(), diagnostics: Vec::new(), unlisted: 0 };
        for error in &errors {
            reader.syntax_error(error);
        }
        (reader, table.into_inner())
    }

    /// What was found, in the order of the text.
    pub(crate) fn into_diagnostics(mut self) -> Vec<Diagnostic> {
        self.diagnostics.sort_by_key(|found| (found.line, found.column));
        if let Some(last) = self.diagnostics.last()
            && self.unlisted > 0
        {
            let message = format!("{} more mistakes are not listed", self.unlisted);
            self.diagnostics.push(Diagnostic { message, ..last.clone() });
        }
        self.diagnostics
    }

    /// Notes that what stands at `place` is left out.
    pub(crate) fn error(&mut self, place: Range<usize>, message: String) {
        self.note(place, message, false);
    }

    /// Notes what may be wrong at `place`, which is used all the same.
    pub(crate) fn warning(&mut self, place: Range<usize>, message: String) {
        self.note(place, message, true);
    }

    /// Notes a key that means nothing in `table`.
    pub(crate) fn unknown_key(&mut self, key: &Key<'t>, known: &[&str], table: &str) {
        let given = key.get_ref();
        let hint = match nearest(given, known.iter().copied()) {
            Some(word) => format!("did you mean '{word}'?"),
            None => format!("known are {}", known.join(", ")),
        };
        self.error(key.span(), format!("unknown key {} in {table}; {hint}", quoted(given)));
    }

    /// Whether a syntax error leaves in doubt what this key or its value was meant to be.
    pub(crate) fn is_doubtful(&self, key: &Key<'t>, value: &Value<'t>) -> bool {
        let start = key.span().start;
        // A table's own span is its header; its keys are looked at one by one.
        let end = if value.get_ref().is_table() { key.span().end } else { value.span().end };
        self.doubtful.iter().any(|doubt| start < doubt.end && doubt.start <= end)
    }

    /// A table, or an error that shows how one is written.
    pub(crate) fn table<'a>(
        &mut self,
        name: &str,
        value: &'a Value<'t>,
        example: &str,
    ) -> Option<&'a DeTable<'t>> {
        value.get_ref().as_table().or_else(|| self.wrong_type(name, value, example))
    }

    /// A string.
    pub(crate) fn string(&mut self, name: &str, value: &Value<'t>) -> Option<String> {
        match value.get_ref() {
            DeValue::String(text) => Some(text.clone().into_owned()),
            _ => self.wrong_type(name, value, "a string"),
        }
    }

    /// A port.
    pub(crate) fn port(&mut self, name: &str, value: &Value<'t>) -> Option<u16> {
        let DeValue::Integer(number) = value.get_ref() else {
            return self.wrong_type(name, value, "a port such as 8000");
        };
        let port = port_of(number);
        if port.is_none() {
            self.error(value.span(), format!("{name}: {number} is not a port: {PORTS}"));
        }
        port
    }

    /// A list of ports; what is no port is left out of it.
    pub(crate) fn ports(&mut self, name: &str, value: &Value<'t>) -> Option<Vec<u16>> {
        let DeValue::Array(list) = value.get_ref() else {
            return self.wrong_type(name, value, "a list of ports such as [8000, 8080]");
        };
        Some(list.iter().filter_map(|port| self.port(name, port)).collect())
    }

    /// A range, written `[FIRST, LAST]`.
    pub(crate) fn range(&mut self, name: &str, value: &Value<'t>) -> Option<RangeInclusive<u16>> {
        const EXAMPLE: &str = "a first and a last port such as [8000, 8099]";
        let DeValue::Array(ends) = value.get_ref() else {
            return self.wrong_type(name, value, EXAMPLE);
        };
        let [first, last] = ends.as_ref() else {
            let found = ends.len();
            self.error(value.span(), format!("{name}: expected {EXAMPLE}, found {found} values"));
            return None;
        };
        // Both are read before either is judged, so that both are reported.
        let (first, last) = (self.port(name, first), self.port(name, last));
        self.forwards(name, value, first?, last?)
    }

    /// A list of ports and of ranges written `"FIRST-LAST"`; what is neither is left out of it.
    pub(crate) fn ports_and_ranges(
        &mut self,
        name: &str,
        value: &Value<'t>,
    ) -> Option<Vec<RangeInclusive<u16>>> {
        let DeValue::Array(list) = value.get_ref() else {
            return self.wrong_type(name, value, r#"a list such as [5000, "6000-6005"]"#);
        };
        Some(list.iter().filter_map(|item| self.port_or_range(name, item)).collect())
    }

    /// A time span of `shortest` to one year, written as humantime does: `10m`, `1h 30m`.
    pub(crate) fn duration(
        &mut self,
        name: &str,
        value: &Value<'t>,
        shortest: Duration,
    ) -> Option<Duration> {
        let DeValue::String(text) = value.get_ref() else {
            return self.wrong_type(name, value, r#"a duration such as "10m""#);
        };
        let wrong = match humantime::parse_duration(text) {
            Ok(duration) if duration < shortest => {
                format!("is too short: it has to be at least {}", in_words(shortest))
            }
            Ok(duration) if duration > LONGEST => "is too long: a year is the most".to_owned(),
            Ok(duration) => return Some(duration),
            Err(error) => format!("is not a duration: {error}"),
        };
        self.error(value.span(), format!("{name}: {} {wrong}", quoted(text)));
        None
    }

    /// Notes that `value` is of another kind than `expected`.
    pub(crate) fn wrong_type<T>(
        &mut self,
        name: &str,
        value: &Value<'t>,
        expected: &str,
    ) -> Option<T> {
        let found = value.get_ref().type_str();
        let article = if found.starts_with(['a', 'i']) { "an" } else { "a" };
        self.error(value.span(), format!("{name}: expected {expected}, found {article} {found}"));
        None
    }

    fn port_or_range(&mut self, name: &str, item: &Value<'t>) -> Option<RangeInclusive<u16>> {
        match item.get_ref() {
            DeValue::Integer(_) => self.port(name, item).map(|port| port..=port),
            DeValue::String(text) => {
                let ends = text
                    .split_once('-')
                    .and_then(|(first, last)| Some((port_in_words(first)?, port_in_words(last)?)));
                let Some((first, last)) = ends else {
                    let given = quoted(text);
                    self.error(
                        item.span(),
                        format!(r#"{name}: {given} is not a range such as "6000-6005"; {PORTS}"#),
                    );
                    return None;
                };
                self.forwards(name, item, first, last)
            }
            _ => self.wrong_type(name, item, r#"a port such as 5000 or a range "6000-6005""#),
        }
    }

    fn forwards(
        &mut self,
        name: &str,
        value: &Value<'t>,
        first: u16,
        last: u16,
    ) -> Option<RangeInclusive<u16>> {
        if first > last {
            self.error(
                value.span(),
                format!("{name}: {first} to {last} is backwards: the lower port comes first"),
            );
            return None;
        }
        Some(first..=last)
    }

    /// Notes a syntax error, unless it follows from one that was noted already.
    ///
    /// What is in doubt is the text from the line of the error to the next table header: after a
    /// broken header the keys would otherwise go to the table before it.
    fn syntax_error(&mut self, error: &Error) {
        let length = self.text.len();
        let place = error.span().unwrap_or(length..length);
        if self.doubtful.iter().any(|doubt| (doubt.start..=doubt.end).contains(&place.start)) {
            return;
        }
        let before = &self.text.as_bytes()[..place.start.min(length)];
        let line = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1);
        // What the end of the text cuts off began before it, maybe lines ago.
        let start =
            if before.len() == length { line.min(before.trim_ascii_end().len()) } else { line };
        let is_hopeless = self.doubtful.len() == MOST_SYNTAX_ERRORS;
        let doubt = if is_hopeless { 0..length } else { start..self.next_header(place.end) };
        self.doubtful.push(doubt);
        self.error(place, format!("not TOML: {}", error.message()));
    }

    /// Where the next line after `place` that begins with `[` begins, or the end of the text.
    fn next_header(&self, place: usize) -> usize {
        let bytes = self.text.as_bytes();
        let mut at = place.min(bytes.len());
        while let Some(newline) = bytes[at..].iter().position(|byte| *byte == b'\n') {
            at += newline + 1;
            if bytes[at..].trim_ascii_start().starts_with(b"[") {
                return at;
            }
        }
        bytes.len()
    }

    fn note(&mut self, place: Range<usize>, message: String, is_warning: bool) {
        if self.diagnostics.len() == MOST_DIAGNOSTICS {
            self.unlisted += 1;
            return;
        }
        let (line, column) = position(self.text.as_bytes(), place.start);
        let file = self.file.to_owned();
        self.diagnostics.push(Diagnostic { file, line, column, message, is_warning });
    }
}

/// With more syntax errors than this the file is something else than TOML: nothing of it is used,
/// and nobody wants to read them all.
const MOST_SYNTAX_ERRORS: usize = 20;

/// The log of a daemon that starts again and again must not be filled by one bad file.
const MOST_DIAGNOSTICS: usize = 100;

const PORTS: &str = "ports go from 1 to 65535";

/// The longest time span: sums of it with a clock's time never overflow.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// The line and the column of a byte, both from 1, the column in characters.
pub(super) fn position(text: &[u8], byte: usize) -> (usize, usize) {
    let before = &text[..byte.min(text.len())];
    let lines = before.split(|byte| *byte == b'\n').enumerate();
    let (line, in_line) = lines.last().unwrap_or((0, before));
    // A byte order mark is no character of the text.
    let in_line = in_line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(in_line);
    // Of a character's bytes in UTF-8, only the first is not 0b10xx_xxxx.
    let characters = in_line.iter().filter(|byte| **byte & 0xc0 != 0x80).count();
    (line + 1, characters + 1)
}

/// Text of a file as a message shows it: in quotes, short, without control characters.
pub(crate) fn quoted(given: &str) -> String {
    const MOST: usize = 64;
    match given.char_indices().nth(MOST) {
        Some((end, _)) => format!("'{}…'", printable(&given[..end])),
        None => format!("'{}'", printable(given)),
    }
}

fn in_words(duration: Duration) -> impl std::fmt::Display {
    humantime::format_duration(duration)
}

fn port_of(number: &DeInteger<'_>) -> Option<u16> {
    u16::from_str_radix(number.as_str(), number.radix()).ok().filter(|port| *port > 0)
}

fn port_in_words(text: &str) -> Option<u16> {
    let digits = text.trim();
    // parse() would take a sign.
    let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|port| is_number && *port > 0)
}
