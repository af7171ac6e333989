//! Waiting for a condition, never for a time.

use std::thread;
use std::time::{Duration, Instant};

/// Looks again and again until `look` has something, and returns it.
///
/// Panics with what was seen last when `limit` has passed.
#[track_caller]
pub(crate) fn eventually<T>(limit: Duration, mut look: impl FnMut() -> Result<T, String>) -> T {
    let start = Instant::now();
    loop {
        match look() {
            Ok(found) => return found,
            Err(seen) => {
                assert!(start.elapsed() < limit, "not within {limit:?}; seen last: {seen}");
            }
        }
        // A pause between two looks, so that the program under test gets the processor.
        thread::park_timeout(Duration::from_millis(1));
    }
}
