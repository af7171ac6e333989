//! The intelligence layer: what a developer works on.

pub mod recognise;
mod root;
mod services;
mod variable;
mod worktree;

pub use root::{package_of, root_of};
pub use services::{FILE as SERVICES_FILE, Service, Services};
pub use variable::{port_variable_of, variable_of};
pub use worktree::{branch, is_linked};
