//! The connections that are served, and room for those that come.

use std::collections::VecDeque;
use std::future::Future;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

/// The most connections at once; more wait in the kernel's backlog until others have given way.
const MAX_CONNECTIONS: usize = 512;

/// How many give way at once when there is no room left.
const GIVING_WAY: usize = 16;

/// How long a connection that must give way may take to finish its request. A walk through /proc
/// takes a tenth of a second; whoever takes longer sends or reads too slowly.
const WAY_PATIENCE: Duration = Duration::from_millis(250);

/// How long requests in progress may take once the daemon is told to end. All of its end is to fit
/// into 5 s, whatever its clients do.
const DRAIN_PATIENCE: Duration = Duration::from_secs(4);

/// The connections that are served, each in a task of its own.
///
/// A client may hold a connection without using it, send its request byte by byte, or never read
/// the answer, and on TCP any user of the machine may. So when there is no room left, the oldest
/// give way: what they had asked is answered yet, and they may come again.
pub(super) struct Connections {
    tasks: JoinSet<()>,
    /// The oldest first. Some have ended already.
    seats: VecDeque<Seat>,
}

struct Seat {
    stop: watch::Sender<bool>,
    task: AbortHandle,
}

impl Connections {
    pub(super) fn new() -> Self {
        Self { tasks: JoinSet::new(), seats: VecDeque::new() }
    }

    /// Serves one more. It is to end after its current request when its receiver says so.
    pub(super) fn spawn<F>(&mut self, serve: impl FnOnce(watch::Receiver<bool>) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (stop, stopped) = watch::channel(false);
        let task = self.tasks.spawn(serve(stopped));
        if self.seats.len() >= 2 * MAX_CONNECTIONS {
            self.seats.retain(|seat| !seat.task.is_finished());
        }
        self.seats.push_back(Seat { stop, task });
        if !self.have_room() {
            self.make_room();
        }
    }

    /// Whether one more can be served.
    pub(super) fn have_room(&self) -> bool {
        self.tasks.len() < MAX_CONNECTIONS
    }

    /// Waits until one has ended; for ever when there is none.
    pub(super) async fn ended(&mut self) {
        if self.tasks.join_next().await.is_none() {
            std::future::pending::<()>().await;
        }
    }

    fn make_room(&mut self) {
        let mut leaving = Vec::with_capacity(GIVING_WAY);
        while leaving.len() < GIVING_WAY
            && let Some(oldest) = self.seats.pop_front()
        {
            if !oldest.task.is_finished() {
                oldest.stop.send_replace(true);
                leaving.push(oldest.task);
            }
        }
        tokio::spawn(async move {
            tokio::time::sleep(WAY_PATIENCE).await;
            leaving.iter().for_each(AbortHandle::abort);
        });
    }

    /// Lets each finish the request that it has begun, and ends it.
    pub(super) async fn drain(&mut self) {
        for seat in self.seats.drain(..) {
            seat.stop.send_replace(true);
        }
        let drained = tokio::time::timeout(DRAIN_PATIENCE, async {
            while self.tasks.join_next().await.is_some() {}
        });
        if drained.await.is_err() {
            tracing::warn!("{} connections did not end in time", self.tasks.len());
            self.tasks.shutdown().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    fn run(test: impl Future<Output = ()>) {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_time().build().expect("a runtime").block_on(test);
    }

    #[test]
    fn the_oldest_give_way_when_there_is_no_room_left() {
        run(async {
            let mut connections = Connections::new();
            let stops: Vec<_> = (1..MAX_CONNECTIONS)
                .map(|_| {
                    let mut told = None;
                    connections.spawn(|stop| {
                        told = Some(stop.clone());
                        async move {
                            let mut stop = stop;
                            let _gone = stop.wait_for(|stop| *stop).await;
                        }
                    });
                    told.expect("it was begun")
                })
                .collect();
            assert!(connections.have_room());
            assert!(stops.iter().all(|stop| !*stop.borrow()));

            connections.spawn(|_| pending());
            assert!(!connections.have_room());
            connections.ended().await;
            assert!(connections.have_room());
            let told = stops.iter().take_while(|stop| *stop.borrow()).count();
            assert_eq!(told, GIVING_WAY, "the oldest, and no others");
            assert!(stops[told..].iter().all(|stop| !*stop.borrow()));
        });
    }

    #[test]
    fn who_does_not_give_way_is_cut_off() {
        run(async {
            let mut connections = Connections::new();
            for _ in 0..MAX_CONNECTIONS {
                connections.spawn(|_| pending());
            }
            assert!(!connections.have_room());
            for _ in 0..GIVING_WAY {
                connections.ended().await;
            }
            assert_eq!(connections.tasks.len(), MAX_CONNECTIONS - GIVING_WAY);
        });
    }
}
