//! Where the log goes: the journal with its fields, or plain text on stderr.

use std::io::IsTerminal;
use std::os::linux::fs::MetadataExt;

use tracing::level_filters::LevelFilter;
use tracing_journald::{Priority, PriorityMappings};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// The prefix of our fields in the journal: `journalctl STYXY_PORT=8000`.
const FIELD_PREFIX: &str = "STYXY";

/// Starts logging. Once a process.
pub(super) fn start() {
    if stderr_is_journal()
        && let Ok(journal) = tracing_journald::layer()
    {
        let journal = journal
            .with_field_prefix(Some(FIELD_PREFIX.to_owned()))
            .with_syslog_identifier("styxy".to_owned())
            .with_priority_mappings(PriorityMappings {
                // The layer's own mapping makes a notice of every INFO.
                info: Priority::Informational,
                ..PriorityMappings::new()
            });
        tracing_subscriber::registry().with(LevelFilter::INFO).with(journal).init();
        return;
    }
    if stderr_is_null() {
        return;
    }
    let text = tracing_subscriber::fmt::layer()
        .with_target(false)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    tracing_subscriber::registry().with(LevelFilter::INFO).with(text).init();
}

/// Whether stderr is connected to the journal: `JOURNAL_STREAM` of systemd.exec(5) names its
/// device and inode.
fn stderr_is_journal() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else { return false };
    let Ok(stderr) = std::fs::metadata("/proc/self/fd/2") else { return false };
    stream == format!("{}:{}", stderr.st_dev(), stderr.st_ino())
}

/// Whether nobody can read stderr, as in the background: then no line is made at all. The device is
/// /dev/null's (null(4)).
fn stderr_is_null() -> bool {
    let stderr = std::fs::metadata("/proc/self/fd/2");
    stderr.is_ok_and(|stderr| stderr.st_rdev() == rustix::fs::makedev(1, 3))
}
