//! Whether anybody is being served: what a daemon looks at before it leaves.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Requests in progress, and when the last one was done. An idle keep-alive connection is none.
#[derive(Debug, Clone)]
pub struct Activity(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    started: Instant,
    busy: AtomicUsize,
    /// When the last request was done, in nanoseconds since `started`.
    last: AtomicU64,
}

/// Something in progress, until it is dropped.
#[derive(Debug)]
pub(super) struct InProgress(Activity);

impl Default for Activity {
    fn default() -> Self {
        let (busy, last) = (AtomicUsize::new(0), AtomicU64::new(0));
        Self(Arc::new(Inner { started: Instant::now(), busy, last }))
    }
}

impl Activity {
    /// How long nobody has been served; `None` while somebody is.
    pub fn quiet_for(&self) -> Option<Duration> {
        let inner = &self.0;
        (inner.busy.load(Ordering::Acquire) == 0).then(|| {
            let last = Duration::from_nanos(inner.last.load(Ordering::Acquire));
            inner.started.elapsed().saturating_sub(last)
        })
    }

    pub(super) fn begin(&self) -> InProgress {
        self.0.busy.fetch_add(1, Ordering::AcqRel);
        InProgress(self.clone())
    }
}

impl Drop for InProgress {
    fn drop(&mut self) {
        let inner = &self.0.0;
        let now = u64::try_from(inner.started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        inner.last.store(now, Ordering::Release);
        inner.busy.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_quiet_only_when_the_last_one_is_done() {
        let activity = Activity::default();
        assert!(activity.quiet_for().is_some());
        let (one, other) = (activity.begin(), activity.begin());
        drop(one);
        assert_eq!(activity.quiet_for(), None);
        let before = Instant::now();
        drop(other);
        assert!(activity.quiet_for().is_some_and(|quiet| quiet <= before.elapsed()));
    }
}
