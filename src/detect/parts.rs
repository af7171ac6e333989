//! Work on many things, shared among the processors.

use std::num::NonZero;
use std::thread;

/// How many things are too few to share: to start a thread takes as long as to look at some dozens
/// of processes.
const SMALLEST_PART: usize = 64;

/// The most threads at once. More would only wait for the kernel's own locks.
const MOST_THREADS: usize = 4;

/// Does `work` on parts of `things`, each on a thread of its own, and answers the results in the
/// order of the parts.
pub(super) fn in_parts<T: Sync, R: Send>(things: &[T], work: impl Fn(&[T]) -> R + Sync) -> Vec<R> {
    let processors = thread::available_parallelism().map_or(1, NonZero::get);
    let threads = processors.min(MOST_THREADS).min(things.len() / SMALLEST_PART);
    if threads < 2 {
        return vec![work(things)];
    }
    let mut parts = things.chunks(things.len().div_ceil(threads));
    let own = parts.next().unwrap_or_default();
    thread::scope(|scope| {
        let work = &work;
        let others: Vec<_> = parts
            .map(|part| {
                let other = thread::Builder::new().spawn_scoped(scope, move || work(part));
                // Where no thread can be had (RLIMIT_NPROC), this one does it.
                (part, other.ok())
            })
            .collect();
        let mut done = vec![work(own)];
        done.extend(others.into_iter().map(|(part, other)| {
            match other.map(thread::ScopedJoinHandle::join) {
                Some(Ok(result)) => result,
                Some(Err(panic)) => std::panic::resume_unwind(panic),
                None => work(part),
            }
        }));
        done
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_thing_is_worked_on_once_and_in_order() {
        for count in [0, 1, SMALLEST_PART, 2 * SMALLEST_PART, 1001] {
            let things: Vec<_> = (0..count).collect();
            assert_eq!(in_parts(&things, <[usize]>::to_vec).concat(), things);
        }
    }

    #[test]
    fn a_panic_is_passed_on() {
        let things = [0; 1000];
        let panicked = std::panic::catch_unwind(|| in_parts(&things, |_| panic!("as expected")));
        assert!(panicked.is_err());
    }
}
