//! A look at the journal that changes nothing: for `styxy doctor`.

use std::fs::{self, File};
use std::io::{self, BufReader, ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::files::{DAMAGED, JOURNAL, MAX_JOURNAL};
use super::journal;

/// What a journal looks like from outside.
#[derive(Debug)]
pub struct Inspection {
    /// The journal.
    pub path: PathBuf,
    /// When it was written last, where the file system tells.
    pub modified: Option<SystemTime>,
    /// How many lines can be used. A last line that is just being written isn't counted.
    pub lines: usize,
    /// What is wrong with it: the predicate of a sentence.
    pub damage: Option<String>,
    /// The damaged journals that were kept beside it, the oldest first.
    pub kept: Vec<PathBuf>,
}

/// Reads the journal in the state directory `dir` to its end, without its lock. `None` where there
/// is none.
///
/// # Errors
///
/// What the disk refused.
pub fn inspect(dir: &Path) -> io::Result<Option<Inspection>> {
    let path = dir.join(JOURNAL);
    let metadata = match fs::metadata(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        metadata => metadata?,
    };
    // To open a FIFO or a device would do something.
    if !metadata.is_file() {
        return Err(io::Error::new(ErrorKind::InvalidInput, "is not a regular file"));
    }
    let source = BufReader::new(File::open(&path)?.take(MAX_JOURNAL));
    let replay = journal::replay(source)?;
    let kept = kept(dir)?;
    let modified = metadata.modified().ok();
    Ok(Some(Inspection { path, modified, lines: replay.lines, damage: replay.damage, kept }))
}

fn kept(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut kept = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_name().to_str().is_some_and(|name| name.starts_with(DAMAGED)) {
            kept.push(entry.path());
        }
    }
    kept.sort();
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_journal_is_looked_at_and_stays_as_it_is() -> io::Result<()> {
        let dir = tempfile::tempdir()?;
        assert!(inspect(dir.path())?.is_none());
        let mut bytes = Vec::new();
        journal::encode_header(&mut bytes, "boot")?;
        let path = dir.path().join(JOURNAL);
        fs::write(&path, [&bytes[..], b"{\"half"].concat())?;
        fs::write(dir.path().join(format!("{DAMAGED}20260117T182652Z")), "")?;

        let found = inspect(dir.path())?.expect("a journal");
        assert_eq!((found.lines, found.damage, found.kept.len()), (1, None, 1));
        assert_eq!(fs::read(&path)?.len(), bytes.len() + 6, "nothing is cut");

        fs::write(&path, [&bytes[..], b"{}\n", &bytes[..]].concat())?;
        let found = inspect(dir.path())?.expect("a journal");
        assert!(found.damage.is_some_and(|damage| damage.contains("line 2")));
        fs::remove_file(&path)?;
        fs::create_dir(&path)?;
        assert!(inspect(dir.path()).is_err());
        Ok(())
    }
}
