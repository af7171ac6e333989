//! Memory, start and idleness.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::Plan;
use crate::figures::{Bar, Row, Times, median};
use crate::site::{Site, owners};

pub fn memory(plan: &Plan) -> Vec<Row> {
    let owners = owners(plan.scaled(1000));
    let count = plan.scaled(10_000);
    let fresh: Vec<_> = (0..plan.rounds).map(|_| Site::started(&plan.styxy).memory()).collect();
    let site = Site::started(&plan.styxy);
    site.allocate(count, &owners);
    let row = |work: String, figure, bar| Row {
        work,
        measured: "resident".to_owned(),
        figure,
        unit: " MiB",
        bar: Bar::AtMost(bar),
    };
    vec![
        row("memory, fresh".to_owned(), median(&fresh), 6.0),
        row("memory, 10,000 allocations of 1,000 owners".to_owned(), site.memory(), 16.0),
    ]
}

pub fn start(plan: &Plan) -> Vec<Row> {
    let owners = owners(plan.scaled(1000));
    let mut site = Site::started(&plan.styxy);
    let records = plan.scaled(100_000);
    fill(&site, owners[0].pid());
    site.kill();
    let (mut times, mut empty) = (Times::default(), Times::default());
    let journal = journal(&site.state());
    let kept = prolonged(&std::fs::read(&journal).expect("a journal"), records);
    for _ in 0..plan.rounds {
        std::fs::write(&journal, &kept).expect("room");
        times.push(site.start());
        site.kill();
        let mut fresh = Site::new(&plan.styxy);
        empty.push(fresh.start());
    }
    vec![Row {
        work: "start with a journal of 100,000 records, until it answers".to_owned(),
        measured: format!("without a journal {:.1} ms", empty.p50() / 1e3),
        figure: times.p50() / 1e3,
        unit: " ms",
        bar: Bar::AtMost(100.0),
    }]
}

/// Allocates and releases, fewer times than the journal takes before it is compacted.
fn fill(site: &Site, owner: u32) {
    let mut client = site.client();
    for _ in 0..200 {
        let body = json!({"service_type": "dev", "process_id": owner}).to_string();
        let answer = client.ask("POST", "/allocate", &body).accepted().json();
        let lock_id = answer["lock_id"].as_str().expect("a lock id");
        client.ask("DELETE", &format!("/allocate/{lock_id}"), "").accepted();
    }
}

/// A journal of so many records: what follows its head, over and over. A daemon would have
/// compacted it long before; one that could not, because the disk was full, would not.
fn prolonged(journal: &[u8], records: usize) -> Vec<u8> {
    let mut lines = journal.split_inclusive(|byte| *byte == b'\n');
    let head = lines.next().expect("a head").to_vec();
    let records = lines.collect::<Vec<_>>().into_iter().cycle().take(records);
    records.fold(head, |mut all, line| {
        all.extend_from_slice(line);
        all
    })
}

fn journal(state: &Path) -> PathBuf {
    let machines = std::fs::read_dir(state).expect("a state folder");
    let found = machines
        .filter_map(Result::ok)
        .map(|machine| machine.path().join("state.jsonl"))
        .find(|journal| journal.exists());
    found.expect("a journal")
}

pub fn idle(plan: &Plan) -> Vec<Row> {
    let owners = owners(plan.scaled(1000));
    let site = Site::started(&plan.styxy);
    site.allocate(plan.scaled(1000), &owners);
    let length = Duration::from_secs(60) / u32::try_from(plan.scale).expect("small");
    // What the allocations left to do is done.
    std::thread::sleep(Duration::from_secs(2));
    let before = site.processor_time();
    let start = Instant::now();
    std::thread::sleep(length);
    let used = site.processor_time() - before;
    vec![Row {
        work: "CPU while idle, 1,000 allocations".to_owned(),
        measured: format!("{} ms in {} s", used.as_millis(), length.as_secs()),
        figure: used.as_secs_f64() / start.elapsed().as_secs_f64() * 100.0,
        unit: " % of a core",
        bar: Bar::AtMost(0.1),
    }]
}
