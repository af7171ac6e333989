//! `daemon.lock`: who works on the state. One process at a time, as flock(2) says.
//!
//! The file is never unlinked. Whoever waits for the lock has the file open already; if it were
//! unlinked on release, the one who waits and the next one who comes would hold locks on two
//! different files, and both work on the state. What says that nobody holds it is the lock, never
//! the file: the kernel drops the lock of a holder that was killed, and the contents stay.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;

use super::{LockHolder, OpenError, files};

/// Its name in the state directory.
pub(super) const NAME: &str = "daemon.lock";

/// The first and the longest pause between two attempts.
const PAUSES: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(20));

/// Attempts that are made however short the patience is: [`holder`] has a shared lock for some
/// microseconds while it looks, and that is nobody at work.
const MIN_ATTEMPTS: u32 = 3;

/// The longest contents that are read, in bytes.
const MAX_CONTENTS: u64 = 64 * 1024;

/// The lock, held until this is dropped.
#[derive(Debug)]
pub(super) struct Lock {
    file: File,
    path: PathBuf,
    holder: LockHolder,
}

impl Lock {
    /// Takes the lock of the state directory `dir`, within `patience`. The contents are still the
    /// former holder's: [`Lock::announce`] follows.
    ///
    /// flock(2) cannot be waited for with a deadline, so this asks again and again, with pauses.
    pub(super) fn take(
        dir: &Path,
        holder: &LockHolder,
        patience: Duration,
    ) -> Result<Self, OpenError> {
        let path = dir.join(NAME);
        let started = Instant::now();
        let mut pause = PAUSES.0;
        let mut attempts = 0;
        loop {
            match try_lock(&path) {
                Ok(Some(file)) => return Ok(Self { file, path, holder: holder.clone() }),
                Ok(None) => {}
                Err(source) => return Err(OpenError::Io { path, source }),
            }
            attempts += 1;
            let left = patience.saturating_sub(started.elapsed());
            if left.is_zero() && attempts >= MIN_ATTEMPTS {
                let holder = File::open(&path).ok().and_then(|file| read(&file));
                return Err(OpenError::Locked { dir: dir.to_owned(), holder });
            }
            std::thread::sleep(pause.min(left.max(PAUSES.0)));
            pause = (pause * 2).min(PAUSES.1);
        }
    }

    /// Takes the lock anew where somebody deleted or replaced the file: until then another process
    /// could take "the" lock too.
    pub(super) fn retake(&mut self, dir: &Path) -> io::Result<()> {
        if files::is_at(&self.file, &self.path)? {
            return Ok(());
        }
        let mut lock = Self::take(dir, &self.holder, Duration::ZERO).map_err(|error| {
            let kind = match &error {
                OpenError::Locked { .. } => io::ErrorKind::WouldBlock,
                OpenError::Io { source, .. } => source.kind(),
            };
            io::Error::new(kind, error)
        })?;
        lock.announce(&self.holder.clone())?;
        *self = lock;
        Ok(())
    }

    /// Whether the file that is locked is still the one that others find.
    pub(super) fn is_in_place(&self) -> io::Result<bool> {
        files::is_at(&self.file, &self.path)
    }

    /// Writes who holds the lock: one JSON object and a newline.
    ///
    /// It overwrites in place and cuts afterwards, so that a full disk, where the file has a block
    /// already, mostly lets it, and a reader finds a whole first line. A failure leaves the file
    /// empty: nobody's name is better than a former holder's.
    pub(super) fn announce(&mut self, holder: &LockHolder) -> io::Result<()> {
        self.holder = holder.clone();
        let mut contents = serde_json::to_vec(holder)?;
        contents.push(b'\n');
        let written = self
            .file
            .write_all_at(&contents, 0)
            .and_then(|()| self.file.set_len(contents.len() as u64));
        if let Err(error) = written {
            self.file.set_len(0)?;
            return Err(error);
        }
        Ok(())
    }
}

impl Drop for Lock {
    /// Unlocks the file rather than only closes it: a child that was forked and has not yet called
    /// execve(2) shares it, and would keep the lock for that moment.
    fn drop(&mut self) {
        // It cannot fail for a lock that is held; if it did, closing the file unlocks it too.
        flock(&self.file, FlockOperation::Unlock).ok();
    }
}

/// One attempt: the locked file, or `None` while another has it.
fn try_lock(path: &Path) -> io::Result<Option<File>> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        // A FIFO in its place must not block.
        .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
        .open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "is not a regular file"));
    }
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        // Somebody may have deleted the file between the two calls.
        Ok(()) => Ok(files::is_at(&file, path)?.then_some(file)),
        Err(Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Who holds the lock of `dir`: nobody, when a shared lock can be had at once.
pub(super) fn holder(dir: &Path) -> Option<LockHolder> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
        .open(dir.join(NAME))
        .ok()?;
    if flock(&file, FlockOperation::NonBlockingLockShared) == Err(Errno::WOULDBLOCK) {
        return read(&file);
    }
    // Before a child that is just being forked keeps it locked, as in `Lock::drop`.
    flock(&file, FlockOperation::Unlock).ok();
    None
}

/// The contents, as far as they say a holder.
fn read(file: &File) -> Option<LockHolder> {
    let mut contents = Vec::new();
    file.take(MAX_CONTENTS).read_to_end(&mut contents).ok()?;
    let line = contents.split(|byte| *byte == b'\n').next()?;
    serde_json::from_slice(line).ok()
}
