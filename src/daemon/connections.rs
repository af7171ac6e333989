//! The connections that are served, and room for those that come.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

use crate::http::{Seat, Stop};

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
/// give way, strangers first and event streams last: what they had asked is answered yet, and they
/// may come again.
pub(super) struct Connections {
    tasks: JoinSet<()>,
    /// The oldest first. Some have ended already.
    seats: VecDeque<Taken>,
}

/// A seat, from the other side.
struct Taken {
    is_stranger: bool,
    stop: watch::Sender<Stop>,
    streams: Arc<AtomicBool>,
    task: AbortHandle,
}

/// Who gives way before whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rank {
    /// Gets nothing here but a refusal.
    Stranger,
    /// Asks something, or has asked.
    Client,
    /// Waits for what happens, and is old because of that.
    Stream,
}

impl Taken {
    fn rank(&self) -> Rank {
        match (self.is_stranger, self.streams.load(Ordering::Relaxed)) {
            (true, _) => Rank::Stranger,
            (false, false) => Rank::Client,
            (false, true) => Rank::Stream,
        }
    }
}

impl Connections {
    pub(super) fn new() -> Self {
        Self { tasks: JoinSet::new(), seats: VecDeque::new() }
    }

    /// Serves one more.
    pub(super) fn spawn<F>(&mut self, is_stranger: bool, serve: impl FnOnce(Seat) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (stop, stopped) = watch::channel(Stop::No);
        let streams = Arc::new(AtomicBool::new(false));
        let task = self.tasks.spawn(serve(Seat { stop: stopped, streams: streams.clone() }));
        if self.seats.len() >= 2 * MAX_CONNECTIONS {
            self.seats.retain(|seat| !seat.task.is_finished());
        }
        self.seats.push_back(Taken { is_stranger, stop, streams, task });
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
        self.seats.retain(|seat| !seat.task.is_finished());
        let mut leaving = Vec::with_capacity(GIVING_WAY);
        for rank in [Rank::Stranger, Rank::Client, Rank::Stream] {
            self.seats.retain(|seat| {
                let stays = leaving.len() == GIVING_WAY || seat.rank() != rank;
                if !stays {
                    seat.stop.send_replace(Stop::GiveWay);
                    leaving.push(seat.task.clone());
                }
                stays
            });
        }
        tokio::spawn(async move {
            tokio::time::sleep(WAY_PATIENCE).await;
            leaving.iter().for_each(AbortHandle::abort);
        });
    }

    /// Lets each finish the request that it has begun, and ends it.
    pub(super) async fn drain(&mut self) {
        for seat in self.seats.drain(..) {
            seat.stop.send_replace(Stop::End);
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

    /// Takes a seat until it is told to leave it; whether it was told.
    fn take(connections: &mut Connections, is_stranger: bool, streams: bool) -> Seat {
        let mut taken = None;
        connections.spawn(is_stranger, |seat| {
            seat.streams.store(streams, Ordering::Relaxed);
            taken = Some(seat.clone());
            async move {
                let mut stop = seat.stop;
                let _gone = stop.wait_for(|stop| *stop != Stop::No).await;
            }
        });
        taken.expect("it was begun")
    }

    fn leaving(seats: &[Seat]) -> usize {
        seats.iter().filter(|seat| *seat.stop.borrow() != Stop::No).count()
    }

    #[test]
    fn the_oldest_give_way_when_there_is_no_room_left() {
        run(async {
            let mut connections = Connections::new();
            let seats: Vec<_> =
                (1..MAX_CONNECTIONS).map(|_| take(&mut connections, false, false)).collect();
            assert!(connections.have_room());
            assert_eq!(leaving(&seats), 0);

            connections.spawn(false, |_| pending());
            assert!(!connections.have_room());
            connections.ended().await;
            assert!(connections.have_room());
            assert_eq!(leaving(&seats[..GIVING_WAY]), GIVING_WAY, "the oldest");
            assert_eq!(leaving(&seats), GIVING_WAY, "and no others");
        });
    }

    #[test]
    fn strangers_give_way_first_and_event_streams_last() {
        run(async {
            let mut connections = Connections::new();
            let streams = [(); 100].map(|()| take(&mut connections, false, true));
            let clients = [(); 400].map(|()| take(&mut connections, false, false));
            let strangers = [(); 12].map(|()| take(&mut connections, true, false));
            assert!(!connections.have_room());
            assert_eq!(leaving(&strangers), 12);
            assert_eq!(leaving(&clients[..GIVING_WAY - 12]), GIVING_WAY - 12);
            assert_eq!(leaving(&clients) + leaving(&streams), GIVING_WAY - 12);

            // One for each of the clients that are left, and for one stream more.
            let crowd = [(); 30].map(|()| take(&mut connections, false, true));
            assert_eq!(leaving(&clients), clients.len());
            assert_eq!(leaving(&streams), GIVING_WAY * 31 - 12 - 400, "there is nobody else");
            assert_eq!(leaving(&crowd), 0, "these are younger");
        });
    }

    #[test]
    fn who_does_not_give_way_is_cut_off() {
        run(async {
            let mut connections = Connections::new();
            for _ in 0..MAX_CONNECTIONS {
                connections.spawn(false, |_| pending());
            }
            assert!(!connections.have_room());
            for _ in 0..GIVING_WAY {
                connections.ended().await;
            }
            assert_eq!(connections.tasks.len(), MAX_CONNECTIONS - GIVING_WAY);
        });
    }
}
