//! From an owner's death to a free port.
//!
//! When a port is free the event stream says. When an owner is dead the kernel says, by a pidfd
//! (pidfd_open(2)), to the daemon as to anybody: a thread here does nothing but wait for that. 100
//! processes that are killed at once need all processors for some milliseconds to end, and whoever
//! waits for them waits for a processor, too. So what counts is how much later than that thread the
//! daemon has done its work.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde_json::Value;

use crate::Plan;
use crate::figures::{Bar, Row, Times};
use crate::site::{Running, Site, owners};

/// How long owners live before they die, at least.
const SETTLED: Duration = Duration::from_secs(3);

/// How long a death may stay unseen.
const PATIENCE: Duration = Duration::from_secs(20);

/// How often so many die at once.
const BATCHES: usize = 3;

pub fn rows(plan: &Plan) -> Vec<Row> {
    let count = plan.scaled(1000);
    let mut all = owners(count);
    let site = Site::started(&plan.styxy);
    let ports = site.allocate(count, &all);
    let released = releases(&site);
    // A process is not yet known for what it is in its first second.
    std::thread::sleep(SETTLED);

    let at_once = plan.scaled(100);
    let mut victims: Vec<_> = all.iter_mut().zip(ports).collect();
    let mut batches = victims.split_off(count - at_once * BATCHES);
    let mut alone = Deaths::default();
    for victim in victims.chunks_mut(1) {
        alone.extend(victim, &released);
    }
    let mut together = Deaths::default();
    for batch in batches.chunks_mut(at_once) {
        together.extend(batch, &released);
    }
    [("one at a time", alone), ("100 at once", together)]
        .into_iter()
        .flat_map(|(how, deaths)| {
            let Deaths { to_free, to_seen } = deaths;
            let measured = format!(
                "from the kill on p50 {:.2} ms, p99 {:.2} ms; until a bare watcher knows: \
                 p50 {:.2} ms, p99 {:.2} ms",
                to_free.p50() / 1e3,
                to_free.p99() / 1e3,
                to_seen.p50() / 1e3,
                to_seen.p99() / 1e3
            );
            let row = move |what, figure: f64, bar| Row {
                work: format!("death to port free, 1,000 owners, {how}, {what}"),
                measured: measured.clone(),
                // The daemon may be told before the watcher is.
                figure: figure.max(0.0) / 1e3,
                unit: " ms",
                bar: Bar::AtMost(bar),
            };
            [
                row("p50", to_free.p50() - to_seen.p50(), 1.0),
                row("p99", to_free.p99() - to_seen.p99(), 5.0),
            ]
        })
        .collect()
}

/// What followed kills, and when.
#[derive(Default)]
struct Deaths {
    to_free: Times,
    to_seen: Times,
}

impl Deaths {
    /// Kills all of them at once, and waits until their ports are free.
    fn extend(&mut self, victims: &mut [(&mut Running, u16)], released: &Receiver<Vec<Release>>) {
        let pidfds: Vec<_> = victims.iter().map(|(owner, _)| pidfd(owner)).collect();
        let mut kill = || -> Vec<Instant> {
            let kill = |(owner, _): &mut (&mut Running, u16)| {
                let now = Instant::now();
                owner.kill();
                now
            };
            victims.iter_mut().map(kill).collect()
        };
        let (kills, deaths) = if pidfds.len() == 1 {
            (kill(), deaths(&pidfds))
        } else {
            let watcher = std::thread::spawn(move || deaths(&pidfds));
            (kill(), watcher.join().expect("it sees all of them"))
        };
        let mut free = HashMap::new();
        while free.len() < victims.len() {
            let released = released.recv_timeout(PATIENCE).expect("ports get free");
            free.extend(released.iter().map(|released| (released.port(), released.at)));
        }
        for (((owner, port), kill), death) in victims.iter_mut().zip(kills).zip(deaths) {
            let free = *free.get(port).expect("its port got free, and no other");
            self.to_free.push(free - kill);
            self.to_seen.push(death - kill);
            owner.reap();
        }
    }
}

fn pidfd(process: &Running) -> OwnedFd {
    let pid = i32::try_from(process.pid()).ok().and_then(Pid::from_raw).expect("a pid");
    pidfd_open(pid, PidfdFlags::empty()).expect("it is our own, and not reaped")
}

/// When each of these processes was dead.
fn deaths(pidfds: &[OwnedFd]) -> Vec<Instant> {
    let mut deaths = vec![None; pidfds.len()];
    while deaths.iter().any(Option::is_none) {
        let waiting: Vec<_> = (0..pidfds.len()).filter(|index| deaths[*index].is_none()).collect();
        let mut polled: Vec<_> =
            waiting.iter().map(|index| PollFd::new(&pidfds[*index], PollFlags::IN)).collect();
        poll(&mut polled, None).expect("pidfds can be polled");
        let now = Instant::now();
        for (index, polled) in waiting.iter().zip(&polled) {
            if !polled.revents().is_empty() {
                deaths[*index] = Some(now);
            }
        }
    }
    deaths.into_iter().flatten().collect()
}

/// A port that is free again.
struct Release {
    /// What the event says.
    data: String,
    at: Instant,
}

impl Release {
    fn port(&self) -> u16 {
        let data: Value = serde_json::from_str(&self.data).expect("JSON");
        data["port"].as_u64().and_then(|port| u16::try_from(port).ok()).expect("a port")
    }
}

/// What the event stream says of released ports, as it comes. What came together is handed on
/// together, and read later: a hundred events should not wait for each other, nor wake anybody.
fn releases(site: &Site) -> Receiver<Vec<Release>> {
    let mut stream = UnixStream::connect(site.socket()).expect("the daemon is there");
    let request = b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n";
    stream.write_all(request).expect("the daemon reads");
    let mut stream = BufReader::with_capacity(1 << 20, stream);
    // The stream is open when its head is there.
    let lines = stream.by_ref().lines().map_while(Result::ok);
    let head: Vec<_> = lines.take_while(|line| !line.is_empty()).collect();
    assert!(head.first().is_some_and(|status| status.contains(" 200 ")), "{head:?}");
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let (mut line, mut event) = (String::new(), String::new());
        let mut released = Vec::new();
        // It ends with the daemon.
        while stream.read_line(&mut line).is_ok_and(|length| length > 0) {
            if let Some(name) = line.trim_end().strip_prefix("event: ") {
                name.clone_into(&mut event);
            } else if let Some(data) = line.trim_end().strip_prefix("data: ")
                && event == "released"
            {
                released.push(Release { data: data.to_owned(), at: Instant::now() });
            }
            line.clear();
            if stream.buffer().is_empty()
                && !released.is_empty()
                && sender.send(std::mem::take(&mut released)).is_err()
            {
                return;
            }
        }
    });
    receiver
}
