//! Programs that run the project's own code, or another program that is written in their language.

use super::table::started_by;
use super::word::{Word, base};

/// What a runtime does.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Run {
    /// It runs code of the project, whose dependencies are of that kind.
    OwnCode(&'static str),
    /// It runs a program that is known by its name.
    Program(Vec<Word>),
    /// It runs what stands on its command line, or nothing.
    Nothing,
}

/// How a runtime is called, the kind of its code's dependencies, its options that take the next word
/// as their value, and those behind which stands code.
struct Runtime {
    name: &'static str,
    kind: &'static str,
    valued: &'static str,
    code: &'static str,
}

const RUNTIMES: &[Runtime] = &[
    Runtime {
        name: "node",
        kind: "npm",
        valued: "-r --require --import --loader --experimental-loader -C --conditions",
        code: "-e --eval -p --print -i --interactive",
    },
    Runtime { name: "tsx", kind: "npm", valued: "--tsconfig", code: "-e --eval -p --print" },
    Runtime { name: "ts-node", kind: "npm", valued: "-P --project", code: "-e --eval -p --print" },
    Runtime {
        name: "nodemon",
        kind: "npm",
        valued: "-w --watch -e --ext -i --ignore",
        code: "-x --exec",
    },
    Runtime { name: "python", kind: "pypi", valued: "-W -X", code: "-c" },
    Runtime { name: "php", kind: "composer", valued: "-d -c", code: "-r -S" },
    Runtime { name: "ruby", kind: "gem", valued: "-I -r -C", code: "-e" },
    Runtime { name: "java", kind: "jvm", valued: "-cp -classpath --class-path", code: "" },
];

/// Commands that build the project's code and run it.
const BUILD_AND_RUN: &[(&str, &str, &str)] = &[
    ("cargo", "run", "cargo"),
    ("cargo", "watch", "cargo"),
    ("go", "run", "go"),
    ("mix", "run", "hex"),
    ("deno", "run", "npm"),
    ("air", "", "go"),
];

/// What the runtime at the front of the words does; `None` if there is none.
pub(super) fn run(words: &[Word]) -> Option<Run> {
    let name = words.first()?.base();
    let builds = BUILD_AND_RUN.iter().find(|(program, command, _)| {
        *program == name && (command.is_empty() || words.iter().any(|word| word.text == *command))
    });
    if let Some((_, _, kind)) = builds {
        return Some(Run::OwnCode(kind));
    }
    // python3.12, php8.4
    let family = name.trim_end_matches(|letter: char| letter.is_ascii_digit() || letter == '.');
    let runtime = RUNTIMES.iter().find(|runtime| runtime.name == family)?;
    Some(runtime.run(&words[1..]))
}

impl Runtime {
    fn run(&self, mut words: &[Word]) -> Run {
        let is_in = |list: &str, word: &Word| list.split(' ').any(|one| one == word.text);
        while let Some((word, behind)) = words.split_first() {
            if is_in(self.code, word) {
                return Run::Nothing;
            }
            if self.name == "python" && word.text == "-m" {
                return Run::Program(behind.to_vec());
            }
            if !word.is_option() {
                return self.run_file(words);
            }
            words =
                if is_in(self.valued, word) { behind.get(1..).unwrap_or_default() } else { behind };
        }
        if self.name == "java" { Run::OwnCode(self.kind) } else { Run::Nothing }
    }

    /// The first word is a file. Programs of the table are known by it: artisan, manage.py, and
    /// whatever is started out of node_modules.
    fn run_file(&self, words: &[Word]) -> Run {
        let file = &words[0].text;
        let name = Word { text: program_of(file).to_owned(), ..words[0] };
        let words = [&[name], &words[1..]].concat();
        let arguments: Vec<_> = words[1..].iter().map(|word| word.text.as_str()).collect();
        let is_program =
            file.contains("node_modules/") || started_by(&words[0].text, &arguments).is_some();
        if is_program { Run::Program(words) } else { Run::OwnCode(self.kind) }
    }
}

/// `vite` for `node_modules/vite/bin/vite.js`.
fn program_of(file: &str) -> &str {
    let name = base(file);
    if !file.contains("node_modules/") {
        return name;
    }
    name.strip_suffix(".js")
        .or_else(|| name.strip_suffix(".mjs"))
        .or_else(|| name.strip_suffix(".cjs"))
        .unwrap_or(name)
}

/// Whether it is the name of a file that bun runs.
pub(super) fn is_javascript(name: &str) -> bool {
    const ENDINGS: [&str; 6] = ["js", "mjs", "cjs", "ts", "tsx", "jsx"];
    base(name).rsplit_once('.').is_some_and(|(_, ending)| ENDINGS.contains(&ending))
}
