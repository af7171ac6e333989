//! Namespaces: a port belongs to a network namespace, a pid to a pid namespace (namespaces(7)).

use std::fmt::Display;
use std::io;

use rustix::fs::stat;

/// The namespaces of a process, by inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Namespaces {
    /// The network namespace.
    pub net: u64,
    /// The pid namespace.
    pub pid: u64,
}

/// The namespaces of this process.
///
/// # Errors
///
/// When /proc is not there.
pub fn own() -> io::Result<Namespaces> {
    inodes("self")
}

/// The namespaces of the process `pid`.
///
/// # Errors
///
/// When it does not exist or may not be looked at (ptrace(2), `PTRACE_MODE_READ_FSCREDS`).
pub fn of(pid: u32) -> io::Result<Namespaces> {
    inodes(pid)
}

/// Two processes share a namespace when these files have the same inode; all of them lie on one
/// device (namespaces(7)).
fn inodes(process: impl Display) -> io::Result<Namespaces> {
    Ok(Namespaces {
        net: stat(format!("/proc/{process}/ns/net"))?.st_ino,
        pid: stat(format!("/proc/{process}/ns/pid"))?.st_ino,
    })
}

/// The id that the process `pid` has in its own, innermost pid namespace (`NSpid` of
/// proc_pid_status(5), since Linux 4.1).
pub fn innermost_pid(pid: u32) -> Option<u32> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let ids = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
    ids.split_ascii_whitespace().next_back()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::process::{self, Child, Command, Stdio};

    use super::*;
    use crate::testing::skip;

    /// A shell in new namespaces, where we may make them. It ends with its standard input.
    fn elsewhere() -> Option<Child> {
        let mut child = Command::new("unshare")
            .args(["--net", "--pid", "--fork", "sh", "-c", "echo $$; read end"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let mut line = String::new();
        let stdout = child.stdout.take().expect("a pipe");
        BufReader::new(stdout).read_line(&mut line).expect("a line");
        (line == "1\n").then_some(child)
    }

    #[test]
    fn a_process_of_ours_shares_our_namespaces() {
        let own = own().expect("/proc");
        assert_eq!(of(process::id()).expect("/proc"), own);
        assert_ne!(own.net, own.pid);
        assert_eq!(innermost_pid(process::id()), Some(process::id()));
    }

    #[test]
    fn a_process_in_other_namespaces_is_told_from_ours() {
        let Some(mut unshare) = elsewhere() else {
            return skip("namespaces of their own cannot be had");
        };
        let children = format!("/proc/{0}/task/{0}/children", unshare.id());
        let children = std::fs::read_to_string(children).expect("a list");
        let shell = children.trim().parse().expect("one child");

        let theirs = of(shell).expect("/proc");
        let ours = own().expect("/proc");
        assert_ne!(theirs.net, ours.net);
        assert_ne!(theirs.pid, ours.pid);
        assert_eq!(innermost_pid(shell), Some(1));

        drop(unshare.stdin.take());
        unshare.wait().expect("the shell ends");
        assert!(of(shell).is_err(), "nobody has that pid any more");
        assert_eq!(innermost_pid(shell), None);
    }
}
