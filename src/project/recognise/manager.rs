//! Package managers: which script or program they start, and how it gets arguments.

use std::path::{Path, PathBuf};

use super::word::{Word, base, options};

/// What a package manager was told to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Call {
    /// To run a script of the package in that directory.
    Script {
        /// The file that has it.
        manifest: &'static str,
        /// Its name.
        name: Word,
        /// What it passes on to the script.
        arguments: Vec<Word>,
        /// Where the package is looked for.
        directory: PathBuf,
        /// Whether an argument has to stand behind a `--` that isn't there.
        needs_separator: bool,
        /// Whether a program of that name is run where there is no such script.
        or_program: bool,
    },
    /// To run a program of a package.
    Program {
        /// Its name and arguments.
        words: Vec<Word>,
        /// As for a script.
        needs_separator: bool,
    },
    /// Something in several packages at once.
    Several(&'static str),
    /// Something in another package, or nothing that serves.
    Elsewhere,
}

/// What the package manager at the front of the words does; `None` if there is none.
pub(super) fn call(words: &[Word], directory: &Path) -> Option<Call> {
    let (first, rest) = words.split_first()?;
    match first.base() {
        "npm" => Some(npm(rest, directory)),
        "npx" | "bunx" | "pnpx" => Some(program(rest)),
        "pnpm" => Some(other(&PNPM, rest, directory)),
        "yarn" | "yarnpkg" => Some(other(&YARN, rest, directory)),
        "bun" => Some(other(&BUN, rest, directory)),
        "composer" => Some(composer(rest, directory)),
        _ => None,
    }
}

/// npm takes options everywhere before a `--`, and passes on the other words (npm-run(1)).
fn npm(words: &[Word], directory: &Path) -> Call {
    let end = words.iter().position(|word| word.text == "--");
    let (before, after) = words.split_at(end.unwrap_or(words.len()));
    let after = after.get(1..).unwrap_or_default();
    let mut directory = directory.to_owned();
    let mut plain = Vec::new();
    let mut before = before.iter();
    while let Some(word) = before.next() {
        match word.text.as_str() {
            "--prefix" | "-C" => match before.next() {
                Some(place) => directory.push(&place.text),
                None => return Call::Elsewhere,
            },
            "--loglevel" | "--userconfig" | "--package" | "-p" => drop(before.next()),
            "-ws" | "--workspaces" => return Call::Several("npm --workspaces"),
            "-w" | "--workspace" | "-c" | "--call" => return Call::Elsewhere,
            text if text.starts_with("--workspace=") => return Call::Elsewhere,
            text if text.starts_with("--prefix=") => directory.push(&text["--prefix=".len()..]),
            _ if word.is_option() => {}
            _ => plain.push(word.clone()),
        }
    }
    let needs_separator = end.is_none();
    let passed = |from: usize| [plain.get(from..).unwrap_or_default(), after].concat();
    let script = |name: &Word, from: usize| Call::Script {
        manifest: "package.json",
        name: name.clone(),
        arguments: passed(from),
        directory,
        needs_separator,
        or_program: false,
    };
    match (plain.first().map(|word| word.text.as_str()), plain.get(1)) {
        (Some("run" | "run-script" | "rum" | "urn"), Some(name)) => script(name, 2),
        (Some("start" | "test"), _) => script(&plain[0], 1),
        (Some("t" | "tst"), _) => script(&Word { text: "test".to_owned(), ..plain[0] }, 1),
        (Some("exec" | "x"), _) => match program(&passed(1)) {
            Call::Program { words, .. } => Call::Program { words, needs_separator },
            other => other,
        },
        _ => Call::Elsewhere,
    }
}

/// npx and its like: options, then a program with the version that is wanted.
fn program(words: &[Word]) -> Call {
    let mut words = words[options(words, "-p --package")..].to_vec();
    if let Some(first) = words.first_mut() {
        let name = base(&first.text);
        first.text = name.split('@').next().unwrap_or(name).to_owned();
    }
    Call::Program { words, needs_separator: false }
}

/// How the others read their command line: options, a command, and from there on it is not theirs.
struct Manager {
    /// Options that take the next word as their value.
    valued: &'static str,
    /// Those of them that name a directory to work in.
    directory: &'static str,
    /// Those of them that choose packages.
    filters: &'static str,
    /// Options and commands that lead to several packages.
    several: &'static str,
    /// Options and commands that lead to another package, or to no script.
    elsewhere: &'static str,
    /// Commands that run a program of the package, or one fetched for it.
    programs: &'static str,
    /// What it is that leads to several packages.
    name: &'static str,
}

const PNPM: Manager = Manager {
    valued: "-C --dir --loglevel -F --filter --filter-prod",
    directory: "-C --dir",
    filters: "-F --filter --filter-prod",
    several: "-r --recursive --parallel recursive m multi",
    elsewhere: "-w --workspace-root",
    programs: "exec dlx",
    name: "pnpm --recursive",
};
const YARN: Manager = Manager {
    valued: "--cwd",
    directory: "--cwd",
    filters: "",
    several: "workspaces",
    elsewhere: "workspace",
    programs: "exec dlx",
    name: "yarn workspaces",
};
const BUN: Manager = Manager {
    valued: "--cwd --env-file -F --filter",
    directory: "--cwd",
    filters: "-F --filter",
    several: "--workspaces",
    elsewhere: "test",
    programs: "x",
    name: "bun --filter",
};

/// They pass on everything behind the script's name: pnpm 10 and yarn 4 a `--` too, bun and yarn 1
/// without its first.
fn other(manager: &Manager, words: &[Word], directory: &Path) -> Call {
    let has = |list: &str, text: &str| list.split_whitespace().any(|one| one == text);
    let mut directory = directory.to_owned();
    let mut rest = words;
    let mut runs = false;
    while let Some((word, behind)) = rest.split_first() {
        let (option, value) = match word.text.split_once('=') {
            Some((option, value)) if word.is_option() => (option, Some(value)),
            _ => (word.text.as_str(), None),
        };
        rest = behind;
        // Behind `run` these are names of scripts.
        if word.is_option() || !runs {
            if has(manager.several, option) {
                return Call::Several(manager.name);
            } else if has(manager.elsewhere, option) {
                return Call::Elsewhere;
            }
        }
        if word.is_option() {
            if !has(manager.valued, option) {
                continue;
            }
            let Some(value) = value.or_else(|| Some(behind.first()?.text.as_str())) else { break };
            if has(manager.filters, option) {
                let another = behind.iter().any(|word| has(manager.filters, &word.text));
                let several = another || value.contains(['*', '{', '!']) || value.contains("...");
                return if several { Call::Several(manager.name) } else { Call::Elsewhere };
            } else if has(manager.directory, option) {
                directory.push(value);
            }
            rest = if word.text == option { &behind[1..] } else { behind };
        } else if !runs && has(manager.programs, option) {
            return program(behind);
        } else if !runs && matches!(option, "run" | "run-script") {
            runs = true;
        } else {
            return Call::Script {
                manifest: "package.json",
                name: word.clone(),
                arguments: rest.to_vec(),
                directory,
                needs_separator: false,
                or_program: true,
            };
        }
    }
    Call::Elsewhere
}

/// composer takes options before a `--`, as npm does.
fn composer(words: &[Word], directory: &Path) -> Call {
    let end = words.iter().position(|word| word.text == "--");
    let (before, after) = words.split_at(end.unwrap_or(words.len()));
    let mut plain = before.iter().filter(|word| !word.is_option());
    let name = match plain.next() {
        Some(word) if matches!(word.text.as_str(), "run" | "run-script") => plain.next(),
        word => word,
    };
    let Some(name) = name else { return Call::Elsewhere };
    Call::Script {
        manifest: "composer.json",
        name: name.clone(),
        arguments: plain.chain(after.iter().skip(1)).cloned().collect(),
        directory: directory.to_owned(),
        needs_separator: end.is_none(),
        or_program: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(line: &str) -> String {
        let words = Word::written(line.split(' ').map(str::to_owned).collect());
        let line = |words: &[Word]| {
            words.iter().map(|word| word.text.as_str()).collect::<Vec<_>>().join(" ")
        };
        match call(&words, Path::new("/p")) {
            None => "none".to_owned(),
            Some(Call::Elsewhere) => "elsewhere".to_owned(),
            Some(Call::Several(name)) => format!("several: {name}"),
            Some(Call::Program { words, needs_separator }) => {
                format!("program{} {}", if needs_separator { " --" } else { "" }, line(&words))
            }
            Some(Call::Script { name, arguments, directory, needs_separator, .. }) => format!(
                "{}{} {} {}",
                directory.display(),
                if needs_separator { " --" } else { "" },
                name.text,
                line(&arguments)
            ),
        }
    }

    #[test]
    fn the_script_or_program_is_found() {
        for (line, expected) in [
            ("npm run dev", "/p -- dev "),
            ("npm run dev -- --host", "/p dev --host"),
            ("npm run --silent dev here", "/p -- dev here"),
            ("npm --prefix web run dev", "/p/web -- dev "),
            ("npm --prefix=web start", "/p/web -- start "),
            ("npm t", "/p -- test "),
            ("npm run dev -w web", "elsewhere"),
            ("npm run dev --workspaces", "several: npm --workspaces"),
            ("npm run", "elsewhere"),
            ("npm create vite", "elsewhere"),
            ("npm exec vite", "program -- vite"),
            ("npm exec -- vite --host", "program vite --host"),
            ("npx -y vite@latest --host", "program vite --host"),
            ("npx @11ty/eleventy@3 --serve", "program eleventy --serve"),
            ("pnpm run dev --host", "/p dev --host"),
            ("pnpm dev -- --host", "/p dev -- --host"),
            ("pnpm -C web dev", "/p/web dev "),
            ("pnpm --dir=web run dev", "/p/web dev "),
            ("pnpm dlx vite", "program vite"),
            ("pnpm --filter web dev", "elsewhere"),
            ("pnpm -r dev", "several: pnpm --recursive"),
            ("pnpm --filter ./apps/* dev", "several: pnpm --recursive"),
            ("pnpm --filter=web... dev", "several: pnpm --recursive"),
            ("pnpm -F web -F api dev", "several: pnpm --recursive"),
            ("pnpm run test", "/p test "),
            ("yarn dev", "/p dev "),
            ("yarn run dev --host", "/p dev --host"),
            ("yarn --cwd web dev", "/p/web dev "),
            ("yarn workspace web dev", "elsewhere"),
            ("yarn run workspace", "/p workspace "),
            ("yarn", "elsewhere"),
            ("bun run dev", "/p dev "),
            ("bun --bun run dev", "/p dev "),
            ("yarn workspaces foreach -pi run dev", "several: yarn workspaces"),
            ("bun --filter web dev", "elsewhere"),
            ("bun test", "elsewhere"),
            ("bun run test", "/p test "),
            ("bunx vite", "program vite"),
            ("composer run dev", "/p -- dev "),
            ("composer dev -- --quiet", "/p dev --quiet"),
            ("pnpm -C", "elsewhere"),
            ("vite", "none"),
        ] {
            assert_eq!(shown(line), expected, "{line}");
        }
    }
}
