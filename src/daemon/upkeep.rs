//! What the daemon does besides answering: deaths, deadlines, listeners, the safety net.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::{JoinHandle, yield_now};
use tokio::time::{Instant, sleep_until};

use crate::coordinator::{Coordinator, Upkeep};
use crate::detect::descriptors;
use crate::http::Activity;

/// How often the ports of allocations are looked at for listeners that came or went. A second is
/// what a person waits without noticing; one look costs a fraction of a millisecond.
const LISTENER_INTERVAL: Duration = Duration::from_secs(1);

/// The same while somebody reads the events and an allocation has no listener yet: what `styxy wait`
/// waits for is seen at once. A look takes 0.7 ms where 500 sockets listen, so this is 2 % of a
/// processor there, and a fraction of that elsewhere.
const AWAITED_INTERVAL: Duration = Duration::from_millis(40);

/// How soon after the first allocation new processes are met, so that a death before the first look
/// finds them known. At once it would take a processor from the program that is about to start.
const FIRST_MEETING: Duration = Duration::from_millis(250);

/// How long nobody must have asked for anything when they are met: who asks for one port after the
/// other would share the processors with a walk of milliseconds that nobody needs yet. Who goes on
/// asking for a second meets it with the first look.
const QUIET: Duration = Duration::from_millis(20);

/// How often a state that can't be used or written is tried again.
pub(super) const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// Ends what the dead held, within the millisecond that the kernel needs to say so.
pub(super) async fn reap(coordinator: Arc<Coordinator>) {
    let signal = coordinator.death_signal().and_then(descriptors::readable);
    let signal = match signal {
        Ok(signal) => signal,
        Err(error) => {
            tracing::error!("deaths are only seen by the safety net: {error}");
            return;
        }
    };
    loop {
        match signal.readable().await {
            Ok(mut guard) => {
                // Cleared first: who dies while these are buried makes it readable again.
                guard.clear_ready();
                coordinator.reap();
            }
            Err(error) => {
                tracing::error!("deaths are only seen by the safety net: {error}");
                return;
            }
        }
    }
}

/// Keeps deadlines, follows listeners, and runs the safety net.
pub(super) async fn run(coordinator: Arc<Coordinator>, activity: Activity) {
    let net_interval = || {
        let interval = coordinator.config().daemon.reap_interval;
        if coordinator.is_sound() { interval } else { interval.min(RETRY_INTERVAL) }
    };
    let mut net = Instant::now() + net_interval();
    let mut looked: Option<Instant> = None;
    let mut meeting: Option<Instant> = None;
    let mut questions: Option<JoinHandle<()>> = None;
    loop {
        let now = Instant::now();
        if now >= net {
            coordinator.safety_net();
            net = now + net_interval();
        }
        // The disk may have begun to refuse since then.
        net = net.min(now + net_interval());
        let plan = coordinator.upkeep();
        let deadline = plan.next_deadline.map(|left| now + left);
        let is_first = looked.is_none();
        let look = next_look(&mut looked, &plan, now);
        if is_first {
            meeting = look.map(|_| now + FIRST_MEETING);
        }
        let mut asking = plan.engines_due.map(|left| now + left);
        if questions.as_ref().is_some_and(|questions| !questions.is_finished()) {
            asking = None;
        } else if asking.is_some_and(|it| it <= now) {
            // An engine may hang, so not on this thread, and nothing here waits for it.
            let coordinator = coordinator.clone();
            questions = Some(tokio::task::spawn_blocking(move || coordinator.ask_engines()));
            asking = None;
        }
        if [look, deadline].into_iter().flatten().any(|due| due <= now) {
            look_around(&coordinator).await;
            looked = Some(Instant::now());
            continue;
        }
        if is_time_to_meet(&mut meeting, activity.quiet_for(), now) && coordinator.has_newcomers() {
            let coordinator = coordinator.clone();
            walk(move || coordinator.meet_processes()).await;
            continue;
        }
        let wake = [look, deadline, asking, meeting].into_iter().flatten().fold(net, Instant::min);
        tokio::select! {
            () = sleep_until(wake) => {}
            // Whoever has changed something is answered first.
            () = coordinator.changed() => yield_now().await,
        }
    }
}

/// When the ports of allocations are looked at next, if there are any.
///
/// On a port that was free a moment ago nobody listens yet, and who asks for one often asks for more:
/// a look would keep their answers back.
fn next_look(looked: &mut Option<Instant>, plan: &Upkeep, now: Instant) -> Option<Instant> {
    if !plan.follow_listeners {
        *looked = None;
        return None;
    }
    let interval = if plan.is_awaited { AWAITED_INTERVAL } else { LISTENER_INTERVAL };
    Some(*looked.get_or_insert(now) + interval)
}

/// Whether new processes are to be met now. `quiet` is how long nobody has been served.
fn is_time_to_meet(meeting: &mut Option<Instant>, quiet: Option<Duration>, now: Instant) -> bool {
    if meeting.is_none_or(|due| now < due) {
        return false;
    }
    let is_quiet = quiet.is_some_and(|quiet| quiet >= QUIET);
    *meeting = (!is_quiet).then(|| now + QUIET);
    is_quiet
}

/// Looks at all allocations, for the processes of the sockets that are new, and for new processes.
async fn look_around(coordinator: &Arc<Coordinator>) {
    let plan = coordinator.look_around();
    let has_unknown = !plan.unknown_inodes.is_empty();
    if !has_unknown && !coordinator.has_newcomers() {
        return;
    }
    let coordinator = coordinator.clone();
    walk(move || {
        if has_unknown {
            coordinator.name_listeners();
        }
        coordinator.meet_processes();
    })
    .await;
}

/// A walk through /proc: milliseconds to a tenth of a second, so not on this thread.
async fn walk(walk: impl FnOnce() + Send + 'static) {
    if let Err(error) = tokio::task::spawn_blocking(walk).await {
        tracing::error!("the walk through /proc failed: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_processes_are_met_once_nobody_asks() {
        let start = Instant::now();
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        let ago = |milliseconds| Some(Duration::from_millis(milliseconds));
        let mut meeting = None;
        assert!(!is_time_to_meet(&mut meeting, ago(1000), at(1000)), "nobody is to be met");
        meeting = Some(at(250));
        assert!(!is_time_to_meet(&mut meeting, ago(249), at(249)), "it is too early");
        assert!(!is_time_to_meet(&mut meeting, None, at(250)), "somebody is served");
        assert_eq!(meeting, Some(at(270)), "so it is tried again");
        assert!(!is_time_to_meet(&mut meeting, ago(19), at(270)), "somebody was, just now");
        assert!(is_time_to_meet(&mut meeting, ago(20), at(290)));
        assert!(!is_time_to_meet(&mut meeting, ago(40), at(310)), "they were met");
    }

    #[test]
    fn the_first_look_comes_an_interval_after_the_first_allocation() {
        let nothing = Upkeep::default();
        let allocated = Upkeep { follow_listeners: true, ..Upkeep::default() };
        let awaited = Upkeep { follow_listeners: true, is_awaited: true, ..Upkeep::default() };
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut looked = None;
        assert_eq!(next_look(&mut looked, &nothing, at(0)), None);
        assert_eq!(next_look(&mut looked, &allocated, at(100)), Some(at(101)));
        assert_eq!(next_look(&mut looked, &allocated, at(101)), Some(at(101)), "it is due");
        assert_eq!(next_look(&mut looked, &awaited, at(101)), Some(at(100) + AWAITED_INTERVAL));
        looked = Some(at(101));
        assert_eq!(next_look(&mut looked, &allocated, at(101)), Some(at(102)));
        assert_eq!(next_look(&mut looked, &nothing, at(150)), None);
        assert_eq!(next_look(&mut looked, &allocated, at(200)), Some(at(201)));
    }
}
