//! One append to the journal for all who ask at once.
//!
//! What was decided must be in the journal before anybody is told. An append costs as much for
//! twenty requests as for one, and so does it to wake a client that reads several answers. So a
//! request that finds others beside it is decided first, with them, and then one of them writes what
//! all have changed, and each is answered.
//!
//! Nobody sees what is not written: whoever takes the lock for anything else writes it before.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use uuid::Uuid;

use super::{Coordinator, Inner, Moment, now};
use crate::detect::watch::Watch;
use crate::error::Error;

/// What became of an append, once it was tried: why it failed.
type Outcome = Arc<OnceLock<Result<(), String>>>;

/// What was decided since the last append.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// Told to all of them; none when there is nothing to write.
    outcome: Option<Outcome>,
    /// What was released by request: that counts even where it can't be written.
    pub(super) released: Vec<Uuid>,
    /// When all processes that are watched were seen to live, on the monotonic clock.
    all_lived: Option<Duration>,
}

/// How long a look at all processes counts for what is decided beside each other. That is done much
/// earlier, unless a client went away and nobody has written the batch yet.
const LOOK_AGE: Duration = Duration::from_millis(1);

impl Batch {
    /// Whether all that `watch` watches live: one look is for all that are decided together.
    pub(super) fn all_live(&mut self, watch: &Watch, now: Moment) -> bool {
        let is_young = |seen: Duration| now.monotonic.saturating_sub(seen) < LOOK_AGE;
        if !self.all_lived.is_some_and(is_young) {
            self.all_lived = watch.all_live().then_some(now.monotonic);
        }
        self.all_lived.is_some()
    }
}

/// The answer to an operation. It may not be in the journal yet: [`Coordinator::written`] sees to
/// that, and nobody is to be told before. Where a client has gone and nobody asks, the next to take
/// the lock does it.
#[derive(Debug)]
#[must_use = "it may not be written yet"]
pub struct Decided<T> {
    answer: T,
    outcome: Option<Outcome>,
}

impl<T> Decided<T> {
    /// An answer that waits for nothing.
    pub(super) fn written(answer: T) -> Self {
        Self { answer, outcome: None }
    }

    /// Another form of the same answer.
    pub(super) fn map<U>(self, form: impl FnOnce(T) -> U) -> Decided<U> {
        Decided { answer: form(self.answer), outcome: self.outcome }
    }

    /// Whether it waits for an append, which others may share.
    pub fn is_waiting(&self) -> bool {
        self.outcome.is_some()
    }
}

impl Coordinator {
    /// Decides an operation that must be in the journal before it is answered.
    pub(super) fn decide<T>(
        &self,
        operation: impl FnOnce(&mut Inner, Moment) -> Result<T, Error>,
    ) -> Result<Decided<T>, Error> {
        let mut inner = self.lock_unwritten();
        if inner.shutting_down {
            return Err(Error::ShuttingDown);
        }
        inner.journal.is_usable()?;
        if inner.batch.outcome.is_none() {
            inner.batch.all_lived = None;
        }
        inner.registry.savepoint();
        let decided = operation(&mut inner, now());
        if decided.is_err() {
            inner.registry.rollback();
        }
        inner.dismiss_bystanders();
        let answer = decided?;
        // Also what has changed nothing waits: it may answer what another one has just decided.
        let outcome = inner.batch.outcome.get_or_insert_default().clone();
        Ok(Decided { answer, outcome: Some(outcome) })
    }

    /// The answer, when it is in the journal: writes it, and all that was decided beside it, unless
    /// somebody has done so.
    ///
    /// # Errors
    ///
    /// [`Error::StateNotWritable`]: nothing of it counts then but releases.
    pub fn written<T>(&self, decided: Decided<T>) -> Result<T, Error> {
        let Decided { answer, outcome } = decided;
        let Some(outcome) = outcome else { return Ok(answer) };
        if outcome.get().is_none() {
            drop(self.lock());
        }
        match outcome.get() {
            Some(Ok(())) => Ok(answer),
            Some(Err(reason)) => Err(Error::StateNotWritable(reason.clone())),
            None => Err(Error::StateNotWritable("the write broke off".to_owned())),
        }
    }

    /// Writes what was decided, all or nothing of it.
    pub(super) fn write_batch(&self, inner: &mut Inner) {
        let Batch { outcome: Some(outcome), released, .. } = std::mem::take(&mut inner.batch)
        else {
            return;
        };
        let written = inner.write();
        if written.is_ok() {
            self.commit(inner);
        } else {
            inner.registry.rollback_all();
            for lock_id in released {
                // One that was made beside it never was.
                let _unknown = inner.registry.release(lock_id);
            }
            inner.settle();
        }
        // Nobody else has set it: it was taken out of the batch.
        let _ = outcome.set(written);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coordinator::tests::Sleeper;
    use crate::detect::process::identify;

    #[test]
    fn a_look_at_all_processes_counts_for_a_millisecond() {
        let mut watch = Watch::new().expect("epoll works");
        let sleeper = Sleeper::new();
        let found = identify(sleeper.0.id()).expect("it lives");
        watch.add(found.process, found.pidfd, found.image);
        let start = now();
        let later = |time: Duration| Moment { monotonic: start.monotonic + time, ..start };
        let mut batch = Batch::default();
        assert!(batch.all_live(&watch, start));
        drop(sleeper);
        assert!(batch.all_live(&watch, later(LOOK_AGE / 2)), "seen before");
        assert!(!batch.all_live(&watch, later(LOOK_AGE)));
        assert!(!batch.all_live(&watch, start), "no look says so any more");
    }
}
