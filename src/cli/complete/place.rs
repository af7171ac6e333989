//! What stands at the end of a command line, by clap's own definitions.
//!
//! clap_complete's engine would do the same, but it is not stable yet, and it takes the options of
//! a COMMAND behind `styxy run` for Styxy's own.

use clap::{Arg, ArgAction, Command};

/// What the last word of a command line is.
#[derive(Debug)]
pub(super) enum Place<'c> {
    /// A word of somebody else's command line, which begins behind so many words.
    Foreign(usize),
    /// The value of an option; `prefix` is what stands before it in the same word.
    Value { arg: &'c Arg, prefix: String },
    /// A command's own option, command or positional argument.
    Own(Own<'c>),
}

/// A command, and what may come next in it.
#[derive(Debug)]
pub(super) struct Own<'c> {
    pub(super) command: &'c Command,
    /// The positional argument that comes next.
    pub(super) positional: Option<&'c Arg>,
    /// No options and no commands any more: `--` stands before.
    pub(super) escaped: bool,
}

/// Reads all words but the last, and says what the last one is. `root` was built.
pub(super) fn find<'c>(root: &'c Command, before: &[String], last: &str) -> Place<'c> {
    let mut reader = Reader { command: root, pending: None, positionals: 0, escaped: false };
    for (index, word) in before.iter().enumerate() {
        if reader.pending.is_none() && reader.begins_foreign(word) {
            return Place::Foreign(index);
        }
        reader.read(word);
    }
    if let Some(arg) = reader.pending {
        return Place::Value { arg, prefix: String::new() };
    }
    let may_be_option = !reader.escaped && last.starts_with('-');
    if !may_be_option && reader.begins_foreign(last) {
        return Place::Foreign(before.len());
    }
    if may_be_option
        && let Some((option, _)) = last.split_once('=')
        && let Some(arg) = option.strip_prefix("--").and_then(|name| reader.long(name))
        && arg.get_action().takes_values()
    {
        return Place::Value { arg, prefix: format!("{option}=") };
    }
    let Reader { command, escaped, .. } = reader;
    Place::Own(Own { command, positional: reader.positional(), escaped })
}

/// What was read so far.
struct Reader<'c> {
    command: &'c Command,
    /// An option whose value comes next.
    pending: Option<&'c Arg>,
    /// How many positional arguments there were.
    positionals: usize,
    escaped: bool,
}

impl<'c> Reader<'c> {
    fn read(&mut self, word: &str) {
        if self.pending.take().is_some() {
            return;
        }
        if !self.is_option(word) {
            match self.command.find_subcommand(word) {
                Some(command) if self.positionals == 0 && !self.escaped => self.command = command,
                _ => self.positionals += 1,
            }
        } else if word == "--" {
            self.escaped = true;
        } else if let Some(long) = word.strip_prefix("--") {
            self.pending = self.long(long).filter(|arg| arg.get_action().takes_values());
        } else {
            self.pending = self.awaiting_short(&word[1..]);
        }
    }

    fn is_option(&self, word: &str) -> bool {
        !self.escaped && word.len() > 1 && word.starts_with('-')
    }

    /// Whether the word is the first of somebody else's command line.
    fn begins_foreign(&self, word: &str) -> bool {
        !self.is_option(word) && self.positional().is_some_and(Arg::is_trailing_var_arg_set)
    }

    /// The positional argument that comes next; the last one may come again and again.
    fn positional(&self) -> Option<&'c Arg> {
        let mut all = self.command.get_positionals();
        all.nth(self.positionals).or_else(|| {
            let last = self.command.get_positionals().last();
            last.filter(|arg| matches!(arg.get_action(), ArgAction::Append))
        })
    }

    fn long(&self, name: &str) -> Option<&'c Arg> {
        self.command.get_arguments().find(|arg| arg.get_long() == Some(name))
    }

    /// The option of a cluster such as `-qn` whose value is the next word.
    fn awaiting_short(&self, cluster: &str) -> Option<&'c Arg> {
        for (at, letter) in cluster.char_indices() {
            let arg = self.command.get_arguments().find(|arg| arg.get_short() == Some(letter))?;
            if arg.get_action().takes_values() {
                let is_last = at + letter.len_utf8() == cluster.len();
                return is_last.then_some(arg);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the last word of a line is, in words.
    fn place(line: &str) -> String {
        let mut root = super::super::super::command();
        root.build();
        let mut words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        let last = words.pop().expect("split gives something");
        match find(&root, &words, &last) {
            Place::Foreign(words) => format!("foreign after {words}"),
            Place::Value { arg, prefix } => format!("{prefix}<{}>", arg.get_id()),
            Place::Own(Own { command, positional, escaped }) => {
                let positional = positional.map_or("none", |arg| arg.get_id().as_str());
                format!("{} {positional}{}", command.get_name(), if escaped { " --" } else { "" })
            }
        }
    }

    #[test]
    fn the_last_word_is_what_the_words_before_it_say() {
        let table = [
            ("", "styxy none"),
            ("rel", "styxy none"),
            ("release ", "release targets"),
            ("release web ", "release targets"),
            ("-q release --json ", "release targets"),
            ("release --instance ", "<instance>"),
            ("release --instance=", "--instance=<instance>"),
            ("release --instance=a ", "release targets"),
            ("release -- ", "release targets --"),
            ("get web ", "get none"),
            ("allocate -s ", "<service>"),
            ("allocate -qs ", "<service>"),
            ("allocate -sdev ", "allocate none"),
            ("allocate --json --name ", "<names>"),
            ("instance ", "instance none"),
            ("instance remove ", "remove id"),
            ("run ", "foreign after 1"),
            ("run -", "run command"),
            ("run -n ", "<name>"),
            ("run -n web npm", "foreign after 3"),
            ("run -n web -- npm run ", "foreign after 4"),
            ("run npm --na", "foreign after 1"),
            ("run -n run npm -n ", "foreign after 3"),
            ("wrong ", "styxy none"),
        ];
        for (line, expected) in table {
            assert_eq!(place(line), expected, "{line:?}");
        }
    }
}
