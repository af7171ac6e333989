//! How long an allocation takes beside many others.

use serde_json::json;

use crate::Plan;
use crate::figures::{Bar, Row, Times, median, ratio};
use crate::site::{Running, Site, owners};

pub fn rows(plan: &Plan) -> Vec<Row> {
    let owners = owners(plan.scaled(1000));
    let (few, many) = (Site::started(&plan.styxy), Site::started(&plan.styxy));
    few.allocate(10, &owners);
    many.allocate(plan.scaled(10_000), &owners);
    let (mut beside_few, mut beside_many) = (Vec::new(), Vec::new());
    for _ in 0..plan.rounds {
        beside_few.push(allocations(&few, plan.scaled(4000), &owners));
        beside_many.push(allocations(&many, plan.scaled(4000), &owners));
    }
    let p50 = |rounds: &[Times]| rounds.iter().map(Times::p50).collect::<Vec<_>>();
    let p99 = |rounds: &[Times]| rounds.iter().map(Times::p99).collect::<Vec<_>>();
    let shown = |rounds: &[Times]| {
        format!("p50 {:.0} µs, p99 {:.0} µs", median(&p50(rounds)), median(&p99(rounds)))
    };
    let row = |work: &str, figure, bar| Row {
        work: work.to_owned(),
        measured: format!("{}; beside 10: {}", shown(&beside_many), shown(&beside_few)),
        figure,
        unit: " of the time",
        bar,
    };
    vec![
        row(
            "p99 of allocate beside 10,000 allocations, against 10",
            ratio(&p99(&beside_many), &p99(&beside_few)),
            Bar::AtMost(1.5),
        ),
        row("the same, p50", ratio(&p50(&beside_many), &p50(&beside_few)), Bar::None),
    ]
}

/// Allocates, and releases at once what was allocated.
fn allocations(site: &Site, count: usize, owners: &[Running]) -> Times {
    let mut client = site.client();
    let mut times = Times::default();
    for owner in owners.iter().cycle().take(count) {
        let body = json!({"service_type": "dev", "process_id": owner.pid()}).to_string();
        let answer = client.ask("POST", "/allocate", &body).accepted();
        let lock_id = answer.json()["lock_id"].as_str().expect("a lock id").to_owned();
        times.push(answer.took);
        client.ask("DELETE", &format!("/allocate/{lock_id}"), "").accepted();
    }
    times
}
