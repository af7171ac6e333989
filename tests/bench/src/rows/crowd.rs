//! Questions on a machine with many sockets and processes.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use serde_json::json;

use crate::Plan;
use crate::figures::{Bar, Row, Times};
use crate::http::Client;
use crate::site::{CROWD_PORT, Crowd, Site, owners};

pub fn rows(plan: &Plan) -> Vec<Row> {
    let owners = owners(plan.scaled(1000));
    // The owners are processes, too.
    let sockets = plan.scaled(5000);
    let _crowd = Crowd::gather(plan.scaled(1000), sockets);
    let used = format!("/check/{CROWD_PORT}");
    // Of a daemon that has looked for nobody yet.
    let mut namings = Times::default();
    for _ in 0..plan.rounds {
        let site = Site::started(&plan.styxy);
        let answer = site.client().ask("GET", &used, "").accepted();
        assert!(answer.json()["system_usage"]["process"]["pid"].is_u64(), "{}", answer.json());
        namings.push(answer.took);
    }
    let site = Site::started(&plan.styxy);
    site.allocate(plan.scaled(1000), &owners);
    let mut client = site.client();
    let first = |client: &mut Client, path: &str| {
        client.ask("GET", path, "").accepted().took.as_secs_f64() * 1e3
    };
    let first_check = first(&mut client, &used);
    let check = times(&mut client, plan.scaled(2000), |index| {
        format!("/check/{}", usize::from(CROWD_PORT) + index % sockets)
    });
    let free = times(&mut client, plan.scaled(500), |_| "/check/9999".to_owned());
    let first_list = first(&mut client, "/allocations");
    let list = times(&mut client, plan.scaled(1000), |_| "/allocations".to_owned());
    let first_scan = first(&mut client, "/scan?start=1&end=65535");
    let scan = times(&mut client, plan.scaled(100), |_| "/scan?start=1&end=65535".to_owned());
    let beside = beside_scans(&site, plan.scaled(2000), owners[0].pid());
    let row = |work: &str, times: &Times, first: f64, bar| Row {
        work: format!("{work}, 5,000 sockets and 2,000 processes, p99"),
        measured: format!("p50 {:.2} ms; the first {first:.1} ms", times.p50() / 1e3),
        figure: times.p99() / 1e3,
        unit: " ms",
        bar: Bar::AtMost(bar),
    };
    vec![
        row("first naming of a process by a new daemon", &namings, namings.p50() / 1e3, 150.0),
        row("check of a used port", &check, first_check, 5.0),
        row("check of a free port", &free, free.p50() / 1e3, 5.0),
        row("list of 1,000", &list, first_list, 5.0),
        row("scan of all ports", &scan, first_scan, 100.0),
        row("allocate while somebody scans all the time", &beside, beside.p50() / 1e3, 5.0),
    ]
}

/// Allocations while another client asks for one scan of all ports after the other.
fn beside_scans(site: &Site, count: usize, owner: u32) -> Times {
    let is_done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut client = site.client();
            while !is_done.load(Ordering::Relaxed) {
                client.ask("GET", "/scan?start=1&end=65535", "").accepted();
            }
        });
        let mut client = site.client();
        let body = json!({"service_type": "dev", "process_id": owner}).to_string();
        let mut times = Times::default();
        for _ in 0..count {
            let answer = client.ask("POST", "/allocate", &body).accepted();
            let lock_id = answer.json()["lock_id"].as_str().expect("a lock id").to_owned();
            times.push(answer.took);
            client.ask("DELETE", &format!("/allocate/{lock_id}"), "").accepted();
        }
        is_done.store(true, Ordering::Relaxed);
        times
    })
}

fn times(client: &mut Client, count: usize, path: impl Fn(usize) -> String) -> Times {
    let mut times = Times::default();
    for index in 0..count {
        times.push(client.ask("GET", &path(index), "").accepted().took);
    }
    times
}
