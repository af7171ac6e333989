//! The files of the state directory: making, reading, replacing, keeping beside.

use std::borrow::Borrow;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, BufReader, Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::io::Errno;

use super::journal::{self, Replay};
use super::open_journal::OpenJournal;
use crate::registry::Change;

/// The journal's name in the state directory.
pub(super) const JOURNAL: &str = "state.jsonl";

/// The name of a journal that is not finished yet.
const NEW_JOURNAL: &str = "state.jsonl.new";

/// How the names of damaged journals begin.
pub(super) const DAMAGED: &str = "state.jsonl.damaged-";

/// How many damaged journals are kept.
const MAX_DAMAGED: usize = 10;

/// The longest journal that is read, in bytes. Compaction keeps a real one far below.
pub(super) const MAX_JOURNAL: u64 = 256 << 20;

/// Journals are read and written in pieces of about this many bytes.
const PIECE: usize = 64 * 1024;

/// Makes `dir`, and what is missing above it, for this user alone (XDG Base Directory
/// specification), and tightens a `dir` that others may look into.
pub(super) fn make_private(dir: &Path, notices: &mut Vec<String>) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    tighten(dir, &fs::metadata(dir)?, 0o700, notices);
    Ok(())
}

/// Takes from a file what its group and others may do. Some file systems know no modes, so a
/// refusal is only said.
fn tighten(path: &Path, metadata: &fs::Metadata, mode: u32, notices: &mut Vec<String>) {
    let others = metadata.mode() & 0o077;
    if others == 0 {
        return;
    }
    if let Err(error) = fs::set_permissions(path, Permissions::from_mode(mode)) {
        let path = path.display();
        notices.push(format!("Others have access to {path}, which cannot be mended: {error}."));
    }
}

/// Opens the journal at `path` for reading and appending, or says what stands in its place.
fn open_file(path: &Path, notices: &mut Vec<String>) -> io::Result<Result<File, &'static str>> {
    // Asked first, because to open a device or a FIFO does something.
    let metadata = match fs::metadata(path) {
        Err(error) if Errno::from_io_error(&error) == Some(Errno::LOOP) => {
            return Ok(Err("is a symbolic link to itself"));
        }
        metadata => metadata?,
    };
    let kind = metadata.file_type();
    if !kind.is_file() {
        return Ok(Err(match kind {
            kind if kind.is_dir() => "is a directory",
            kind if kind.is_fifo() => "is a FIFO",
            kind if kind.is_socket() => "is a socket",
            _ => "is a device",
        }));
    }
    tighten(path, &metadata, 0o600, notices);
    OpenOptions::new().read(true).append(true).open(path).map(Ok)
}

/// A journal that is open, and what it says.
pub(super) struct Opened {
    pub(super) journal: OpenJournal,
    pub(super) changes: Vec<Change>,
    /// The boot that it was written in, where it says so.
    pub(super) boot_id: Option<String>,
}

/// Opens and replays the journal in `dir`, or makes a new one, in the boot `boot_id`, where there
/// is none or a damaged one.
pub(super) fn open(dir: &Path, boot_id: &str, notices: &mut Vec<String>) -> io::Result<Opened> {
    let path = dir.join(JOURNAL);
    let name = path.display();
    let (file, mut damage) = match open_file(&path, notices) {
        Ok(Ok(file)) => (Some(file), None),
        Ok(Err(damage)) => (None, Some(damage.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => (None, None),
        Err(error) => return Err(error),
    };
    let mut replay = Replay::default();
    if let Some(file) = &file {
        replay = journal::replay(BufReader::with_capacity(PIECE, file.take(MAX_JOURNAL)))?;
        match file.metadata()?.len() {
            0 => notices.push(format!("{name} was empty; a new one was made.")),
            1..=MAX_JOURNAL => {}
            _ => damage = Some(format!("is longer than {} MiB", MAX_JOURNAL >> 20)),
        }
    }
    let Replay { changes, boot_id: written_in, lines, length, torn, .. } = replay;
    damage = damage.or(replay.damage);
    if let Some(file) = file
        && damage.is_none()
        && lines > 0
    {
        let mut journal = OpenJournal::new(path.clone(), file, length, lines)?;
        if torn > 0 {
            notices.push(format!("The last line of {name} is torn; its {torn} bytes are dropped."));
            // Where the disk refuses it now, it is done before the next append.
            if let Err(error) = journal.cut_back() {
                notices.push(format!("{name} could not be cut yet: {error}."));
            }
        }
        return Ok(Opened { journal, changes, boot_id: written_in });
    }
    let boot_id = written_in.as_deref().unwrap_or(boot_id);
    let (journal, kept) = replace(dir, boot_id, &changes, damage.is_some())?;
    if let (Some(damage), Some(kept)) = (damage, kept) {
        notices.push(format!(
            "{name} {damage}. It is kept as {}, and what else it says is used.",
            kept.display()
        ));
    }
    sync_dir(dir)?;
    Ok(Opened { journal, changes, boot_id: written_in })
}

/// Writes a journal of `changes` and puts it in the place of the one in `dir`. What stood there is
/// kept beside when `keep` says so, and where.
///
/// On an error the old journal is where it was.
pub(super) fn replace<C: Borrow<Change>>(
    dir: &Path,
    boot_id: &str,
    changes: impl IntoIterator<Item = C>,
    keep: bool,
) -> io::Result<(OpenJournal, Option<PathBuf>)> {
    let (path, new) = (dir.join(JOURNAL), dir.join(NEW_JOURNAL));
    // A leftover of a writer that was killed.
    remove(&new)?;
    let mut kept = None;
    let replaced = write_new(&new, boot_id, changes).and_then(|(file, length, lines)| {
        // Only now, so that a full disk leaves no copy behind with each attempt.
        if keep {
            kept = keep_beside(dir, &path)?;
        }
        let journal = OpenJournal::new(path.clone(), file, length, lines)?;
        fs::rename(&new, &path)?;
        Ok(journal)
    });
    match replaced {
        Ok(journal) => Ok((journal, kept)),
        Err(error) => {
            remove(&new)?;
            Err(error)
        }
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The new file, its length in bytes and in lines.
fn write_new<C: Borrow<Change>>(
    path: &Path,
    boot_id: &str,
    changes: impl IntoIterator<Item = C>,
) -> io::Result<(File, u64, usize)> {
    let mut file =
        OpenOptions::new().read(true).append(true).create_new(true).mode(0o600).open(path)?;
    let mut buffer = Vec::with_capacity(PIECE + PIECE / 4);
    let (mut length, mut lines) = (0, 1);
    journal::encode_header(&mut buffer, boot_id)?;
    for change in changes {
        journal::encode(&mut buffer, change.borrow())?;
        lines += 1;
        if buffer.len() >= PIECE {
            file.write_all(&buffer)?;
            length += buffer.len() as u64;
            buffer.clear();
        }
    }
    file.write_all(&buffer)?;
    length += buffer.len() as u64;
    // Before the rename: else a power failure may leave the new name with none of the contents.
    file.sync_all()?;
    Ok((file, length, lines))
}

/// Makes a rename in `dir` survive a power failure.
pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
    match rustix::fs::fsync(File::open(dir)?) {
        // Some file systems cannot, and need not (fsync(2)).
        Err(Errno::INVAL | Errno::NOTSUP) | Ok(()) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Gives what is at `path` a second name, or another one, that says that it was damaged and when.
/// `None`: nothing is there.
///
/// A hard link, where there can be one: the journal's own name is then never missing, whenever
/// this process ends.
fn keep_beside(dir: &Path, path: &Path) -> io::Result<Option<PathBuf>> {
    let time = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    let time = time.replace(['-', ':'], "");
    let mut kept = dir.join(format!("{DAMAGED}{time}"));
    let mut number = 2;
    while fs::symlink_metadata(&kept).is_ok() {
        kept.set_file_name(format!("{DAMAGED}{time}-{number}"));
        number += 1;
    }
    if fs::hard_link(path, &kept).is_err()
        && let Err(error) = fs::rename(path, &kept)
    {
        return if error.kind() == io::ErrorKind::NotFound { Ok(None) } else { Err(error) };
    }
    prune(dir)?;
    Ok(Some(kept))
}

/// Removes the oldest damaged journals beyond [`MAX_DAMAGED`]. Their names sort by time.
fn prune(dir: &Path) -> io::Result<()> {
    let mut damaged = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let is_damaged = entry.file_name().to_str().is_some_and(|name| name.starts_with(DAMAGED));
        // A directory was never ours to begin with.
        if is_damaged && !entry.file_type()?.is_dir() {
            damaged.push(entry.path());
        }
    }
    damaged.sort();
    let excess = damaged.len().saturating_sub(MAX_DAMAGED);
    damaged[..excess].iter().try_for_each(|path| remove(path))
}

/// Whether `path` leads to the open `file`.
pub(super) fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let file = file.metadata()?;
    match fs::metadata(path) {
        Ok(found) => Ok((found.dev(), found.ino()) == (file.dev(), file.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}
