//! Commands that start the command behind them.

use super::word::{Word, options};

/// The words of the wrapper, and those of its options that take the next word as their value.
///
/// An option that takes the command to another directory is missing on purpose: behind it stands a
/// word that names no program, so nothing is recognised.
const WRAPPERS: &[(&str, &str)] = &[
    // The shell's and the system's.
    ("command", ""),
    ("env", "-u --unset"),
    ("exec", "-a"),
    ("ionice", "-c -n --class --classdata"),
    ("nice", "-n --adjustment"),
    ("nohup", ""),
    ("setsid", ""),
    ("stdbuf", "-i -o -e"),
    ("time", "-f -o --format --output"),
    // For variables.
    ("cross-env", ""),
    ("direnv exec .", ""),
    ("doppler run", "-p --project -c --config"),
    ("dotenv", "-e -p -v -f"),
    ("dotenvx run", "-f --env-file -e --env -fv"),
    ("env-cmd", "-f --file -e --environments -r --rc-file"),
    ("infisical run", "--env --path"),
    ("op run", "--env-file --account"),
    // For versions of programs and for their libraries.
    ("asdf exec", ""),
    ("bundle exec", ""),
    ("corepack", ""),
    ("hatch run", ""),
    ("mise exec", ""),
    ("mise x", ""),
    ("pdm run", ""),
    ("pipenv run", ""),
    ("poetry run", ""),
    ("rye run", ""),
    ("uv run", "-p --python --with --with-requirements --env-file --extra --group --index-url"),
    ("volta run", "--node --npm --yarn --pnpm"),
];

/// The command behind the wrapper at the front, if there is one.
pub(super) fn behind(words: &[Word]) -> Option<&[Word]> {
    let first = words.first()?.base();
    let (wrapper, valued) = WRAPPERS.iter().find(|(wrapper, _)| {
        let mut wanted = wrapper.split(' ');
        let rest = wanted.clone().count();
        wanted.next() == Some(first)
            && words.len() >= rest
            && wanted.zip(&words[1..]).all(|(wanted, word)| wanted == word.text)
    })?;
    let rest = &words[wrapper.split(' ').count()..];
    Some(&rest[options(rest, valued)..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_behind_a_wrapper_is_found() {
        for (line, expected) in [
            ("env -u A -i B=1 vite", Some("B=1 vite")),
            ("/usr/bin/nohup vite --host", Some("vite --host")),
            ("time -p vite", Some("vite")),
            ("dotenv -e .env.local -- next dev", Some("next dev")),
            ("uv run --with flask -- flask run", Some("flask run")),
            ("poetry run flask run", Some("flask run")),
            ("bundle exec rails server", Some("rails server")),
            ("bundle install", None),
            ("uv", None),
            ("vite", None),
            ("env", Some("")),
            ("nice -n", Some("")),
        ] {
            let words = Word::written(line.split(' ').map(str::to_owned).collect());
            let found = behind(&words).map(|words| {
                let words: Vec<_> = words.iter().map(|word| word.text.as_str()).collect();
                words.join(" ")
            });
            assert_eq!(found.as_deref(), expected, "{line}");
        }
    }
}
