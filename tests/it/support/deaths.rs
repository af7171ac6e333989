//! How soon after a death something is so, measured beside what this machine can do just then.

use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{PidfdFlags, Signal, pidfd_open};

use super::process::{as_pid, readable_within};
use super::{PATIENCE, Running};

/// How soon a port is free after the death of its holder.
const PROMISE: Duration = Duration::from_millis(50);

/// Far below the safety net, which comes every 10 s, and far above what a busy machine adds.
const AT_ONCE: Duration = Duration::from_secs(2);

/// Kills `victim`, does `see`, and answers how much later that was done than a thread woke that
/// does nothing but wait for this death: other programs that have the processors delay both.
#[track_caller]
pub(crate) fn delay_after_death(victim: &Running, see: impl FnOnce()) -> Duration {
    let pidfd = pidfd_open(as_pid(victim.pid()), PidfdFlags::empty()).expect("a living child");
    thread::scope(|scope| {
        let watcher = scope.spawn(|| readable_within(&pidfd, PATIENCE).then(Instant::now));
        victim.signal(Signal::KILL);
        see();
        let seen = Instant::now();
        let died = watcher.join().expect("no panic").expect("it dies");
        seen.saturating_duration_since(died)
    })
}

/// Sees that nine of ten of these delays are as promised, and that nobody was left to the safety
/// net. The tenth is the machine's, which may stop the daemon alone at any time. Sorts them.
#[track_caller]
pub(crate) fn keep_the_promise(delays: &mut [Duration]) {
    delays.sort_unstable();
    let most = delays.len() * 9 / 10;
    assert!(delays[most - 1] < PROMISE, "not within {PROMISE:?}: {delays:?}");
    assert!(delays[delays.len() - 1] < AT_ONCE, "not at once: {delays:?}");
}
