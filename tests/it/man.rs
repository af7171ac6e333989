//! The manual says what the program does: its commands and options, its routes and codes.

mod configuration;
mod examples;
mod surroundings;

use std::collections::{BTreeMap, BTreeSet};

use assert_cmd::Command;
use serde_json::Value;

const PROGRAM: &str = include_str!("../../man/styxy.1");
const INTERFACE: &str = include_str!("../../man/styxy-api.7");
const OPENAPI: &str = include_str!("../../src/http/openapi.json");

/// The options that every command has; the page says so once.
const EVERYWHERE: [&str; 4] = ["help", "json", "quiet", "version"];

type Options = BTreeSet<String>;

#[test]
fn the_synopsis_has_the_commands_and_options_of_the_program() {
    let mut shorts = BTreeMap::new();
    let mut programs = BTreeMap::new();
    walk(&[], &mut programs, &mut shorts);
    assert!(programs.contains_key("run"), "--help reads differently now: {programs:?}");
    assert_eq!(synopsis(&shorts), programs, "left: styxy.1, right: --help");
}

/// An option that only the synopsis has is one that nobody explains.
#[test]
fn every_option_is_described() {
    let mut programs = BTreeMap::new();
    walk(&[], &mut programs, &mut BTreeMap::new());
    let commands = PROGRAM.split_once(".Sh COMMANDS").expect("a section").1;
    let commands = commands.split_once(".Sh ENVIRONMENT").expect("a section").0;
    let options: BTreeSet<String> = programs.into_values().flatten().collect();
    for option in options.iter().map(String::as_str).chain(EVERYWHERE) {
        let mut said = commands
            .split("Fl -")
            .skip(1)
            .map(|rest| rest.split([' ', '\n']).next().unwrap_or_default());
        assert!(said.any(|word| word == option), "COMMANDS of styxy.1 has no --{option}");
    }
}

/// Every command below `path` that has none below itself, with its options.
fn walk(path: &[&str], found: &mut BTreeMap<String, Options>, shorts: &mut BTreeMap<char, String>) {
    let output = Command::new(env!("CARGO_BIN_EXE_styxy")).args(path).arg("--help").output();
    let help = String::from_utf8(output.expect("styxy starts").stdout).expect("UTF-8");
    let section = |title: &'static str| {
        let lines = help.lines().skip_while(move |line| *line != title).skip(1);
        lines.take_while(|line| line.is_empty() || line.starts_with(' '))
    };
    let commands: Vec<&str> = section("Commands:")
        .filter_map(|line| line.strip_prefix("  ")?.split(' ').next())
        .filter(|word| !word.is_empty() && *word != "help")
        .collect();
    for command in &commands {
        walk(&[path, &[command]].concat(), found, shorts);
    }
    if !commands.is_empty() {
        return;
    }
    let mut options = Options::new();
    for line in section("Options:") {
        let (short, line) = match line.trim_start().split_once(", --") {
            Some((short, long)) if short.len() == 2 => (short.chars().nth(1), long),
            _ => match line.trim_start().strip_prefix("--") {
                Some(long) => (None, long),
                None => continue,
            },
        };
        let long = line.split(|c: char| !c.is_alphanumeric() && c != '-').next();
        let long = long.expect("split gives something").to_owned();
        if let Some(short) = short {
            shorts.insert(short, long.clone());
        }
        if !EVERYWHERE.contains(&long.as_str()) {
            options.insert(long);
        }
    }
    found.insert(path.join(" "), options);
}

/// What the SYNOPSIS of styxy.1 says, in the terms of [`walk`].
fn synopsis(shorts: &BTreeMap<char, String>) -> BTreeMap<String, Options> {
    let lines = PROGRAM.lines().skip_while(|line| *line != ".Sh SYNOPSIS").skip(1);
    let text: Vec<&str> = lines.take_while(|line| !line.starts_with(".Sh ")).collect();
    let mut said = BTreeMap::new();
    for block in text.split(|line| *line == ".Nm").skip(1) {
        let (name, rest) = block.split_first().expect("a command behind .Nm");
        let words: Vec<&str> = name.trim_start_matches(".Cm ").split([' ', '|']).collect();
        let (first, others) = words.split_first().expect("a command's name");
        let mut options = Options::new();
        for part in rest.iter().flat_map(|line| line.split("Fl ").skip(1)) {
            let option = part.split(' ').next().expect("split gives something");
            match option.strip_prefix('-') {
                Some("") => {}
                Some(long) => drop(options.insert(long.to_owned())),
                None => {
                    let short = option.chars().next().expect("an option has a letter");
                    options.insert(shorts.get(&short).expect("a known short option").clone());
                }
            }
        }
        let others: Vec<&&str> = others.iter().filter(|word| !word.is_empty()).collect();
        if others.is_empty() {
            said.insert((*first).to_owned(), options);
        } else {
            said.extend(others.iter().map(|other| (format!("{first} {other}"), options.clone())));
        }
    }
    said
}

#[test]
fn the_interface_page_has_the_routes_of_the_document() {
    let document: Value = serde_json::from_str(OPENAPI).expect("openapi.json is JSON");
    let paths = document["paths"].as_object().expect("paths is an object");
    let described: BTreeSet<String> = paths
        .iter()
        .flat_map(|(path, item)| {
            let methods = item.as_object().expect("a path item is an object").keys();
            methods.map(move |method| format!("{} {path}", method.to_ascii_uppercase()))
        })
        .collect();
    let said: BTreeSet<String> = INTERFACE
        .lines()
        .filter_map(|line| line.strip_prefix(".It Li "))
        .filter(|item| item.contains(" /"))
        .map(|item| item.split('?').next().expect("split gives something").to_owned())
        .collect();
    assert_eq!(said, described, "left: styxy-api.7, right: openapi.json");
}

#[test]
fn the_interface_page_has_the_codes_of_the_document() {
    let document: Value = serde_json::from_str(OPENAPI).expect("openapi.json is JSON");
    let described: BTreeSet<&str> = document["components"]["schemas"]["ErrorCode"]["enum"]
        .as_array()
        .expect("the codes are a list")
        .iter()
        .filter_map(Value::as_str)
        .collect();
    let said: BTreeSet<&str> = INTERFACE
        .lines()
        .filter_map(|line| line.strip_prefix(".It ")?.split_once(" Li "))
        .filter(|(status, _)| status.parse::<u16>().is_ok())
        .map(|(_, code)| code)
        .collect();
    assert_eq!(said, described, "left: styxy-api.7, right: openapi.json");
}

/// A field that the page forgets is one that nobody finds.
#[test]
fn the_interface_page_names_every_field() {
    let document: Value = serde_json::from_str(OPENAPI).expect("openapi.json is JSON");
    let schemas = document["components"]["schemas"].as_object().expect("schemas is an object");
    let words: BTreeSet<&str> =
        INTERFACE.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
    // The configuration has a page of its own.
    for (name, schema) in
        schemas.iter().filter(|(name, _)| !matches!(name.as_str(), "Config" | "ServiceType"))
    {
        for field in schema["properties"].as_object().into_iter().flat_map(serde_json::Map::keys) {
            assert!(words.contains(field.as_str()), "styxy-api.7 does not name {name}.{field}");
        }
    }
}
