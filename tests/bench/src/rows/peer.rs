//! Allocation alone, against portpicker's portserver, each over its own protocol.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Stdio;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, poll};
use serde_json::json;
use tempfile::TempDir;

use crate::Plan;
use crate::figures::{Bar, Row, Times, median, ratio};
use crate::http::Client;
use crate::rows::load::answer_size;
use crate::site::{Running, Site, owners, until};

/// One round: allocations a second, and how long each took.
struct Round {
    rate: f64,
    times: Times,
}

pub fn rows(plan: &Plan) -> Vec<Row> {
    let owners = owners(plan.scaled(1000));
    let count = plan.scaled(4000);
    let size = answer_size(&Site::started(&plan.styxy), &owners);
    let mut rows = Vec::new();
    for clients in [1, 16] {
        let (mut ours, mut theirs, mut bare) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..plan.rounds {
            // The same ports for both, and an empty list: portserver has no release.
            ours.push(styxy(plan, clients, count, &owners));
            theirs.push(portserver(plan, clients, count, &owners));
            bare.push(noop(plan, size, clients, count, &owners));
        }
        let all = |rounds: &[Round], figure: fn(&Round) -> f64| {
            rounds.iter().map(figure).collect::<Vec<_>>()
        };
        let rate = |round: &Round| round.rate;
        let p99 = |round: &Round| round.times.p99();
        let shown = |rounds: &[Round]| {
            format!(
                "{:.0}/s, p50 {:.0} µs, p99 {:.0} µs",
                median(&all(rounds, rate)),
                median(&all(rounds, |round| round.times.p50())),
                median(&all(rounds, p99))
            )
        };
        let measured = format!("{}; portserver: {}", shown(&ours), shown(&theirs));
        rows.push(Row {
            work: format!("allocate, {clients} clients, against portserver"),
            measured,
            figure: ratio(&all(&ours, rate), &all(&theirs, rate)),
            unit: " times the rate",
            bar: Bar::AtLeast(5.0),
        });
        rows.push(Row {
            work: format!("the same, p99, {clients} clients"),
            measured: "as above".to_owned(),
            figure: ratio(&all(&ours, p99), &all(&theirs, p99)),
            unit: " of the time",
            bar: Bar::AtMost(0.2),
        });
        // What waiting for a processor and for each other leaves of it.
        rows.push(Row {
            work: format!("the same, p99, by a no-op, {clients} clients"),
            measured: shown(&bare),
            figure: ratio(&all(&bare, p99), &all(&theirs, p99)),
            unit: " of the time",
            bar: Bar::None,
        });
    }
    rows
}

/// The daemon that does nothing, on a unix socket as ours.
fn noop(plan: &Plan, size: usize, clients: usize, count: usize, owners: &[Running]) -> Round {
    let folder = TempDir::new().expect("a folder");
    let socket = folder.path().join("noop.sock");
    let _daemon = Running::spawn(
        std::process::Command::new(&plan.noop_daemon)
            .arg(&socket)
            .arg(size.to_string())
            .stdout(Stdio::null()),
    );
    until(|| UnixStream::connect(&socket).ok());
    let client = || Client::new(&socket).expect("it is there");
    share((0..clients).map(|_| client()).collect(), count, owners)
}

fn styxy(plan: &Plan, clients: usize, count: usize, owners: &[Running]) -> Round {
    let site = Site::started(&plan.styxy);
    share((0..clients).map(|_| site.client()).collect(), count, owners)
}

fn portserver(plan: &Plan, clients: usize, count: usize, owners: &[Running]) -> Round {
    let folder = TempDir::new().expect("a folder");
    let socket = folder.path().join("portserver.sock");
    let _server = Running::spawn(
        std::process::Command::new(&plan.python)
            .arg(plan.python.with_file_name("portserver.py"))
            .arg("--portserver_static_pool=10000-32767")
            .arg(format!("--portserver_address={}", socket.display()))
            .stdout(Stdio::null()),
    );
    until(|| UnixStream::connect(&socket).ok());
    share((0..clients).map(|_| PortserverClient::new(&socket)).collect(), count, owners)
}

/// Somebody who asks for one port after the other.
trait PortClient {
    /// Asks for a port for a process.
    fn ask(&mut self, owner: u32);
    /// Reads the answer.
    fn take(&mut self);
    /// What is readable when it is there.
    fn stream(&self) -> &UnixStream;
}

impl PortClient for Client {
    fn ask(&mut self, owner: u32) {
        let body = json!({"service_type": "dev", "process_id": owner}).to_string();
        self.send("POST", "/allocate", &body);
    }

    fn take(&mut self) {
        let (status, _) = self.read();
        assert_eq!(status, 201, "no port");
    }

    fn stream(&self) -> &UnixStream {
        self.stream()
    }
}

/// Its protocol: a connection for each port; the pid goes out, the port comes in.
struct PortserverClient<'a> {
    socket: &'a Path,
    stream: UnixStream,
}

impl<'a> PortserverClient<'a> {
    fn new(socket: &'a Path) -> Self {
        Self { socket, stream: UnixStream::connect(socket).expect("portserver is there") }
    }
}

impl PortClient for PortserverClient<'_> {
    fn ask(&mut self, owner: u32) {
        *self = Self::new(self.socket);
        self.stream.write_all(format!("{owner}\n").as_bytes()).expect("it reads");
    }

    fn take(&mut self) {
        let mut answer = String::new();
        self.stream.read_to_string(&mut answer).expect("it answers");
        assert!(answer.trim().parse::<u16>().is_ok(), "portserver has no port");
    }

    fn stream(&self) -> &UnixStream {
        &self.stream
    }
}

/// Lets each client ask again as soon as it has its answer, until all have asked `count` times.
///
/// One thread serves all clients: 16 of them on two processors would be waiting for each other
/// more than for any server.
fn share<C: PortClient>(mut clients: Vec<C>, count: usize, owners: &[Running]) -> Round {
    let start = Instant::now();
    let mut times = Times::default();
    let mut owners = owners.iter().map(Running::pid).cycle().take(count);
    let mut ask = |client: &mut C| {
        let owner = owners.next()?;
        let now = Instant::now();
        client.ask(owner);
        Some(now)
    };
    let mut asked: Vec<_> = clients.iter_mut().map(&mut ask).collect();
    while asked.iter().any(Option::is_some) {
        for index in readable(&clients, &asked) {
            let Some(since) = asked[index] else { continue };
            clients[index].take();
            times.push(since.elapsed());
            asked[index] = ask(&mut clients[index]);
        }
    }
    #[expect(clippy::cast_precision_loss, reason = "some thousands")]
    let rate = count as f64 / start.elapsed().as_secs_f64();
    Round { rate, times }
}

/// Which of those who have asked have an answer.
fn readable<C: PortClient>(clients: &[C], asked: &[Option<Instant>]) -> Vec<usize> {
    let waiting: Vec<_> = (0..clients.len()).filter(|index| asked[*index].is_some()).collect();
    if waiting.len() == 1 {
        // To read is to wait.
        return waiting;
    }
    let streams = waiting.iter().map(|index| clients[*index].stream());
    let mut polled: Vec<_> = streams.map(|stream| PollFd::new(stream, PollFlags::IN)).collect();
    poll(&mut polled, None).expect("sockets can be polled");
    let ready = waiting.iter().zip(&polled).filter(|(_, polled)| !polled.revents().is_empty());
    ready.map(|(index, _)| *index).collect()
}
