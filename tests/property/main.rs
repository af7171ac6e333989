//! Property tests: what holds for any input, tried with many.

mod journal;
mod registry;
