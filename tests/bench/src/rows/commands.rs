//! Whole commands, from their start to their end.

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::json;

use crate::Plan;
use crate::figures::{Bar, Row, Times, time};
use crate::site::{Site, owners};

pub fn rows(plan: &Plan) -> Vec<Row> {
    let site = Site::started(&plan.styxy);
    let owners = owners(1);
    let body = json!({"service_type": "dev", "process_id": owners[0].pid()}).to_string();
    let url = format!("http://127.0.0.1:{}/allocate", site.port);

    let mut allocate = site.command();
    allocate.args(["allocate", "-s", "dev", "--pid", &owners[0].pid().to_string()]);
    let mut noop = site.within(&plan.noop_client);
    noop.args(["--url", &url, "--body", &body]);
    let mut curl = site.within(Path::new("curl"));
    curl.args(["--silent", "--fail", "-H", "Content-Type: application/json", "-d", &body, &url]);
    let mut alone = site.within(Path::new("true"));
    let mut run = site.command();
    run.args(["run", "--", "true"]);

    let count = plan.scaled(300);
    let [allocate, noop, curl] = in_turn(&site, count, [&mut allocate, &mut noop, &mut curl]);
    let [run, alone] = in_turn(&site, count, [&mut run, &mut alone]);
    let shown =
        |times: &Times| format!("p50 {:.2} ms, p99 {:.2} ms", times.p50() / 1e3, times.p99() / 1e3);
    vec![
        Row {
            work: "`styxy allocate`, the whole command, against the no-op client".to_owned(),
            measured: format!("{}; no-op: {}", shown(&allocate), shown(&noop)),
            figure: allocate.p50() / noop.p50(),
            unit: " of the time",
            bar: Bar::AtMost(1.5),
        },
        Row {
            work: "the same against `curl`".to_owned(),
            measured: format!("curl: {}", shown(&curl)),
            figure: allocate.p50() / curl.p50(),
            unit: " of the time",
            bar: Bar::AtMost(0.5),
        },
        Row {
            work: "`styxy run -- true` against `true`".to_owned(),
            measured: format!("{}; alone: {}", shown(&run), shown(&alone)),
            figure: (run.p50() - alone.p50()) / 1e3,
            unit: " ms more",
            bar: Bar::AtMost(3.0),
        },
    ]
}

/// Runs some commands in turn, each so often.
fn in_turn<const N: usize>(
    site: &Site,
    count: usize,
    mut commands: [&mut Command; N],
) -> [Times; N] {
    let mut times = [const { Times::new() }; N];
    for command in &mut commands {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    }
    for index in 0..count {
        for (command, times) in commands.iter_mut().zip(&mut times) {
            let (took, status) = time(|| command.status().expect("it starts"));
            assert!(status.success(), "{command:?}: {status}");
            times.push(took);
        }
        if index % 50 == 49 {
            site.clear();
        }
    }
    site.clear();
    times
}
