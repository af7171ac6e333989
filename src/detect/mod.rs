//! The detection layer: what the machine says of ports and processes.

pub mod broken_pipe;
pub mod containers;
pub mod descriptors;
mod directories;
mod facts;
pub mod heirs;
pub mod holders;
pub mod host;
mod known;
pub mod namespace;
mod ownership;
mod parent;
mod parts;
pub mod peer;
pub mod ports;
pub mod process;
mod procfs;
pub mod sockets;
mod strays;
pub mod terminate;
#[cfg(test)]
mod testing;
pub mod users;
pub mod watch;

pub use facts::ProcessFacts;
pub use host::Host;
