//! Requests that arrive together go on together: one append to the journal serves all of them, and
//! a client that reads several answers is woken once.

use std::future::poll_fn;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};

use tokio::task::yield_now;

use super::lock;

/// Where requests wait that have been decided. All of them are served by one thread.
#[derive(Debug, Default)]
pub(super) struct Gathering {
    /// The connections whose requests may come here.
    connections: AtomicUsize,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    /// Somebody is there who ends it.
    is_open: bool,
    /// How many have ended.
    ended: u64,
    others: Vec<Waker>,
}

/// A connection, until it is dropped.
#[derive(Debug)]
pub(super) struct Member(Arc<Gathering>);

impl Member {
    pub(super) fn of(gathering: Arc<Gathering>) -> Self {
        gathering.connections.fetch_add(1, Ordering::Relaxed);
        Self(gathering)
    }

    /// Waits until every request that has arrived by now has been decided, and those that arrive
    /// meanwhile. Where there is no other connection, nobody is waited for.
    pub(super) async fn gather(&self) {
        let gathering = &*self.0;
        if gathering.connections.load(Ordering::Relaxed) < 2 {
            return;
        }
        let Some(current) = gathering.join() else {
            // The first one waits for all: the runtime looks for what has arrived, lets that be
            // decided, and comes back. Its client may go away: then the others go on without it.
            let _end = End(gathering);
            yield_now().await;
            return;
        };
        poll_fn(|context| {
            let mut waiting = lock(&gathering.waiting);
            if waiting.ended != current {
                return Poll::Ready(());
            }
            waiting.others.push(context.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Gathering {
    /// Which gathering to wait for the end of; none for who begins one.
    fn join(&self) -> Option<u64> {
        let mut waiting = lock(&self.waiting);
        std::mem::replace(&mut waiting.is_open, true).then_some(waiting.ended)
    }
}

/// Ends a gathering when it is dropped.
struct End<'g>(&'g Gathering);

impl Drop for End<'_> {
    fn drop(&mut self) {
        let mut waiting = lock(&self.0.waiting);
        waiting.is_open = false;
        waiting.ended += 1;
        waiting.others.drain(..).for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;
    use std::time::Duration;

    use tokio::task::JoinSet;
    use tokio::time::timeout;

    use super::*;

    fn run(test: impl Future<Output = ()>) {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_time().build().expect("a runtime").block_on(test);
    }

    #[test]
    fn all_that_arrive_go_on_together() {
        run(async {
            let gathering = Arc::new(Gathering::default());
            let decided = Arc::new(AtomicUsize::new(0));
            let mut requests = JoinSet::new();
            for _ in 0..5 {
                let (member, decided) = (Member::of(gathering.clone()), decided.clone());
                requests.spawn(async move {
                    decided.fetch_add(1, Ordering::Relaxed);
                    member.gather().await;
                    decided.load(Ordering::Relaxed)
                });
            }
            assert_eq!(requests.join_all().await, [5; 5]);
            assert_eq!(gathering.connections.load(Ordering::Relaxed), 0);
        });
    }

    #[test]
    fn nobody_is_waited_for_where_nobody_else_is() {
        run(async {
            let member = Member::of(Arc::new(Gathering::default()));
            let is_done = AtomicBool::new(false);
            tokio::select! {
                biased;
                () = member.gather() => is_done.store(true, Ordering::Relaxed),
                () = std::future::ready(()) => {}
            }
            assert!(is_done.into_inner(), "at the first look");
        });
    }

    #[test]
    fn the_others_go_on_when_the_first_has_gone() {
        run(async {
            let gathering = Arc::new(Gathering::default());
            let first = Member::of(gathering.clone());
            let other = Member::of(gathering.clone());
            let mut leaving = Box::pin(first.gather());
            let mut staying = Box::pin(other.gather());
            tokio::select! {
                biased;
                () = &mut leaving => panic!("it waits"),
                () = &mut staying => panic!("it waits too"),
                () = std::future::ready(()) => {}
            }
            drop(leaving);
            timeout(Duration::from_secs(5), staying).await.expect("it goes on");
            // And the next to come begins another.
            assert_eq!(gathering.join(), None);
        });
    }
}
