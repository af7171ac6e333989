//! From an owner's death to a free port.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::Plan;
use crate::figures::{Bar, Row, Times};
use crate::site::{Site, owners};

/// How long owners live before they die, at least.
const SETTLED: Duration = Duration::from_secs(3);

/// How long a death may stay unseen.
const PATIENCE: Duration = Duration::from_secs(20);

pub fn rows(plan: &Plan) -> Vec<Row> {
    let count = plan.scaled(1000);
    let mut all = owners(count + 1);
    let asker = all.pop().expect("one more");
    let site = Site::started(&plan.styxy);
    let ports = site.allocate(count, &all);
    // A process is not yet known for what it is in its first second.
    std::thread::sleep(SETTLED);
    let mut client = site.client();
    let mut free_after = |port: u16, death: Instant| -> Duration {
        let body = json!({"service_type": "dev", "process_id": asker.pid(), "preferred_port": port,
                          "exact": true, "dry_run": true});
        let body = body.to_string();
        loop {
            let answer = client.ask("POST", "/allocate", &body);
            if answer.status == 200 {
                return death.elapsed();
            }
            assert!(death.elapsed() < PATIENCE, "not free: {}", answer.json());
        }
    };

    let at_once = plan.scaled(100);
    let mut one_by_one = Times::default();
    for (owner, port) in all.iter_mut().zip(&ports).take(count - at_once * 3) {
        let death = Instant::now();
        owner.kill();
        one_by_one.push(free_after(*port, death));
        owner.reap();
    }
    let mut together = Times::default();
    let first = count - at_once * 3;
    for batch in (0..3).map(|batch| first + batch * at_once) {
        let death = Instant::now();
        all[batch..batch + at_once].iter_mut().for_each(crate::site::Running::kill);
        for port in &ports[batch..batch + at_once] {
            together.push(free_after(*port, death));
        }
    }
    [("one at a time", one_by_one), ("100 at once", together)]
        .into_iter()
        .flat_map(|(how, times)| {
            let measured =
                format!("p50 {:.2} ms, p99 {:.2} ms", times.p50() / 1e3, times.p99() / 1e3);
            let row = move |what, figure: f64, bar| Row {
                work: format!("death to port free, 1,000 owners, {how}, {what}"),
                measured: measured.clone(),
                figure: figure / 1e3,
                unit: " ms",
                bar: Bar::AtMost(bar),
            };
            [row("p50", times.p50(), 1.0), row("p99", times.p99(), 5.0)]
        })
        .collect()
}
