//! Reading a configuration file as text.

use std::io;
use std::path::Path;

use super::Diagnostic;
use super::reader::position;
use crate::small_file;

/// A configuration is a page or two. More than this, in bytes, is another file put in its place,
/// and the daemon must not read it into its memory.
const LARGEST: u64 = 64 << 10;

/// The text of `file`, or `None` where there is no such file.
///
/// # Errors
///
/// A diagnostic: the file cannot be read, is no regular file, is larger than 64 KiB, or is not
/// UTF-8.
pub(crate) fn read(file: &Path) -> Result<Option<String>, Diagnostic> {
    let bytes = match small_file::read(file, LARGEST) {
        Ok(bytes) => bytes,
        Err(error) if is_missing(&error) => return Ok(None),
        Err(error) => return Err(diagnostic(file, (1, 1), format!("can't be read: {error}"))),
    };
    String::from_utf8(bytes).map(Some).map_err(|error| {
        let place = position(error.as_bytes(), error.utf8_error().valid_up_to());
        diagnostic(file, place, "is not UTF-8, which TOML has to be".to_owned())
    })
}

fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn diagnostic(file: &Path, (line, column): (usize, usize), message: String) -> Diagnostic {
    Diagnostic { file: file.to_owned(), line, column, message, is_warning: false }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_text_file_is_reported() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = |name: &str| directory.path().join(name);
        std::fs::create_dir(path("directory")).expect("mkdir");
        rustix::fs::mkfifoat(rustix::fs::CWD, path("fifo"), rustix::fs::Mode::RUSR)
            .expect("mkfifo");
        std::os::unix::fs::symlink("loop", path("loop")).expect("symlink");
        std::fs::write(path("large"), vec![b'#'; (64 << 10) + 1]).expect("write");

        for (name, reason) in [
            ("directory", "not a regular file"),
            ("fifo", "not a regular file"),
            ("loop", "symbolic links"),
            ("large", "larger than 64 KiB"),
        ] {
            let found = read(&path(name)).expect_err(name);
            assert!(found.message.contains(reason), "{found}");
            assert_eq!((found.line, found.column), (1, 1), "{found}");
        }
    }

    #[test]
    fn byte_that_is_not_utf8_is_found() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("config.toml");
        std::fs::write(&path, b"[daemon]\n# caf\xc3\xa9 \xff\n").expect("write");
        let found = read(&path).expect_err("not UTF-8");
        assert_eq!((found.line, found.column), (2, 8), "{found}");
    }

    #[test]
    fn missing_file_is_none() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let file = directory.path().join("config.toml");
        assert_eq!(read(&file), Ok(None));
        std::fs::write(&file, "").expect("write");
        assert_eq!(read(&file), Ok(Some(String::new())));
        assert_eq!(read(&file.join("config.toml")), Ok(None), "a file where a directory was meant");
    }
}
