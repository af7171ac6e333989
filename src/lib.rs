//! Styxy hands out TCP and UDP ports on one Linux machine, so that two programs never fight over
//! one.
//!
//! Four layers, each in a folder of its own: `http` coordinates, `registry` allocates, `detect`
//! sees the machine, `project` knows what a developer works on. `store` makes the registry
//! survive, `coordinator` holds them together under one lock, `daemon` and `client` are the two
//! programs made of them, and `cli` is what a person types.

pub mod api;
pub mod cli;
pub mod client;
pub mod config;
pub mod coordinator;
pub mod daemon;
pub mod detect;
pub mod error;
pub mod http;
pub mod paths;
pub mod project;
pub mod registry;
mod small_file;
mod socket_http;
pub mod store;
#[cfg(test)]
mod testing;
pub mod text;
