//! What Styxy promises, shown from outside: the real program, real sockets, real processes.
//!
//! Each module is one theme and each test one promise. Every test has a home of its own
//! ([`support::Home`]) with its own daemon and its own block of ports, so that they run side by
//! side. `STYXY_TEST_FULL=1` runs the long forms.

mod support;

mod autostart;
mod bad_input;
mod cleanup;
mod command_line;
mod completions;
mod connections;
mod containers;
mod crash;
mod doctor;
mod events;
mod faults;
mod foreign_program;
mod frameworks;
mod guard;
mod holders;
mod hostile;
mod install;
mod journal;
mod lives;
mod log;
mod main_job;
mod man;
mod named;
mod notify;
mod openapi;
mod owners;
mod probing;
mod project;
mod races;
mod recognised;
mod restricted;
mod scan;
mod soak;
mod spoofing;
mod store;
mod systemd;
mod terminal;
mod two_daemons;
mod wait;
mod wire;
mod without_daemon;
mod wrong_usage;
