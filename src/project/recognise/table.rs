//! The table of programs, `programs.txt`, read as far as it is needed.

/// A program, or a library that programs are made with. The lists are as the table has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Program {
    /// What people call it.
    pub(super) name: &'static str,
    /// The built-in service type that its servers are.
    pub(super) service_type: &'static str,
    /// The port that it takes when nobody tells it another.
    pub(super) default_port: Option<u16>,
    commands: &'static str,
    evidence: &'static str,
    takes: &'static str,
    already: &'static str,
}

/// All of them, in the order of the table.
pub(super) fn programs() -> impl Iterator<Item = Program> {
    rows().filter_map(Program::read)
}

/// The one whose server a command line starts. `name` is its program's, without the path.
pub(super) fn started_by(name: &str, arguments: &[&str]) -> Option<Program> {
    // To look for a word takes a tenth of the time of reading all rows.
    let mut named = rows().filter(|row| row.contains(name)).filter_map(Program::read);
    named.find(|program| program.is_started_by(name, arguments))
}

fn rows() -> impl Iterator<Item = &'static str> {
    include_str!("programs.txt").lines().filter(|line| !line.starts_with('#'))
}

impl Program {
    /// Reads a row; a test sees to it that each can be read.
    fn read(row: &'static str) -> Option<Self> {
        let mut columns = row.split('|').map(str::trim);
        let program = Self {
            name: columns.next()?,
            service_type: columns.next()?,
            default_port: columns.next()?.parse().ok(),
            commands: columns.next()?,
            evidence: columns.next()?,
            takes: columns.next()?,
            already: columns.next()?,
        };
        columns.next().is_none().then_some(program)
    }

    /// What starts its server, and behind `!` what does not.
    fn commands(self) -> impl Iterator<Item = &'static str> + use<> {
        self.commands.split(',').map(str::trim).filter(|command| !command.is_empty())
    }

    /// Whether this command line starts its server.
    fn is_started_by(self, name: &str, arguments: &[&str]) -> bool {
        let has = |wanted: &str| {
            arguments.iter().any(|argument| {
                // A task of Gradle may stand behind the path of its project.
                *argument == wanted || argument.rsplit_once(':').is_some_and(|(_, it)| it == wanted)
            })
        };
        let starts = |command: &str| {
            let mut words = command.split(' ');
            words.next() == Some(name) && words.all(has)
        };
        let mut others = self.commands().flat_map(|command| command.split(' '));
        self.commands().any(starts) && !others.any(|word| word.strip_prefix('!').is_some_and(has))
    }

    /// The dependencies that tell of it, as kind and name.
    pub(super) fn dependencies(self) -> impl Iterator<Item = (&'static str, &'static str)> + use<> {
        self.evidence.split_whitespace().filter_map(|one| one.split_once(':'))
    }

    /// The files and directories that tell of it.
    pub(super) fn files(self) -> impl Iterator<Item = &'static str> + use<> {
        self.evidence.split_whitespace().filter(|one| !one.contains(':'))
    }

    /// The variables that it wants, `NAME=VALUE` with `{port}` in the value.
    pub(super) fn variables(self) -> impl Iterator<Item = (&'static str, &'static str)> + use<> {
        let words = self.takes.split_whitespace().take_while(|word| !word.starts_with('-'));
        words.filter_map(|word| word.split_once('='))
    }

    /// The arguments that it wants.
    pub(super) fn arguments(self) -> impl Iterator<Item = &'static str> + Clone + use<> {
        let is_variable = |word: &&str| !word.starts_with('-') && word.contains('=');
        let words = if self.file_of_ports().is_some() { "" } else { self.takes };
        words.split_whitespace().skip_while(is_variable)
    }

    /// The file that alone gives it its ports.
    pub(super) fn file_of_ports(self) -> Option<&'static str> {
        self.takes.strip_prefix("in:")
    }

    /// Whether it starts the programs of a Procfile, each on a port of its own from this one on.
    pub(super) fn starts_row(self) -> bool {
        self.already.split_whitespace().any(|word| word == "row")
    }

    /// Whether its port comes in a variable.
    pub(super) fn reads_variable(self) -> bool {
        self.variables().any(|(_, value)| value.contains("{port}"))
    }

    /// Whether its port is an argument without an option.
    pub(super) fn takes_bare_port(self) -> bool {
        self.arguments().next() == Some("{port}")
    }

    /// Whether it is an option that gives this program a port or a socket.
    pub(super) fn is_port_option(self, option: &str) -> bool {
        let own = self.arguments().filter(|word| word.starts_with('-')).take(1);
        let known = ["-p", "--port"].into_iter().chain(own);
        known.chain(self.already.split_whitespace()).any(|one| one == option)
    }

    /// Whether of an option that is there twice the last counts.
    pub(super) fn last_option_counts(self) -> bool {
        self.already.split_whitespace().any(|word| word == "last")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn each_row_can_be_read_and_is_whole() {
        let types = Config::built_in().services;
        assert_eq!(programs().count(), rows().count());
        for row in rows() {
            let program = Program::read(row).unwrap_or_else(|| panic!("seven columns: {row}"));
            assert!(types.contains_key(program.service_type), "no such service type: {row}");
            let port = row.split('|').nth(2).expect("a column").trim();
            assert_eq!(port.is_empty(), program.default_port.is_none(), "no port: {row}");
            assert!(!(program.commands.is_empty() && program.evidence.is_empty()), "{row}");
            for word in program.takes.split_whitespace() {
                let known =
                    program.variables().any(|(name, value)| word == format!("{name}={value}"))
                        || program.arguments().any(|argument| word == argument)
                        || program.file_of_ports().is_some_and(|file| word == format!("in:{file}"));
                assert!(known, "{word}: {row}");
            }
        }
    }

    #[test]
    fn a_command_line_is_of_one_row() {
        for command in programs().flat_map(Program::commands) {
            if command.starts_with('!') {
                continue;
            }
            let words: Vec<_> = command.split(' ').collect();
            let rows = programs().filter(|row| row.is_started_by(words[0], &words[1..]));
            assert_eq!(rows.count(), 1, "{command}");
        }
    }

    #[test]
    fn evidence_is_for_one_row() {
        let mut seen = std::collections::BTreeSet::new();
        for evidence in programs().flat_map(|row| row.evidence.split_whitespace()) {
            assert!(seen.insert(evidence), "{evidence}");
        }
    }
}
