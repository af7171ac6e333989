//! styxy(1) has every exit code, environment variable and file.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::PROGRAM;
use crate::support::Home;

const FAILURE: &str = include_str!("../../../src/cli/failure.rs");

/// The lines of the page below a heading.
fn section(heading: &str) -> impl Iterator<Item = &'static str> {
    let heading = format!(".Sh {heading}");
    let lines = PROGRAM.lines().skip_while(move |line| *line != heading).skip(1);
    lines.take_while(|line| !line.starts_with(".Sh "))
}

#[test]
fn the_exit_codes_are_those_of_the_program() {
    let number = |text: &str| text.parse::<u8>().ok();
    let source = FAILURE.lines().skip_while(|line| !line.contains("enum Exit {"));
    let source = source.take_while(|line| *line != "}");
    let mut codes: BTreeSet<u8> = source
        .filter_map(|line| number(line.trim().split_once(" = ")?.1.trim_end_matches(',')))
        .collect();
    assert!(codes.contains(&69), "failure.rs reads differently now: {codes:?}");
    codes.insert(0);
    let said: BTreeSet<u8> =
        section("EXIT STATUS").filter_map(|line| number(line.strip_prefix(".It ")?)).collect();
    assert_eq!(said, codes, "left: styxy.1, right: failure.rs");
}

#[test]
fn the_variables_are_those_of_the_program() {
    let mut used = BTreeSet::new();
    add_variables(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src")), &mut used);
    assert!(used.contains("STYXY_URL"), "{used:?}");
    // The journal's fields have such names too, and are no variables.
    let lines = PROGRAM.lines().filter(|line| line.contains("Ev "));
    let words = lines.flat_map(|line| line.split([' ', ',']));
    let said: BTreeSet<String> =
        words.filter(|word| word.starts_with("STYXY_")).map(str::to_owned).collect();
    assert_eq!(said, used, "left: styxy.1, right: the program's text");
}

/// The names of variables that the program has in its text.
fn add_variables(folder: &Path, used: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            add_variables(&path, used);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).expect("a file");
            // Its unit tests are at its end.
            let text = text.split("#[cfg(test)]").next().unwrap_or_default();
            for literal in text.split("\"STYXY_").skip(1) {
                let name = literal.split(|c: char| !c.is_ascii_uppercase() && c != '_').next();
                used.extend(
                    name.filter(|name| !name.is_empty()).map(|name| format!("STYXY_{name}")),
                );
            }
        }
    }
}

#[test]
fn the_files_that_the_program_makes_are_in_the_page() {
    let home = Home::new();
    let daemon = home.daemon();
    home.styxy(&["allocate", "-n", "web", "--lease", "10m"]).ok();
    let said: Vec<&str> = section("FILES").collect();
    let mut made = Vec::new();
    for place in ["state", "run", "config"] {
        add_files(&home.path(place), &mut made);
    }
    assert!(made.len() >= 4, "{made:?}");
    for name in made {
        assert!(
            said.iter().any(|line| line.contains(&name)),
            "FILES of styxy.1 does not name {name}"
        );
    }
    daemon.stop();
}

/// The names of everything in a folder that is none itself.
fn add_files(folder: &Path, names: &mut Vec<String>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let entry = entry.expect("an entry");
        if entry.file_type().expect("a type").is_dir() {
            add_files(&entry.path(), names);
        } else {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
}
