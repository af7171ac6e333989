//! Files that somebody else may have put there: read only if they are what they should be.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use rustix::fs::{Mode, OFlags};

/// Opens a regular file for reading, and nothing else.
///
/// # Errors
///
/// The file is not there, can't be read, or is no regular file.
pub(crate) fn open(file: &Path) -> io::Result<File> {
    // NONBLOCK: to open a FIFO would wait for a writer, for ever (fifo(7)).
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = File::from(rustix::fs::open(file, flags, Mode::empty())?);
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    Ok(file)
}

/// The bytes of a regular file that has no more than `largest` of them.
///
/// # Errors
///
/// The file is not there, can't be read, is no regular file, or is larger.
pub(crate) fn read(file: &Path, largest: u64) -> io::Result<Vec<u8>> {
    let file = open(file)?;
    let mut bytes = Vec::new();
    file.take(largest + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > largest {
        return Err(io::Error::other(format!("it is larger than {} KiB", largest >> 10)));
    }
    Ok(bytes)
}
