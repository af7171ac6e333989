//! A word of a command line, and who wrote it.

use std::ffi::OsString;

/// One word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Word {
    /// What it says. What is not UTF-8 names nothing that is known here.
    pub(super) text: String,
    /// Whether it was typed; the others stand in a script.
    pub(super) typed: bool,
}

impl Word {
    /// The words of a command that was typed.
    pub(super) fn typed(words: &[OsString]) -> Vec<Self> {
        let word =
            |word: &OsString| Self { text: word.to_string_lossy().into_owned(), typed: true };
        words.iter().map(word).collect()
    }

    /// The words of a script.
    pub(super) fn written(words: Vec<String>) -> Vec<Self> {
        words.into_iter().map(|text| Self { text, typed: false }).collect()
    }

    /// Whether it is an option.
    pub(super) fn is_option(&self) -> bool {
        self.text.len() > 1 && self.text.starts_with('-')
    }

    /// Whether it sets a variable for the command behind it (POSIX.1-2017 XCU 2.10.2, rule 7).
    pub(super) fn is_assignment(&self) -> bool {
        let Some((name, _)) = self.text.split_once('=') else { return false };
        let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        !name.is_empty()
            && name.bytes().all(is_letter)
            && !name.starts_with(|letter: char| letter.is_ascii_digit())
    }

    /// The file's name in a path.
    pub(super) fn base(&self) -> &str {
        base(&self.text)
    }
}

/// The file's name in a path.
pub(super) fn base(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// How many words at the front are options; those in `valued`, separated by spaces, take the next
/// word as their value. A `--` ends the options and counts as one.
pub(super) fn options(words: &[Word], valued: &str) -> usize {
    let mut count = 0;
    while let Some(word) = words.get(count).filter(|word| word.is_option()) {
        if word.text == "--" {
            return count + 1;
        }
        count += 1 + usize::from(valued.split(' ').any(|option| option == word.text));
    }
    count.min(words.len())
}
