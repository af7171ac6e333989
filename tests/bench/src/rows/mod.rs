//! The table's parts, each a function that measures and answers lines.

pub mod activation;
mod calls;
mod commands;
mod crowd;
mod deaths;
mod latency;
mod load;
mod peer;
mod resources;

use crate::Plan;
use crate::figures::Row;

/// Measures something.
type Part = fn(&Plan) -> Vec<Row>;

/// Every part, by the name that picks it on the command line.
pub const PARTS: &[(&str, Part)] = &[
    ("load", load::rows),
    ("peer", peer::rows),
    ("latency", latency::rows),
    ("commands", commands::rows),
    ("activation", activation::rows),
    ("deaths", deaths::rows),
    ("memory", resources::memory),
    ("start", resources::start),
    ("idle", resources::idle),
    ("crowd", crowd::rows),
    ("calls", calls::rows),
];
