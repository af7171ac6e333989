//! Allocate and release under load, against two POSTs that do nothing.

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::json;

use crate::Plan;
use crate::figures::{Bar, Row, median, ratio};
use crate::site::{Running, Site, free_port, owners, until};
use crate::wrk::{Load, load};

pub fn rows(plan: &Plan) -> Vec<Row> {
    let owners = owners(plan.scaled(1000));
    let site = Site::started(&plan.styxy);
    let size = answer_size(&site, &owners);
    let folder = tempfile::TempDir::new().expect("a folder");
    let (noop, noop_port) = noop_daemon(plan, size, None);
    let (calls, calls_port) = noop_daemon(plan, size, Some(&folder.path().join("journal")));
    let mut rows = Vec::new();
    for connections in [1, 16] {
        let (mut ours, mut theirs, mut bare) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..plan.rounds {
            ours.push(load("styxy", (site.pid(), site.port), connections, plan.turn, &owners));
            site.clear();
            theirs.push(load("noop", (noop.pid(), noop_port), connections, plan.turn, &owners));
            bare.push(load("noop", (calls.pid(), calls_port), connections, plan.turn, &owners));
        }
        rows.push(Row {
            work: format!("allocate + release, {connections} keep-alive connections"),
            measured: format!("{}; no-op: {}", shown(&ours), shown(&theirs)),
            figure: ratio(&rates(&ours), &rates(&theirs)),
            unit: " of the rate",
            bar: Bar::AtLeast(0.5),
        });
        rows.push(Row {
            work: format!("the same by a no-op with the same calls, {connections} connections"),
            measured: shown(&bare),
            figure: ratio(&rates(&bare), &rates(&theirs)),
            unit: " of the rate",
            bar: Bar::None,
        });
        // What remains true on a busy machine.
        let processor = |loads: &[Load]| loads.iter().map(|it| it.processor).collect::<Vec<_>>();
        let (ours, theirs) = (processor(&ours), processor(&theirs));
        rows.push(Row {
            work: format!("the same, processor time of the daemon, {connections} connections"),
            measured: format!(
                "{:.1} µs a request; no-op: {:.1} µs",
                median(&ours),
                median(&theirs)
            ),
            figure: ratio(&ours, &theirs),
            unit: " of the time",
            bar: Bar::None,
        });
    }
    rows
}

fn rates(loads: &[Load]) -> Vec<f64> {
    loads.iter().map(|load| load.rate).collect()
}

fn shown(loads: &[Load]) -> String {
    let middle = |figure: fn(&Load) -> f64| median(&loads.iter().map(figure).collect::<Vec<_>>());
    let (rate, p50, p99) = (middle(|it| it.rate), middle(|it| it.p50), middle(|it| it.p99));
    format!("{rate:.0}/s, p50 {p50:.0} µs, p99 {p99:.0} µs")
}

/// How many bytes an allocation's answer has.
pub(super) fn answer_size(site: &Site, owners: &[Running]) -> usize {
    let body = json!({"service_type": "dev", "process_id": owners[0].pid()}).to_string();
    let size = site.client().ask("POST", "/allocate", &body).accepted().body.len();
    site.clear();
    size
}

/// The daemon that does nothing, on its port; with a journal it makes the calls of an allocation.
fn noop_daemon(plan: &Plan, answer: usize, journal: Option<&Path>) -> (Running, u16) {
    let port = free_port();
    let mut command = Command::new(&plan.noop_daemon);
    command.args([format!("127.0.0.1:{port}"), answer.to_string()]);
    command.args(journal).stdout(Stdio::null());
    let daemon = Running::spawn(&mut command);
    until(|| std::net::TcpStream::connect(("127.0.0.1", port)).ok());
    (daemon, port)
}
