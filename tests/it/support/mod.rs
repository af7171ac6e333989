//! What the scenarios are written with.

mod blocks;
mod daemon;
mod deaths;
mod home;
mod http;
mod journal;
mod listeners;
mod output;
mod process;
mod sandbox;
mod site;
#[path = "../../../src/testing.rs"]
mod testing;
mod tmpfs;
mod wait;

pub(crate) use daemon::Daemon;
pub(crate) use deaths::{delay_after_death, keep_the_promise};
pub(crate) use home::{Home, PATH, Share};
pub(crate) use http::{Address, Connection, Reply, Request};
pub(crate) use journal::{changes, reboot, said, sealed};
pub(crate) use listeners::{Serve, leave_time_wait, serve, tcp_socket, udp_socket};
pub(crate) use output::Output;
pub(crate) use process::{Running, finish, owner, reuse_pid, session_of};
pub(crate) use sandbox::{
    NOBODY, STRANGER, as_nobody, as_user, behind, has_program, in_network_of, in_new_network,
    is_root, report,
};
pub(crate) use site::Site;
pub(crate) use testing::skip;
pub(crate) use tmpfs::Tmpfs;
pub(crate) use wait::eventually;

use std::time::Duration;

use serde_json::Value;

/// How long anything may take that has no promise of its own: long enough for a loaded machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Whether the long forms were asked for (`STYXY_TEST_FULL=1`).
pub(crate) fn full() -> bool {
    std::env::var_os("STYXY_TEST_FULL").is_some_and(|value| value == "1")
}

/// A random number below `limit`.
pub(crate) fn random_below(limit: usize) -> usize {
    let [high, low, ..] = *uuid::Uuid::new_v4().as_bytes();
    usize::from(u16::from_be_bytes([high, low])) % limit
}

/// The `port` of an answer or an allocation.
#[track_caller]
pub(crate) fn port_of(value: &Value) -> u16 {
    let port = value["port"].as_u64().and_then(|port| u16::try_from(port).ok());
    port.unwrap_or_else(|| panic!("no port in {value:#}"))
}
