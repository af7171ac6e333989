//! The journal's file while it is appended to: all of an append or nothing, and never blindly.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// A journal that is open for appending.
#[derive(Debug)]
pub(super) struct OpenJournal {
    path: PathBuf,
    file: File,
    /// Device and inode of `file`.
    identity: (u64, u64),
    /// How many bytes its whole lines have.
    length: u64,
    /// How many lines it has.
    lines: usize,
    /// There may be bytes behind `length`, to be cut off before anything is written.
    cut_due: bool,
    /// Something was written since the last sync.
    unsynced: bool,
    /// When it was seen last that `path` leads to `file`.
    found: Option<Instant>,
}

/// How long it is believed that a journal has not been moved away.
const FOUND: Duration = Duration::from_millis(10);

impl OpenJournal {
    /// `file`, which is or will be at `path`, opened for appending, with `lines` whole lines in its
    /// first `length` bytes.
    pub(super) fn new(path: PathBuf, file: File, length: u64, lines: usize) -> io::Result<Self> {
        let metadata = file.metadata()?;
        Ok(Self {
            path,
            file,
            identity: (metadata.dev(), metadata.ino()),
            length,
            lines,
            cut_due: metadata.len() != length,
            unsynced: false,
            found: None,
        })
    }

    /// Its length in bytes.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// Its length in lines.
    pub(super) fn lines(&self) -> usize {
        self.lines
    }

    /// Appends `bytes`, which are `lines` whole lines, with one write(2), or leaves the file as it
    /// was.
    pub(super) fn append(&mut self, bytes: &[u8], lines: usize) -> io::Result<()> {
        self.cut_back()?;
        self.unsynced = true;
        // A short write is continued only to learn what stopped it.
        if let Err(error) = self.file.write_all(bytes) {
            self.cut_due = true;
            // A failure of this is remembered, and the first one says more.
            self.cut_back().ok();
            return Err(error);
        }
        self.length += bytes.len() as u64;
        self.lines += lines;
        Ok(())
    }

    /// Whether as many bytes could be appended now: they are written and taken back. Whoever is ended
    /// in between leaves a torn last line, which says nothing.
    pub(super) fn try_room(&mut self, bytes: usize) -> io::Result<()> {
        self.cut_back()?;
        self.cut_due = true;
        let written = self.file.write_all(&vec![b' '; bytes]);
        self.cut_back()?;
        written
    }

    /// Cuts the file back to its last whole line, when something may be behind it.
    pub(super) fn cut_back(&mut self) -> io::Result<()> {
        if self.cut_due {
            self.file.set_len(self.length)?;
            self.cut_due = false;
        }
        Ok(())
    }

    /// Makes what was appended survive a power failure, if anything was.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        if self.unsynced {
            self.file.sync_data()?;
            self.unsynced = false;
        }
        Ok(())
    }

    /// Whether others find this file, as it was left, where it belongs: what is appended to one that
    /// somebody deleted or replaced would be lost, and nobody would know.
    ///
    /// The open file tells at each append whether it was deleted, replaced or changed, in a third of
    /// a microsecond. Only its path, which takes five times as long, tells whether it was moved: it
    /// is looked at when the last look is [`FOUND`] ago.
    pub(super) fn is_in_place(&mut self) -> io::Result<bool> {
        let file = self.file.metadata()?;
        if file.nlink() == 0 || !self.cut_due && file.len() != self.length {
            return Ok(false);
        }
        let now = Instant::now();
        if self.found.is_some_and(|found| now - found < FOUND) {
            return Ok(true);
        }
        let is_found = match fs::metadata(&self.path) {
            Ok(found) => (found.dev(), found.ino()) == self.identity,
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(error) => return Err(error),
        };
        self.found = is_found.then_some(now);
        Ok(is_found)
    }
}
