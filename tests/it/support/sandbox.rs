//! Other users and other networks: what needs root, and how to go without.

use std::fs::File;
use std::os::fd::AsFd as _;
use std::process::Command;

use rustix::thread::{LinkNameSpaceType, Uid, move_into_link_name_space, set_thread_res_uid};

use super::testing::say;

/// The user that some programs of the tests run as.
pub(crate) const NOBODY: u32 = 65_534;

/// A user who is neither root nor [`NOBODY`].
pub(crate) const STRANGER: u32 = 65_533;

/// Says how much a test covered that has a short and a long form.
pub(crate) fn report(covered: &str) {
    let name = std::thread::current().name().unwrap_or("a test").to_owned();
    say(&format!("COVERED: {name}: {covered}"));
}

/// Whether this process is root.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Whether the program is there.
pub(crate) fn has_program(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(name).is_file())
}

/// Puts the words in front of a command: its environment and directory stay.
pub(crate) fn behind(command: &Command, words: &[&str]) -> Command {
    let mut wrapped = Command::new(words[0]);
    wrapped.args(&words[1..]).arg(command.get_program()).args(command.get_args());
    wrapped.env_clear();
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            wrapped.env(name, value);
        }
    }
    if let Some(directory) = command.get_current_dir() {
        wrapped.current_dir(directory);
    }
    wrapped
}

/// The command as [`NOBODY`] runs it. Needs root.
pub(crate) fn as_nobody(command: &Command) -> Command {
    behind(command, &["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"])
}

/// Does `work` on a thread that is that user. Needs root.
pub(crate) fn as_user<T: Send>(uid: u32, work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let worker = scope.spawn(move || {
            let uid = Uid::from_raw(uid);
            set_thread_res_uid(uid, uid, uid).expect("root may");
            work()
        });
        worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// The command in a network namespace of its own, where nothing but loopback is. Needs root.
pub(crate) fn in_new_network(command: &Command) -> Command {
    behind(command, &["unshare", "--net", "sh", "-c", "ip link set lo up && exec \"$@\"", "sh"])
}

/// Does `work` on a thread that is in the network of the process `pid`. Needs root.
pub(crate) fn in_network_of<T: Send>(pid: u32, work: impl FnOnce() -> T + Send) -> T {
    let network = File::open(format!("/proc/{pid}/ns/net")).expect("a namespace");
    std::thread::scope(|scope| {
        let worker = scope.spawn(move || {
            move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network))
                .expect("root may enter it");
            work()
        });
        worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
