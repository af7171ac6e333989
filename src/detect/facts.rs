//! What is known of a process that holds a socket: all that the ownership rule asks about.

use std::path::PathBuf;

use memchr::memmem;
use uuid::Uuid;

use super::process::{name, session_of};
use super::procfs::{self, ProcDir};
use crate::registry::Process;

/// An environment is read up to here, in bytes: the kernel allows arguments and environment no
/// more together (execve(2), since Linux 4.13).
const ENVIRONMENT_LIMIT: usize = 6 << 20;

/// More ancestors than any real process has.
const ANCESTOR_LIMIT: usize = 256;

/// A process as it was when somebody looked at it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessFacts {
    /// Who it is.
    pub process: Process,
    /// Its effective user.
    pub uid: u32,
    /// Its program's name.
    pub name: String,
    /// Its working directory, where it can be seen.
    pub cwd: Option<PathBuf>,
    /// Its session, by the process id of the leader; none in a pid namespace that does not have the
    /// leader.
    pub session: Option<u32>,
    /// Its parent, the parent's parent and so on, the nearest first.
    pub ancestors: Vec<Process>,
    /// `STYXY_LOCK_ID` of the environment that it was started with.
    pub lock_id: Option<Uuid>,
}

/// Looks at a process by its directory; `body` is the directory of a living thread of it, the same
/// one unless the first thread has ended. None when the process is dead.
pub(super) fn read(pid: u32, directory: &ProcDir, body: &ProcDir) -> Option<ProcessFacts> {
    let mut buffer = [0; 1024];
    let stat = directory.stat(&mut buffer).ok()?;
    if stat.is_dead() {
        return None;
    }
    let process = Process { pid, start_ticks: stat.start_ticks };
    let mut environment = Vec::new();
    Some(ProcessFacts {
        process,
        uid: directory.uid().ok()?,
        name: name(stat.name, directory),
        cwd: body.link(c"cwd").ok(),
        session: session_of(&stat),
        ancestors: ancestors(process, stat.parent),
        lock_id: lock_id(body, &mut environment),
    })
}

/// The ancestors of `process`, whose parent is `parent`.
fn ancestors(process: Process, mut parent: u32) -> Vec<Process> {
    let mut ancestors: Vec<Process> = Vec::new();
    let mut buffer = [0; 1024];
    let mut child = process;
    while parent != 0
        && ancestors.len() < ANCESTOR_LIMIT
        && let Ok(stat) = procfs::stat(parent, &mut buffer)
        // A younger one is no parent: it got the pid of one that died since.
        && stat.start_ticks <= child.start_ticks
    {
        child = Process { pid: parent, start_ticks: stat.start_ticks };
        ancestors.push(child);
        parent = stat.parent;
    }
    ancestors
}

/// How the variable that names an allocation begins.
const LOCK_ID: &[u8] = b"STYXY_LOCK_ID=";

/// `STYXY_LOCK_ID` of the environment that a process was started with. `environment` is room to
/// read into, for a caller who looks at many.
pub(super) fn lock_id(body: &ProcDir, environment: &mut Vec<u8>) -> Option<Uuid> {
    body.read(c"environ", ENVIRONMENT_LIMIT, environment).ok()?;
    // The first one counts, as for getenv(3). Another variable may end like it.
    let is_whole = |at: &usize| *at == 0 || environment[at - 1] == 0;
    let at = memmem::find_iter(environment, LOCK_ID).find(is_whole)?;
    let value = &environment[at + LOCK_ID.len()..];
    Uuid::try_parse_ascii(value.split(|byte| *byte == 0).next()?).ok()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::detect::process::own;
    use crate::detect::testing::{Child, sleeper};

    fn facts(child: &Child) -> ProcessFacts {
        let directory = ProcDir::open(child.pid()).expect("the child lives");
        read(child.pid(), &directory, &directory).expect("the child lives")
    }

    #[test]
    fn a_child_is_known_by_what_it_was_started_with() {
        let lock_id = Uuid::new_v4();
        let directory = tempfile::tempdir().expect("a temporary directory");
        let mut command = sleeper();
        command.current_dir(directory.path()).env("STYXY_LOCK_ID", lock_id.to_string());
        let child = Child::start_session(&command, "sleep");
        let facts = facts(&child);
        assert_eq!(facts.name, "sleep");
        assert_eq!(facts.uid, rustix::process::geteuid().as_raw());
        assert_eq!(facts.lock_id, Some(lock_id));
        assert_eq!(facts.session, Some(child.pid()), "setsid made it a leader");
        let cwd = directory.path().canonicalize().expect("it exists");
        assert_eq!(facts.cwd, Some(cwd));
        assert_eq!(facts.ancestors.first(), Some(&own().expect("/proc is there").process));
    }

    #[test]
    fn a_plain_child_shares_the_session_and_has_no_lock_id() {
        // A leader of ours: that of the tests themselves may be in an outer pid namespace.
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 600; true"]).env_remove("STYXY_LOCK_ID");
        let leader = Child::start_session(&command, "sh");
        let child = leader.child_named("sleep");
        let directory = ProcDir::open(child).expect("it lives");
        let facts = read(child, &directory, &directory).expect("it lives");
        assert_eq!(facts.session, Some(leader.pid()));
        assert_eq!(facts.lock_id, None);
    }

    #[test]
    fn an_environment_with_nonsense_for_a_lock_id_has_none() {
        let child = Child::start(sleeper().env("STYXY_LOCK_ID", "not a uuid"), "sleep");
        assert_eq!(facts(&child).lock_id, None);
    }

    #[test]
    fn a_grandchild_has_two_ancestors_here() {
        let mut command = Command::new("sh");
        let child = Child::start(command.args(["-c", "sleep 600; true"]), "sh");
        let grandchild = child.child_named("sleep");
        let directory = ProcDir::open(grandchild).expect("it lives");
        let facts = read(grandchild, &directory, &directory).expect("it lives");
        assert_eq!(facts.ancestors[0].pid, child.pid());
        assert_eq!(facts.ancestors[1], own().expect("/proc is there").process);
    }
}
