//! The journal that makes the registry survive.
//!
//! The state directory (0700) holds `state.jsonl` (0600), one change a line (see `journal`), and
//! `daemon.lock`, which names the one process that works on them (see `lock`).
//!
//! What was appended survives the end of this process at once, and a power failure from the next
//! [`Store::sync`] on. That is enough: an allocation of a process cannot outlive the boot that the
//! process ran in, so no request waits for the disk.
//!
//! A journal is only ever appended to, cut back to its last whole line, or replaced by a whole new
//! one. So whenever the writer ends, what is found is a journal with at most a torn last line.
//! Several changes of one append are one write(2); a writer that is killed within it may leave the
//! first of them. Nobody was answered then, and whoever asks again with the same lock ids gets them.

mod files;
mod inspect;
mod journal;
mod lock;
mod open_journal;

use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub use self::inspect::{Inspection, inspect};
use self::lock::Lock;
use self::open_journal::OpenJournal;
use crate::registry::{Allocation, Assignment, AssignmentKey, Change, Instance};
use crate::small_file;

/// The process that works on the state: the contents of `daemon.lock`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockHolder {
    /// Its process id.
    pub pid: u32,
    /// Field 22 of its `/proc/PID/stat`.
    pub start_ticks: u64,
    /// Its version.
    pub version: String,
    /// What it does: `daemon` or `command`.
    pub role: String,
    /// The addresses that it serves.
    pub sockets: Vec<String>,
    /// systemd started it.
    pub systemd: bool,
}

/// Why the state could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process works on it.
    #[error("another styxy works on {}{}", dir.display(), holder.as_ref().map(|h| format!(" (pid {})", h.pid)).unwrap_or_default())]
    Locked {
        /// The state directory.
        dir: PathBuf,
        /// Who it is, where the lock file says so.
        holder: Option<LockHolder>,
    },
    /// A file or directory of the state failed.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which one.
        path: PathBuf,
        /// How.
        source: io::Error,
    },
}

/// What a replay found.
#[derive(Debug, Default)]
pub struct Loaded {
    /// The changes, oldest first: of an allocation only the last one, and nothing of one that has
    /// ended.
    pub changes: Vec<Change>,
    /// They were written in an earlier boot: allocations and instances are void.
    pub rebooted: bool,
    /// What was dropped, repaired or kept beside, a sentence each.
    pub notices: Vec<String>,
}

/// A journal that is longer than this many bytes is compacted when it is also longer than four
/// times what compaction made of it last.
const COMPACT_BYTES: u64 = 16 << 20;

/// The state directory, locked, with its journal open.
///
/// After an error of [`Store::append`], ask [`Store::wants_compaction`]: a journal that was deleted
/// or replaced by another program is made anew by [`Store::compact`], and then takes changes again.
#[derive(Debug)]
pub struct Store {
    dir: PathBuf,
    lock: Lock,
    journal: OpenJournal,
    /// How many bytes the last compaction made of the journal; 0 before the first.
    compacted_length: u64,
    /// This boot.
    boot_id: String,
    /// The journal's last header is of this boot. Else one is due before the next change.
    has_header: bool,
    /// Only a whole new journal can be relied on.
    rewrite_due: bool,
    /// Encoded lines on their way to the file; kept for its memory.
    buffer: Vec<u8>,
    /// Changes that count already and that the disk refused, at most one for each thing.
    deferred: Vec<Change>,
    /// The last write, where it was refused.
    refusal: Option<Refusal>,
}

/// A write that the disk refused.
#[derive(Debug)]
struct Refusal {
    reason: String,
    /// How many bytes it would have been.
    length: usize,
}

impl Store {
    /// Makes the directory where it is missing, takes the lock and replays the journal.
    ///
    /// A healthy journal is only read: it opens on a full disk. A damaged one is kept beside as
    /// `state.jsonl.damaged-TIME` (UTC; the ten newest are kept), and a new one written of what
    /// could be used.
    ///
    /// When the journal is of an earlier boot, the first append puts a header of this boot in front
    /// of its changes, so nothing of the earlier boot comes back but the assignments, whether the
    /// caller compacts or not.
    ///
    /// # Errors
    ///
    /// [`OpenError::Locked`] when another process has the lock for longer than `patience`;
    /// [`OpenError::Io`] for what the disk refuses. A damaged journal is no error.
    pub fn open(
        dir: &Path,
        boot_id: &str,
        holder: &LockHolder,
        patience: Duration,
    ) -> Result<(Self, Loaded), OpenError> {
        let at = |path: &Path| {
            let path = path.to_owned();
            move |source| OpenError::Io { path, source }
        };
        let mut notices = Vec::new();
        files::make_private(dir, &mut notices).map_err(at(dir))?;
        let mut lock = Lock::take(dir, holder, patience)?;
        if let Err(error) = lock.announce(holder) {
            let path = dir.join(lock::NAME);
            notices.push(format!("{} does not say who holds it: {error}.", path.display()));
        }
        let opened =
            files::open(dir, boot_id, &mut notices).map_err(at(&dir.join(files::JOURNAL)))?;
        let rebooted = opened.boot_id.is_some_and(|written_in| written_in != boot_id);
        let store = Self {
            dir: dir.to_owned(),
            lock,
            journal: opened.journal,
            compacted_length: 0,
            boot_id: boot_id.to_owned(),
            has_header: !rebooted,
            rewrite_due: false,
            buffer: Vec::new(),
            deferred: Vec::new(),
            refusal: None,
        };
        Ok((store, Loaded { changes: opened.changes, rebooted, notices }))
    }

    /// Writes `changes` behind the journal, all or none, and what was deferred before them.
    ///
    /// # Errors
    ///
    /// When they could not be written whole; the journal is then as it was before. `NotFound` when
    /// another program deleted, replaced or changed the file.
    pub fn append(&mut self, changes: &[Change]) -> io::Result<()> {
        self.encode(changes)?;
        self.write(changes.len())
    }

    /// Writes `changes` now or, while the disk refuses, as soon as it takes them again.
    ///
    /// # Errors
    ///
    /// Why they could not be written now; they are kept all the same.
    pub fn append_or_defer(&mut self, changes: &[Change]) -> io::Result<()> {
        // What has no line at all is not kept: it would keep back all that follows.
        self.encode(changes)?;
        self.write(changes.len()).inspect_err(|_| {
            for change in changes {
                // Each carries the whole new value, so the last one of a thing is enough, and a
                // disk that is full for days costs no more memory than the things themselves.
                let thing = Thing::of(change);
                self.deferred.retain(|deferred| Thing::of(deferred) != thing);
                self.deferred.push(change.clone());
            }
        })
    }

    /// Puts what is deferred, and `changes`, as lines into `buffer`.
    fn encode(&mut self, changes: &[Change]) -> io::Result<()> {
        self.buffer.clear();
        if changes.is_empty() && self.deferred.is_empty() {
            return Ok(());
        }
        if !self.has_header {
            journal::encode_header(&mut self.buffer, &self.boot_id)?;
        }
        let mut changes = self.deferred.iter().chain(changes);
        changes.try_for_each(|change| journal::encode(&mut self.buffer, change))
    }

    /// Writes `buffer`: what was deferred, and `new` changes.
    fn write(&mut self, new: usize) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let written = self.write_buffer(new);
        self.note(written, self.buffer.len())
    }

    fn write_buffer(&mut self, new: usize) -> io::Result<()> {
        self.check_place()?;
        let lines = usize::from(!self.has_header) + self.deferred.len() + new;
        self.journal.append(&self.buffer, lines)?;
        self.has_header = true;
        self.deferred.clear();
        Ok(())
    }

    /// Remembers whether the disk took the last write, of `length` bytes.
    fn note(&mut self, written: io::Result<()>, length: usize) -> io::Result<()> {
        self.refusal =
            written.as_ref().err().map(|error| Refusal { reason: error.to_string(), length });
        written
    }

    /// Why the disk refused the last write; `None` when it took it. [`Store::sync`] sees when it
    /// would take it again.
    pub fn refusal(&self) -> Option<&str> {
        self.refusal.as_ref().map(|refusal| refusal.reason.as_str())
    }

    /// Whether the journal has grown so far beyond its `live` values that it should be compacted,
    /// or cannot be relied on.
    ///
    /// A compaction writes `live` lines and syncs twice (some milliseconds). At four lines for each
    /// live value and 4,096 more, that is a third of a line for each line appended, and the syncs
    /// are spread over thousands of them; a replay reads 4,096 lines in about as many microseconds.
    pub fn wants_compaction(&self, live: usize) -> bool {
        let is_long = self.journal.length() > COMPACT_BYTES.max(4 * self.compacted_length);
        self.rewrite_due || is_long || self.journal.lines() > 4 * live + 4096
    }

    /// Writes a new journal of nothing but `snapshot`, and puts it in the old one's place.
    ///
    /// It also makes the directory and takes the lock anew, where another program deleted them. A
    /// journal that another program put in the place of ours is kept beside.
    ///
    /// # Errors
    ///
    /// What the disk refused, the old journal stays then; `WouldBlock` when the lock file was
    /// deleted and another styxy has taken the new one.
    pub fn compact(&mut self, snapshot: impl IntoIterator<Item = Change>) -> io::Result<()> {
        files::make_private(&self.dir, &mut Vec::new())?;
        self.lock.retake(&self.dir)?;
        let foreign = !self.journal.is_in_place()?;
        let (journal, kept) = files::replace(&self.dir, &self.boot_id, snapshot, foreign)?;
        if let Some(kept) = kept {
            let (path, kept) = (self.dir.join(files::JOURNAL), kept.display());
            let path = path.display();
            tracing::warn!("{path} was changed by another program; its version is kept as {kept}");
        }
        self.compacted_length = journal.length();
        self.journal = journal;
        self.has_header = true;
        self.rewrite_due = false;
        // The snapshot has them.
        self.deferred.clear();
        self.refusal = None;
        files::sync_dir(&self.dir)
    }

    /// Makes what was appended survive a power failure (fdatasync(2)), and writes what was
    /// deferred. It also sees whether lock and journal are still in their places, and whether the
    /// disk would take by now what it refused last.
    ///
    /// # Errors
    ///
    /// What the disk refused; `NotFound` when another program deleted or replaced a file.
    pub fn sync(&mut self) -> io::Result<()> {
        self.append(&[])?;
        let length = self.refusal.as_ref().map_or(0, |refusal| refusal.length);
        let synced = self.try_room(length).and_then(|()| self.sync_files());
        self.note(synced, length)
    }

    fn try_room(&mut self, length: usize) -> io::Result<()> {
        self.check_place()?;
        if length == 0 { Ok(()) } else { self.journal.try_room(length) }
    }

    fn sync_files(&mut self) -> io::Result<()> {
        if !self.lock.is_in_place()? {
            self.rewrite_due = true;
            return Err(gone(&self.dir.join(lock::NAME)));
        }
        // The kernel reports a lost page once and counts it as clean afterwards (fsync(2)), so to
        // sync again would prove nothing.
        self.journal.sync().inspect_err(|_| self.rewrite_due = true)
    }

    /// Whether there are changes that the disk has not taken yet.
    pub fn has_deferred(&self) -> bool {
        !self.deferred.is_empty()
    }

    /// Says in the lock file which addresses this process serves.
    ///
    /// # Errors
    ///
    /// What the disk refused.
    pub fn announce(&mut self, holder: &LockHolder) -> io::Result<()> {
        self.lock.announce(holder)
    }

    /// Fails when what is written would not be found again.
    fn check_place(&mut self) -> io::Result<()> {
        if self.journal.is_in_place()? {
            return Ok(());
        }
        self.rewrite_due = true;
        Err(gone(&self.dir.join(files::JOURNAL)))
    }
}

/// What a change is about.
#[derive(PartialEq)]
enum Thing<'a> {
    Allocation(Uuid),
    Instance(&'a str),
    Assignment(&'a AssignmentKey),
}

impl<'a> Thing<'a> {
    fn of(change: &'a Change) -> Self {
        match change {
            Change::Allocation(Allocation { lock_id, .. }) | Change::Released { lock_id, .. } => {
                Self::Allocation(*lock_id)
            }
            Change::Instance(Instance { instance_id, .. })
            | Change::InstanceRemoved { instance_id } => Self::Instance(instance_id),
            Change::Assignment(Assignment { key, .. }) | Change::AssignmentRemoved { key } => {
                Self::Assignment(key)
            }
        }
    }
}

fn gone(path: &Path) -> io::Error {
    let message = format!("{} was deleted, replaced or changed by another program", path.display());
    io::Error::new(io::ErrorKind::NotFound, message)
}

/// What the journal in `dir` says now, without the lock: its last change may not be whole yet, and
/// is left out then. Only a regular file is read: to open anything else could wait for ever.
///
/// # Errors
///
/// When it is not there, is no regular file or can't be read.
pub fn peek(dir: &Path) -> io::Result<Vec<Change>> {
    Ok(replay_in(dir)?.changes)
}

/// The same, and nothing of an earlier boot than `boot_id` but the assignments.
///
/// # Errors
///
/// As [`peek`].
pub fn peek_in_boot(dir: &Path, boot_id: &str) -> io::Result<Vec<Change>> {
    let mut replay = replay_in(dir)?;
    if replay.boot_id.is_some_and(|written_in| written_in != boot_id) {
        replay.changes.retain(Change::is_durable);
    }
    Ok(replay.changes)
}

fn replay_in(dir: &Path) -> io::Result<journal::Replay> {
    let file = small_file::open(&dir.join(files::JOURNAL))?;
    journal::replay(io::BufReader::new(file.take(files::MAX_JOURNAL)))
}

/// Who holds the lock of the state directory `dir` now, without taking it.
///
/// `None` when nobody does, and when the file does not say who (it could not be written on a full
/// disk). For a moment after a change of holders it may still name the former one, if that was
/// killed: compare the start time before acting on the pid.
pub fn lock_holder(dir: &Path) -> Option<LockHolder> {
    lock::holder(dir)
}
