//! Text from elsewhere, made harmless for logs, terminals and messages.

use std::borrow::Cow;
use std::fmt::Write as _;

/// `text` with what could steer a terminal, break a line or deceive a reader escaped as Rust does
/// it (`\u{1b}`): control characters, line separators, and the marks that turn the direction of
/// writing (UAX #9). Quotes and letters of any script stay as they are.
///
/// What went through it once comes out of it unchanged.
pub fn printable(text: &str) -> Cow<'_, str> {
    if !text.contains(is_harmful) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if is_harmful(c) {
            safe.extend(c.escape_default());
        } else {
            safe.push(c);
        }
    }
    Cow::Owned(safe)
}

/// JSON with the same escaped as JSON does it (`\u202e`). It is the same JSON, and may stand on a
/// terminal. Control characters of ASCII but the last are escaped in JSON already, or whitespace
/// between its values.
pub fn printable_json(json: String) -> String {
    // Almost all answers, and seen in passing.
    if json.is_ascii() && !json.contains('\u{7f}') {
        return json;
    }
    let mut safe = String::with_capacity(json.len() + 8);
    for c in json.chars() {
        if is_harmful(c) && c >= '\u{7f}' {
            // All of them are below U+10000, and writing to a String does not fail.
            let _ = write!(safe, "\\u{:04x}", u32::from(c));
        } else {
            safe.push(c);
        }
    }
    safe
}

fn is_harmful(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_text_cannot_steer_the_terminal() {
        assert_eq!(printable("\x1b[2Jgone\r\n\u{9b}1m"), "\\u{1b}[2Jgone\\r\\n\\u{9b}1m");
        assert_eq!(printable("abc\u{202e}cba\u{61c}"), "abc\\u{202e}cba\\u{61c}");
        assert_eq!(printable("a\u{2028}b"), "a\\u{2028}b");
    }

    #[test]
    fn json_is_escaped_as_json() {
        let value = serde_json::json!({ "\u{202e}": "\x1b\u{9b}\u{7f}\u{2028}", "漢": "ü\n" });
        for json in [value.to_string(), format!("{value:#}")] {
            let safe = printable_json(json);
            assert!(!safe.contains(|c| is_harmful(c) && c != '\n'), "{safe:?}");
            assert_eq!(serde_json::from_str::<serde_json::Value>(&safe).expect("JSON"), value);
            assert!(safe.contains('漢') && safe.contains('ü'), "{safe}");
        }
    }

    #[test]
    fn what_people_write_stays_as_it_is() {
        for text in ["it's \"ünïcode\" and 漢字 👩‍💻", "C:\\dir\\u{1b}", "e\u{301}"] {
            assert_eq!(printable(text), text);
            assert_eq!(printable(&printable(text)), text);
        }
    }
}
