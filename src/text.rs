//! Text from elsewhere, made harmless for logs, terminals and messages.

use std::borrow::Cow;

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
    fn what_people_write_stays_as_it_is() {
        for text in ["it's \"ünïcode\" and 漢字 👩‍💻", "C:\\dir\\u{1b}", "e\u{301}"] {
            assert_eq!(printable(text), text);
            assert_eq!(printable(&printable(text)), text);
        }
    }
}
