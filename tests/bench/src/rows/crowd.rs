//! Questions on a machine with many sockets and processes.

use crate::Plan;
use crate::figures::{Bar, Row, Times};
use crate::http::Client;
use crate::site::{CROWD_PORT, Crowd, Site, owners};

pub fn rows(plan: &Plan) -> Vec<Row> {
    let owners = owners(plan.scaled(1000));
    // The owners are processes, too.
    let sockets = plan.scaled(5000);
    let _crowd = Crowd::gather(plan.scaled(1000), sockets);
    let site = Site::started(&plan.styxy);
    site.allocate(plan.scaled(1000), &owners);
    let mut client = site.client();
    let first = |client: &mut Client, path: &str| {
        client.ask("GET", path, "").accepted().took.as_secs_f64() * 1e3
    };
    let used = format!("/check/{CROWD_PORT}");
    let first_check = first(&mut client, &used);
    let check = times(&mut client, plan.scaled(2000), |index| {
        format!("/check/{}", usize::from(CROWD_PORT) + index % sockets)
    });
    let free = times(&mut client, plan.scaled(500), |_| "/check/9999".to_owned());
    let first_list = first(&mut client, "/allocations");
    let list = times(&mut client, plan.scaled(300), |_| "/allocations".to_owned());
    let first_scan = first(&mut client, "/scan?start=1&end=65535");
    let scan = times(&mut client, plan.scaled(100), |_| "/scan?start=1&end=65535".to_owned());
    let row = |work: &str, times: &Times, first: f64, bar| Row {
        work: format!("{work}, 5,000 sockets and 2,000 processes, p99"),
        measured: format!("p50 {:.2} ms; the first {first:.1} ms", times.p50() / 1e3),
        figure: times.p99() / 1e3,
        unit: " ms",
        bar: Bar::AtMost(bar),
    };
    vec![
        row("check of a used port", &check, first_check, 5.0),
        row("check of a free port", &free, free.p50() / 1e3, 5.0),
        row("list of 1,000", &list, first_list, 5.0),
        row("scan of all ports", &scan, first_scan, 100.0),
    ]
}

fn times(client: &mut Client, count: usize, path: impl Fn(usize) -> String) -> Times {
    let mut times = Times::default();
    for index in 0..count {
        times.push(client.ask("GET", &path(index), "").accepted().took);
    }
    times
}
