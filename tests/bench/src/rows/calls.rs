//! The system calls of one allocation and its release.

use std::process::{Command, Stdio};

use serde_json::json;

use crate::Plan;
use crate::figures::{Bar, Row};
use crate::http::Client;
use crate::site::{Running, Site, owners, until};

pub fn rows(plan: &Plan) -> Vec<Row> {
    let owners = owners(1);
    let site = Site::started(&plan.styxy);
    let mut client = site.client();
    // The owner is known from now on, as in the load.
    site.allocate(1, &owners);
    let folder = tempfile::TempDir::new().expect("a folder");
    let log = folder.path().join("calls");
    let mut strace = Command::new("strace");
    strace.args(["-f", "-q", "-o"]).arg(&log).args(["-p", &site.pid().to_string()]);
    let tracer = Running::spawn(strace.stdout(Stdio::null()));
    // It traces once a question shows in its log.
    until(|| {
        client.ask("GET", "/openapi.json", "");
        std::fs::read_to_string(&log).ok().filter(|log| log.contains("openapi"))
    });
    pair(&mut client, owners[0].pid());
    drop(tracer);
    let log = std::fs::read_to_string(&log).expect("a log");
    let (_, log) = log.rsplit_once("GET /openapi").expect("the question");
    let calls: Vec<_> = log
        .lines()
        .skip_while(|line| !line.contains("POST /allocate"))
        .filter_map(|line| line.split_whitespace().nth(1)?.split_once('(').map(|(name, _)| name))
        .collect();
    let end = calls.len();
    #[expect(clippy::cast_precision_loss, reason = "a handful")]
    let figure = end as f64;
    vec![Row {
        work: "system calls of one allocate and its release".to_owned(),
        measured: calls.join(" "),
        figure,
        unit: "",
        bar: Bar::None,
    }]
}

fn pair(client: &mut Client, owner: u32) {
    let body = json!({"service_type": "dev", "process_id": owner}).to_string();
    let answer = client.ask("POST", "/allocate", &body).accepted().json();
    let lock_id = answer["lock_id"].as_str().expect("a lock id");
    client.ask("DELETE", &format!("/allocate/{lock_id}"), "").accepted();
}
