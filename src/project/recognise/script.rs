//! The command line of a package script, as far as it can be read without a shell.

use std::iter::Peekable;
use std::str::Chars;

/// What a script does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Script {
    /// It runs one command. These are its words.
    One(Vec<String>),
    /// It runs one command after another, and this is the last one; the second value is where
    /// it was started if the script went there with `cd` first.
    Last(Vec<String>, Option<String>),
    /// Only a shell can tell.
    Opaque,
}

/// Reads a script (POSIX.1-2017 XCU 2, no more than its quoting and its operators).
///
/// Expansions stay as they are written: `$PORT` is a word like any other.
pub(super) fn read(line: &str) -> Script {
    let Some(mut commands) = commands(line) else { return Script::Opaque };
    let Some(last) = commands.pop() else { return Script::Opaque };
    if commands.is_empty() {
        return Script::One(last);
    }
    let gone: Vec<_> = commands.iter().filter(|command| command[0] == "cd").collect();
    match gone[..] {
        [] => Script::Last(last, None),
        [command] if command.len() == 2 => Script::Last(last, Some(command[1].clone())),
        _ => Script::Opaque,
    }
}

/// The commands between `&&`, `;` and newlines. `None` where anything else connects them.
fn commands(line: &str) -> Option<Vec<Vec<String>>> {
    let mut commands = Vec::new();
    let mut words: Vec<String> = Vec::new();
    let mut word: Option<String> = None;
    let mut letters = line.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '\'' => {
                let quoted = word.get_or_insert_default();
                while let Some(letter) = Some(letters.next()?).filter(|letter| *letter != '\'') {
                    quoted.push(letter);
                }
            }
            '"' => word.get_or_insert_default().push_str(&double_quoted(&mut letters)?),
            '\\' => word.get_or_insert_default().push(letters.next()?),
            ' ' | '\t' => words.extend(word.take()),
            ';' | '\n' => end_command(&mut commands, &mut words, &mut word),
            '&' => {
                // A single `&` starts the next command beside this one.
                letters.next_if_eq(&'&')?;
                end_command(&mut commands, &mut words, &mut word);
            }
            '|' | '<' | '>' | '(' | ')' | '`' => return None,
            letter => word.get_or_insert_default().push(letter),
        }
    }
    end_command(&mut commands, &mut words, &mut word);
    Some(commands)
}

/// The rest of a double-quoted string, with its end.
fn double_quoted(letters: &mut Peekable<Chars>) -> Option<String> {
    let mut quoted = String::new();
    loop {
        match letters.next()? {
            '"' => return Some(quoted),
            '\\' if matches!(letters.peek()?, '"' | '\\' | '$' | '`') => {
                quoted.extend(letters.next());
            }
            '`' => return None,
            '$' if letters.peek() == Some(&'(') => return None,
            letter => quoted.push(letter),
        }
    }
}

fn end_command(
    commands: &mut Vec<Vec<String>>,
    words: &mut Vec<String>,
    word: &mut Option<String>,
) {
    words.extend(word.take());
    if !words.is_empty() {
        commands.push(std::mem::take(words));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split('|').map(str::to_owned).collect()
    }

    #[test]
    fn a_single_command_is_split_as_a_shell_would() {
        for (line, expected) in [
            ("vite", "vite"),
            ("  next  dev\t-p 3000 ", "next|dev|-p|3000"),
            ("vite --mode 'a b' --base \"c \\\"d\\\"\"", "vite|--mode|a b|--base|c \"d\""),
            ("node a\\ b.js", "node|a b.js"),
            ("vite --port $PORT", "vite|--port|$PORT"),
            ("vite --port ${PORT:-3000}", "vite|--port|${PORT:-3000}"),
            ("A='' vite", "A=|vite"),
            ("vite;", "vite"),
        ] {
            assert_eq!(read(line), Script::One(words(expected)), "{line}");
        }
    }

    #[test]
    fn of_several_commands_the_last_one_stays() {
        for (line, expected, directory) in [
            ("tsc -b && vite", "vite", None),
            ("rm -rf out; next dev", "next|dev", None),
            ("cd web && npm run dev", "npm|run|dev", Some("web".to_owned())),
        ] {
            assert_eq!(read(line), Script::Last(words(expected), directory), "{line}");
        }
    }

    #[test]
    fn what_needs_a_shell_is_opaque() {
        for line in [
            "",
            "vite | tee log",
            "vite > log",
            "npm run css & npm run dev",
            "vite & ",
            "a || b",
            "(cd web; vite)",
            "vite --port $(styxy get web)",
            "vite --port `port`",
            "vite --port \"$(styxy get web)\"",
            "vite 'unfinished",
            "vite \"unfinished",
            "vite \\",
            "cd a && cd b && vite",
        ] {
            assert_eq!(read(line), Script::Opaque, "{line}");
        }
    }
}
