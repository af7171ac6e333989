//! The right word for a misspelt one.

/// A word that is longer than this is no misspelling, and comparing it would cost time: a request
/// may hold 64 KiB of it.
const LONGEST: usize = 64;

/// The word of `known` that `given` was most likely meant to be; of two as likely, the first.
///
/// A third of its letters may be wrong, swapped, missing or too many, and at least one. A beginning
/// of three letters or more counts as one mistake, in both directions: `story` is `storybook`, and
/// `development` is `dev`. Capitals don't count.
pub fn nearest<'a>(given: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if given.is_empty() || given.len() > LONGEST {
        return None;
    }
    let given = given.to_lowercase();
    let allowed = (given.chars().count() / 3).max(1);
    known
        .into_iter()
        .map(|word| (mistakes(&given, word), word))
        .filter(|(mistakes, _)| *mistakes <= allowed)
        .min_by_key(|(mistakes, _)| *mistakes)
        .map(|(_, word)| word)
}

fn mistakes(given: &str, word: &str) -> usize {
    let is_beginning = given.len().min(word.len()) >= 3
        && (word.starts_with(given) || given.starts_with(word))
        && given != word;
    if is_beginning { 1 } else { strsim::damerau_levenshtein(given, word) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [&str; 6] = ["api", "database", "dev", "docs", "storybook", "test"];

    #[test]
    fn misspelling_finds_its_word() {
        for (given, word) in [
            ("dve", "dev"),
            ("Dev", "dev"),
            ("development", "dev"),
            ("tests", "test"),
            ("testing", "test"),
            ("datbase", "database"),
            ("story", "storybook"),
            ("story-book", "storybook"),
            ("apis", "api"),
        ] {
            assert_eq!(nearest(given, KNOWN), Some(word), "{given}");
        }
    }

    #[test]
    fn another_word_finds_nothing() {
        let endless = "dev".repeat(1000);
        for given in ["", "web", "frontend", "x", "e2e", "ключ", &endless] {
            assert_eq!(nearest(given, KNOWN), None, "{given}");
        }
    }
}
