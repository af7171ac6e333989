//! Styxy under a real `systemd --user`, with the units of this repository.
//!
//! Each test has a small machine of its own ([`machine::Machine`]), and so the port 9876 too.

mod activation;
mod faults;
mod hardening;
mod hidden;
mod idle;
mod installed;
mod machine;
mod replaced;
mod sockets;
mod takeover;
mod user;
