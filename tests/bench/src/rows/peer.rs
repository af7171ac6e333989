//! Allocation alone, against portpicker's portserver, each over its own protocol.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Stdio;
use std::time::Instant;

use serde_json::json;
use tempfile::TempDir;

use crate::Plan;
use crate::figures::{Bar, Row, Times, median, ratio, time};
use crate::site::{Running, Site, owners, until};

/// One round: allocations a second, and how long each took.
struct Round {
    rate: f64,
    times: Times,
}

pub fn rows(plan: &Plan) -> Vec<Row> {
    let owners = owners(plan.scaled(1000));
    let count = plan.scaled(4000);
    let mut rows = Vec::new();
    for clients in [1, 16] {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..plan.rounds {
            // The same ports for both, and an empty list: portserver has no release.
            ours.push(styxy(plan, clients, count, &owners));
            theirs.push(portserver(plan, clients, count, &owners));
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
    }
    rows
}

fn styxy(plan: &Plan, clients: usize, count: usize, owners: &[Running]) -> Round {
    let site = Site::started(&plan.styxy);
    share(clients, count, owners, |owners, count| {
        let mut client = site.client();
        let mut times = Times::default();
        for owner in owners.iter().cycle().take(count) {
            let body = json!({"service_type": "dev", "process_id": owner.pid()}).to_string();
            times.push(client.ask("POST", "/allocate", &body).accepted().took);
        }
        times
    })
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
    share(clients, count, owners, |owners, count| {
        let mut times = Times::default();
        for owner in owners.iter().cycle().take(count) {
            times.push(time(|| ask_portserver(&socket, owner.pid())).0);
        }
        times
    })
}

/// Its protocol: a connection for each port; the pid goes out, the port comes in.
fn ask_portserver(socket: &Path, pid: u32) {
    let mut stream = UnixStream::connect(socket).expect("portserver is there");
    stream.write_all(format!("{pid}\n").as_bytes()).expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    assert!(answer.trim().parse::<u16>().is_ok(), "portserver has no port");
}

/// Shares the work among clients, each on a thread of its own.
fn share(
    clients: usize,
    count: usize,
    owners: &[Running],
    work: impl Fn(&[Running], usize) -> Times + Sync,
) -> Round {
    let start = Instant::now();
    let mut times = Times::default();
    std::thread::scope(|scope| {
        let running: Vec<_> =
            (0..clients).map(|_| scope.spawn(|| work(owners, count / clients))).collect();
        for client in running {
            times.extend(client.join().expect("a client failed"));
        }
    });
    #[expect(clippy::cast_precision_loss, reason = "some thousands")]
    let rate = (count / clients * clients) as f64 / start.elapsed().as_secs_f64();
    Round { rate, times }
}
