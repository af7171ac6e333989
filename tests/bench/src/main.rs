//! Runs everything and prints the table. `run` beside this crate builds what it needs and calls it.
//!
//! Contenders alternate, round by round, and a ratio is the median of each round's, so that drift
//! of the machine hits all alike. Nothing here fails for being slow; it fails when a part of it
//! does not run or a request is not answered as it should be.

mod figures;
mod http;
mod rows;
mod site;
mod wrk;

use std::path::PathBuf;
use std::time::Duration;

/// What is measured with, and how long.
#[derive(Debug)]
pub struct Plan {
    /// The program.
    pub styxy: PathBuf,
    /// `noop-daemon`.
    pub noop_daemon: PathBuf,
    /// `noop-client`.
    pub noop_client: PathBuf,
    /// The interpreter that portpicker is installed for.
    pub python: PathBuf,
    /// How often contenders take turns.
    pub rounds: usize,
    /// How long each turn of a load lasts.
    pub turn: Duration,
    /// By how much counts are divided: 1 measures what the table says.
    pub scale: usize,
}

impl Plan {
    /// `count`, or less in the short form.
    pub fn scaled(&self, count: usize) -> usize {
        (count / self.scale).max(4)
    }
}

fn main() {
    let mut arguments: Vec<_> = std::env::args().skip(1).collect();
    if let [command, port, count] = arguments.as_slice()
        && command == "listen"
    {
        let (port, count) = (port.parse(), count.parse());
        return site::listen(port.expect("a port"), count.expect("a count"));
    }
    if let [command, port] = arguments.as_slice()
        && command == "first"
    {
        return rows::activation::first(port.parse().expect("a port"));
    }
    let is_short = arguments.first().is_some_and(|it| it == "--short");
    arguments.drain(..usize::from(is_short));
    let [styxy, bin, python, only @ ..] = arguments.as_slice() else {
        panic!("usage: bench [--short] STYXY FOLDER-OF-THE-CONTENDERS PYTHON [PART...]");
    };
    let bin = PathBuf::from(bin);
    let plan = Plan {
        styxy: styxy.into(),
        noop_daemon: bin.join("noop-daemon"),
        noop_client: bin.join("noop-client"),
        python: python.into(),
        rounds: if is_short { 1 } else { 7 },
        turn: Duration::from_secs(if is_short { 1 } else { 2 }),
        scale: if is_short { 20 } else { 1 },
    };
    // 1,000 owners of each contender, and a crowd's listeners.
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let wide = rustix::process::Rlimit { current: limit.maximum, ..limit };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, wide).expect("a soft limit");

    let mut table = Vec::new();
    for (name, part) in rows::PARTS {
        if only.is_empty() || only.iter().any(|it| it == name) {
            eprintln!("{name} ...");
            table.extend(part(&plan));
        }
    }
    figures::print(&table);
}
