//! The load: wrk, with `pair.lua`.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::site::{Running, processor_time};

/// What wrk measured.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// Requests a second.
    pub rate: f64,
    /// Of a request, in microseconds.
    pub p50: f64,
    /// Of a request, in microseconds.
    pub p99: f64,
    /// Processor time of the server for a request, in microseconds.
    pub processor: f64,
}

/// Puts a load on a server. Every request must be answered as it should.
pub fn load(
    contender: &str,
    (pid, port): (u32, u16),
    connections: usize,
    length: Duration,
    owners: &[Running],
) -> Load {
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("pair.lua");
    let seed = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let seed = seed.expect("after 1970").as_millis() % 0xffff_ffff;
    // wrk counts in whole seconds.
    let length = format!("{}s", length.as_secs().max(1));
    let before = processor_time(pid);
    let output = Command::new("wrk")
        .args(["-t1", "-c", &connections.to_string(), "-d", &length, "-s"])
        .arg(script)
        .args([&format!("http://127.0.0.1:{port}"), "--", contender, &seed.to_string()])
        .arg(connections.to_string())
        .args(owners.iter().map(|owner| owner.pid().to_string()))
        .output()
        .expect("wrk is installed");
    let used = processor_time(pid) - before;
    let said = String::from_utf8_lossy(&output.stdout);
    let line = said.lines().find_map(|line| line.strip_prefix("JSON "));
    let line = line.unwrap_or_else(|| panic!("wrk said: {output:?}"));
    let figures: Value = serde_json::from_str(line).expect("JSON");
    assert_eq!(figures["failed"], 0, "{contender} refused requests:\n{said}");
    let figure = |name: &str| figures[name].as_f64().expect("a number");
    Load {
        rate: figure("rate"),
        p50: figure("p50"),
        p99: figure("p99"),
        processor: used.as_secs_f64() * 1e6 / figure("requests"),
    }
}
