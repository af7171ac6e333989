//! The intelligence layer: what a developer works on.

mod root;

pub use root::root_of;
