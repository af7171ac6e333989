use clap::CommandFactory;
use clap::error::ErrorKind;

use super::*;

fn parse(line: &[&str]) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(["styxy"].iter().chain(line))
}

fn run(line: &[&str]) -> Run {
    match parse(line).expect("it parses").command {
        Command::Run(Deferred(args)) => args,
        other => panic!("{other:?}"),
    }
}

fn allocate(line: &[&str]) -> Allocate {
    match parse(line).expect("it parses").command {
        Command::Allocate(Deferred(args)) => args,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_definitions_hold_together() {
    Cli::command().debug_assert();
}

#[test]
fn what_follows_the_command_belongs_to_the_command() {
    let lines: [&[&str]; 3] = [
        &["run", "-n", "web", "npm", "run", "dev", "--port", "3", "--json", "-q"],
        &["run", "-n", "web", "--", "npm", "run", "dev", "--port", "3", "--json", "-q"],
        &["run", "--name=web", "--", "npm", "run", "dev", "--port", "3", "--json", "-q"],
    ];
    for line in lines {
        let args = run(line);
        assert_eq!(args.name.as_deref(), Some("web"));
        assert_eq!(args.command, ["npm", "run", "dev", "--port", "3", "--json", "-q"]);
        assert!(!parse(line).expect("it parses").global.json);
    }
    assert_eq!(run(&["run", "sh", "--", "-x"]).command, ["sh", "--", "-x"]);
}

#[test]
fn options_that_every_command_has_may_stand_before_and_after_it() {
    for line in [&["--json", "-q", "list"][..], &["list", "--json", "--quiet"]] {
        let global = parse(line).expect("it parses").global;
        assert!(global.json && global.quiet, "{line:?}");
    }
}

#[test]
fn wrong_usage_is_told_apart() {
    let table: [(&[&str], ErrorKind); 19] = [
        (&["run"], ErrorKind::MissingRequiredArgument),
        (&["run", "--reuze", "npm"], ErrorKind::UnknownArgument),
        (&["run", "--reuse", "--another", "--", "x"], ErrorKind::ArgumentConflict),
        (&["run", "--env", "A=B", "--", "x"], ErrorKind::ValueValidation),
        (&["run", "-p", "0", "--", "x"], ErrorKind::ValueValidation),
        (&["allocate", "-p", "65536"], ErrorKind::ValueValidation),
        (&["allocate", "--exact"], ErrorKind::MissingRequiredArgument),
        (&["allocate", "--count", "0"], ErrorKind::ValueValidation),
        (&["allocate", "--count", "65"], ErrorKind::ValueValidation),
        (&["allocate", "--count", "2", "-n", "a"], ErrorKind::ArgumentConflict),
        (&["allocate", "--shell", "--url"], ErrorKind::ArgumentConflict),
        (&["allocate", "--lease", "0s"], ErrorKind::ValueValidation),
        (&["allocate", "--lease", "600"], ErrorKind::ValueValidation),
        (&["allocate", "--protocol", "sctp"], ErrorKind::InvalidValue),
        (&["check"], ErrorKind::MissingRequiredArgument),
        (&["cleanup", "--all"], ErrorKind::MissingRequiredArgument),
        (&["list", "--here", "--project", "/"], ErrorKind::ArgumentConflict),
        (&["daemon", "run", "--listen", "0.0.0.0:1"], ErrorKind::ValueValidation),
        (&["instance", "register", "--metadata", "branch"], ErrorKind::ValueValidation),
    ];
    for (line, kind) in table {
        let error = parse(line).expect_err("wrong usage");
        assert_eq!(error.kind(), kind, "{line:?}: {error}");
        assert_eq!(error.exit_code(), 2, "{line:?}");
    }
}

#[test]
fn durations_and_addresses_are_read() {
    assert_eq!(allocate(&["allocate", "--lease", "10m"]).lease, Some(600));
    assert_eq!(allocate(&["allocate", "--lease", "1500ms"]).lease, Some(2));
    assert_eq!(allocate(&["allocate", "--wait", "30s"]).wait, Some(Duration::from_secs(30)));
    for address in ["127.0.0.1:9877", "[::1]:9877", "127.8.8.8:1"] {
        assert!(parse(&["daemon", "run", "--listen", address]).is_ok(), "{address}");
    }
}

#[test]
fn names_and_counts_say_how_many() {
    let args = allocate(&["allocate", "-n", "web", "--name", "api", "-s", "test"]);
    assert_eq!((args.names.len(), args.service.as_deref()), (2, Some("test")));
    assert_eq!(allocate(&["allocate"]).service, None);
    assert_eq!(allocate(&["allocate", "--count", "64"]).count, Some(64));
}

/// Every command shows an example, so that nobody needs the manual for the first step.
#[test]
fn every_command_has_help_with_an_example() {
    fn check(command: &clap::Command, path: &str, inherited: bool) {
        assert!(command.get_about().is_some(), "{path} says what it does");
        let own = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        let has_examples = own.contains("Examples:") && own.contains("styxy ");
        assert!(has_examples || inherited, "{path} has examples");
        for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
            check(sub, &format!("{path} {}", sub.get_name()), has_examples && path != "styxy");
        }
    }
    let mut all = Cli::command();
    all.build();
    check(&all, "styxy", false);
}

#[test]
fn the_list_of_commands_tells_what_each_is_for() {
    for line in [&["styxy"][..], &["styxy", "help"], &["styxy", "-h"], &["styxy", "--help"]] {
        let line: Vec<_> = line.iter().map(OsString::from).collect();
        let help = Cli::of(&line).expect_err("a help text").to_string();
        // However its lines are broken.
        let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
        let mut all = Cli::command();
        all.build();
        for command in all.get_subcommands().filter(|command| !command.is_hide_set()) {
            let about = command.get_about().expect("it says what it is for");
            let entry = format!(" {} {about} ", command.get_name());
            assert!(help.contains(&entry), "{entry}: {help}");
        }
    }
}
