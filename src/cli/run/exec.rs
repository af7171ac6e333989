//! Becoming the command: what it finds in its environment and arguments, and execve(2).

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::process::CommandExt;
use std::process::Command;

use super::super::failure::{Exit, Failed};
use crate::api::Allocation;
use crate::detect::broken_pipe;

/// The port that a command is started with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// The port.
    pub(super) port: u16,
    /// What names the allocation; an unreserved port has none.
    pub(super) lock_id: Option<String>,
    /// The allocation's owner, as the daemon knows it.
    pub(super) owner: Option<u32>,
    /// The service's name.
    pub(super) name: Option<String>,
}

impl Place {
    /// The port of an allocation.
    pub(super) fn of(allocation: &Allocation) -> Self {
        let Allocation { port, lock_id, process_id, service_name, .. } = allocation;
        let (lock_id, name) = (Some(lock_id.clone()), service_name.clone());
        Self { port: *port, lock_id, owner: *process_id, name }
    }
}

/// A port that goes by a name: of this service, of one beside it, or of a sibling.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Named {
    /// `NAME` of `{port:NAME}`.
    pub(super) name: String,
    /// The variable that carries it, if one does.
    pub(super) variable: Option<String>,
    /// The port.
    pub(super) port: u16,
}

/// All that a command is started with.
#[derive(Debug, Default)]
pub(super) struct Start {
    /// The command and its arguments, with their marks.
    pub(super) words: Vec<OsString>,
    /// Its own port. What starts several programs has none: they would all take it.
    pub(super) own: Option<Place>,
    /// The variable that carries its own port beside `STYXY_PORT`.
    pub(super) variable: Option<String>,
    /// What its program reads its port from besides.
    pub(super) told: Vec<(&'static str, String)>,
    /// The ports that go by a name.
    pub(super) named: Vec<Named>,
    /// What names the allocations that are this process's: a `styxy run` within finds its own among
    /// them.
    pub(super) lock_ids: Vec<String>,
    /// Their owner, from whom it takes one over.
    pub(super) owner: Option<u32>,
}

/// Replaces this process with the command.
///
/// Signals, terminal and exit code are then the command's own, and pid and start time stay.
/// Descriptors of this process are close-on-exec, so a port that it holds is free at that moment.
/// It returns only when that failed.
pub(super) fn become_command(start: &Start) -> Failed {
    let Some((program, arguments)) = start.words.split_first() else {
        return Failed::new(Exit::Usage, "no command is given");
    };
    let mut command = Command::new(program);
    command.args(arguments.iter().map(|argument| with_ports(argument, start)));
    for named in &start.named {
        if let Some(variable) = &named.variable {
            command.env(variable, named.port.to_string());
        }
    }
    command.envs(start.told.iter().map(|(variable, value)| (variable, value)));
    set_own(&mut command, start);
    // Its own alone is in STYXY_LOCK_ID.
    let own = start.own.as_ref().and_then(|own| own.lock_id.as_ref());
    let has_more = start.lock_ids.iter().any(|lock_id| Some(lock_id) != own);
    set(&mut command, "STYXY_LOCK_IDS", has_more.then(|| start.lock_ids.join(",")).as_deref());
    let owner = start.owner.map(|pid| pid.to_string());
    set(&mut command, "STYXY_OWNER", owner.as_deref());
    broken_pipe::pass_on(&mut command);
    not_executed(program, &command.exec())
}

/// Its own port; what an outer `styxy run` has set is not this service's.
fn set_own(command: &mut Command, start: &Start) {
    let own = start.own.as_ref();
    let port = own.map(|own| own.port.to_string());
    match (&start.variable, &port) {
        (Some(variable), Some(port)) => _ = command.env(variable, port),
        // What came from elsewhere than an outer `styxy run` is somebody's wish.
        _ if std::env::var_os("PORT") == std::env::var_os("STYXY_PORT") => {
            command.env_remove("PORT");
        }
        _ => {}
    }
    set(command, "STYXY_PORT", port.as_deref());
    set(command, "STYXY_LOCK_ID", own.and_then(|own| own.lock_id.as_deref()));
    set(command, "STYXY_NAME", own.and_then(|own| own.name.as_deref()));
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

/// Whose port a mark in an argument stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mark<'a> {
    /// `{port}`
    Own,
    /// `{port:NAME}`
    Of(&'a [u8]),
}

/// The marks of an argument.
pub(super) fn marks(argument: &OsStr) -> impl Iterator<Item = Mark<'_>> {
    let mut rest = argument.as_bytes();
    std::iter::from_fn(move || {
        let (_, mark, behind) = next_mark(rest)?;
        rest = behind;
        Some(mark)
    })
}

/// The next mark of an argument: what is before it, what it is, what is behind it. Arguments need
/// not be UTF-8.
fn next_mark(argument: &[u8]) -> Option<(&[u8], Mark<'_>, &[u8])> {
    const BEGIN: &[u8] = b"{port";
    let mut from = 0;
    while let Some(at) = memchr::memmem::find(&argument[from..], BEGIN) {
        let at = from + at;
        let rest = &argument[at + BEGIN.len()..];
        let mark = match rest.first() {
            Some(b'}') => Some((Mark::Own, 1)),
            Some(b':') => {
                let end = memchr::memchr(b'}', rest).filter(|end| *end > 1);
                end.map(|end| (Mark::Of(&rest[1..end]), end + 1))
            }
            _ => None,
        };
        if let Some((mark, length)) = mark {
            return Some((&argument[..at], mark, &rest[length..]));
        }
        from = at + BEGIN.len();
    }
    None
}

/// The argument with each mark replaced by its port. One without a port stays: there are none, the
/// plan has seen to it.
fn with_ports(argument: &OsStr, start: &Start) -> OsString {
    let mut rest = argument.as_bytes();
    let mut replaced = Vec::with_capacity(rest.len());
    while let Some((before, mark, behind)) = next_mark(rest) {
        replaced.extend_from_slice(before);
        let port = match mark {
            Mark::Own => start.own.as_ref().map(|own| own.port),
            Mark::Of(name) => {
                start.named.iter().find(|it| it.name.as_bytes() == name).map(|it| it.port)
            }
        };
        match port {
            Some(port) => replaced.extend_from_slice(port.to_string().as_bytes()),
            None => replaced.extend_from_slice(&rest[before.len()..rest.len() - behind.len()]),
        }
        rest = behind;
    }
    replaced.extend_from_slice(rest);
    OsString::from_vec(replaced)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(words: &[&str]) -> Start {
        let named = Named { name: "odd name".to_owned(), variable: None, port: 4000 };
        Start {
            words: words.iter().map(Into::into).collect(),
            own: Some(Place { port: 3000, lock_id: None, owner: None, name: None }),
            variable: Some("PORT".to_owned()),
            told: vec![],
            named: vec![named],
            lock_ids: vec![],
            owner: None,
        }
    }

    #[test]
    fn every_port_mark_in_an_argument_is_replaced() {
        let table: [(&[u8], &[u8]); 10] = [
            (b"--listen=127.0.0.1:{port}", b"--listen=127.0.0.1:3000"),
            (b"{port}:{port}", b"3000:3000"),
            (b"{{port}}", b"{3000}"),
            (b"{por", b"{por"),
            (b"", b""),
            (b"\xff{port}\xfe", b"\xff3000\xfe"),
            (b"{port:odd name}/{port}", b"4000/3000"),
            (b"{port:api}", b"{port:api}"),
            (b"{port:}{port{port}", b"{port:}{port3000"),
            (b"{ports}", b"{ports}"),
        ];
        for (argument, expected) in table {
            let replaced = with_ports(OsStr::from_bytes(argument), &start(&[]));
            assert_eq!(replaced.as_bytes(), expected);
        }
    }

    #[test]
    fn what_cannot_be_executed_exits_as_in_sh() {
        let run = |program: &str| become_command(&start(&[program]));
        assert_eq!(run("/nowhere/styxy-test").exit, Exit::NotFound);
        assert_eq!(run("/etc").exit, Exit::NotExecutable);
        let file = tempfile::NamedTempFile::new().expect("a file without the x bit");
        assert_eq!(run(&file.path().to_string_lossy()).exit, Exit::NotExecutable);
    }
}
