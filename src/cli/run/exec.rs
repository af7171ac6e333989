//! Becoming the command: what it finds in its environment and arguments, and execve(2).

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::process::CommandExt;
use std::process::Command;

use super::failure::{Exit, Failed};
use crate::api::Allocation;

/// The port that a command is started with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// The port.
    pub(super) port: u16,
    /// What names the allocation; an unreserved port has none.
    pub(super) lock_id: Option<String>,
    /// The service's name.
    pub(super) name: Option<String>,
}

impl Place {
    /// The port of an allocation.
    pub(super) fn of(allocation: &Allocation) -> Self {
        let Allocation { port, lock_id, service_name, .. } = allocation;
        Self { port: *port, lock_id: Some(lock_id.clone()), name: service_name.clone() }
    }
}

/// Replaces this process with the command; `variable` carries the port beside `STYXY_PORT`.
///
/// Signals, terminal and exit code are then the command's own, and pid and start time stay.
/// Descriptors of this process are close-on-exec, so a port that it holds is free at that moment.
/// It returns only when that failed.
pub(super) fn become_command(words: &[OsString], variable: &str, place: &Place) -> Failed {
    let Some((program, arguments)) = words.split_first() else {
        return Failed::new(Exit::Usage, "no command is given");
    };
    let port = place.port.to_string();
    let mut command = Command::new(program);
    command.args(arguments.iter().map(|argument| with_port(argument, &port)));
    command.env(variable, &port).env("STYXY_PORT", &port);
    // What an outer `styxy run` has set is not this service's.
    set(&mut command, "STYXY_LOCK_ID", place.lock_id.as_deref());
    set(&mut command, "STYXY_NAME", place.name.as_deref());
    not_executed(program, &command.exec())
}

fn set(command: &mut Command, name: &str, value: Option<&str>) {
    match value {
        Some(value) => command.env(name, value),
        None => command.env_remove(name),
    };
}

/// The exit codes of sh (POSIX.1-2017 XCU 2.8.2).
fn not_executed(program: &OsStr, error: &io::Error) -> Failed {
    let program = program.to_string_lossy();
    match error.kind() {
        io::ErrorKind::NotFound => Failed::new(Exit::NotFound, format!("{program}: not found")),
        _ => Failed::new(Exit::NotExecutable, format!("{program} can't be executed: {error}")),
    }
}

/// The argument with each `{port}` replaced. Arguments need not be UTF-8.
fn with_port(argument: &OsStr, port: &str) -> OsString {
    const MARK: &[u8] = b"{port}";
    let mut rest = argument.as_bytes();
    let mut replaced = Vec::with_capacity(rest.len());
    while let Some(at) = rest.windows(MARK.len()).position(|window| window == MARK) {
        replaced.extend_from_slice(&rest[..at]);
        replaced.extend_from_slice(port.as_bytes());
        rest = &rest[at + MARK.len()..];
    }
    replaced.extend_from_slice(rest);
    OsString::from_vec(replaced)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_port_mark_in_an_argument_is_replaced() {
        let table: [(&[u8], &[u8]); 6] = [
            (b"--listen=127.0.0.1:{port}", b"--listen=127.0.0.1:3000"),
            (b"{port}:{port}", b"3000:3000"),
            (b"{{port}}", b"{3000}"),
            (b"{por", b"{por"),
            (b"", b""),
            (b"\xff{port}\xfe", b"\xff3000\xfe"),
        ];
        for (argument, expected) in table {
            assert_eq!(with_port(OsStr::from_bytes(argument), "3000").as_bytes(), expected);
        }
    }

    #[test]
    fn what_cannot_be_executed_exits_as_in_sh() {
        let place = Place { port: 3000, lock_id: None, name: None };
        let run = |program: &str| become_command(&[program.into()], "PORT", &place);
        assert_eq!(run("/nowhere/styxy-test").exit, Exit::NotFound);
        assert_eq!(run("/etc").exit, Exit::NotExecutable);
        let file = tempfile::NamedTempFile::new().expect("a file without the x bit");
        assert_eq!(run(&file.path().to_string_lossy()).exit, Exit::NotExecutable);
    }
}
