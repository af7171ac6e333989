//! The parent of this process as the owner of what it allocates, where nobody named one.

use rustix::process::{geteuid, getppid};

use super::process::{Identified, unix_seconds};
use super::procfs::ProcDir;
use crate::registry::Process;

/// What takes in orphans, and what starts services or commands of a container.
/// They outlive all that they start, so as owners they would pin a port for ever.
/// By the kernel's name, which ends after 15 bytes.
const MANAGERS: [&str; 20] = [
    // Service managers; a user's own systemd also takes in the orphans of that user.
    "systemd",
    "systemd-executo",
    "init",
    "openrc-init",
    "runsvdir",
    "runsv",
    "s6-svscan",
    "s6-supervise",
    "dinit",
    "supervisord",
    "cron",
    "crond",
    // First processes of containers.
    "tini",
    "tini-static",
    "docker-init",
    "dumb-init",
    "catatonit",
    // Above the first process of a container: containerd-shim-runc-v2 is the name cut off.
    "containerd-shim",
    "conmon",
    "conmonrs",
];

/// The parent of this process, without a pidfd, if it can be an implicit owner: a living process
/// of the same user that is no service manager.
pub fn parent_owner() -> Option<Identified> {
    let parent = getppid()?;
    let pid = u32::try_from(parent.as_raw_pid()).ok()?;
    let mut buffer = [0; 1024];
    let directory = ProcDir::open(pid).ok()?;
    let stat = directory.stat(&mut buffer).ok()?;
    let uid = directory.uid().ok()?;
    // A parent that is still the parent was it all the time: a dead one's children get another.
    let certain = getppid() == Some(parent) && !stat.is_dead();
    (certain && may_own(pid, uid, stat.name)).then(|| Identified {
        process: Process { pid, start_ticks: stat.start_ticks },
        uid,
        started_at: unix_seconds(stat.start_ticks),
        pidfd: None,
        image: stat.own_image(),
    })
}

/// Pid 1 takes in orphans, whatever program it is.
fn may_own(pid: u32, uid: u32, name: &[u8]) -> bool {
    pid != 1
        && uid == geteuid().as_raw()
        && !MANAGERS.iter().any(|manager| manager.as_bytes() == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::process::is_alive;

    #[test]
    fn a_manager_and_pid_1_and_another_users_process_are_no_owners() {
        let me = geteuid().as_raw();
        assert!(may_own(812, me, b"bash"));
        assert!(!may_own(812, me + 1, b"bash"));
        assert!(!may_own(1, me, b"bash"));
        assert!(!may_own(812, me, b"systemd"));
        assert!(!may_own(812, me, b"containerd-shim"));
        assert!(MANAGERS.iter().all(|name| name.len() <= 15), "the kernel cuts names off");
    }

    #[test]
    fn the_parent_is_the_one_that_started_this_process() {
        if let Some(parent) = parent_owner() {
            assert_eq!(parent.process.pid, std::os::unix::process::parent_id());
            assert!(is_alive(parent.process));
        }
    }
}
