//! Where compose projects really are: compose keeps a project's directory as it was named, perhaps by
//! a symbolic link, and ours are known by their real paths.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

/// How long one look may take: a network file system whose other end is gone keeps whoever looks at
/// it for ever.
const PATIENCE: Duration = Duration::from_millis(20);

/// The real paths of `directories`, as far as they can be had; `known` are those of earlier.
pub(super) fn real<'a>(
    directories: impl IntoIterator<Item = &'a Path>,
    known: &HashMap<PathBuf, PathBuf>,
) -> HashMap<PathBuf, PathBuf> {
    let mut all = HashMap::new();
    let mut hangs = false;
    // A relative one is relative to nothing that we know.
    for directory in directories.into_iter().filter(|it| it.is_absolute()) {
        let real = match known.get(directory) {
            Some(real) => Some(real.clone()),
            None if hangs || all.contains_key(directory) => None,
            None => match look(directory) {
                Ok(real) => Some(real),
                Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                    hangs = true;
                    // It is not looked at again: each look that hangs costs a thread.
                    Some(directory.to_owned())
                }
                // The engine may see another file system than we do.
                Err(_) => None,
            },
        };
        if let Some(real) = real {
            all.insert(directory.to_owned(), real);
        }
    }
    all
}

/// The real path; [`io::ErrorKind::TimedOut`] when the look does not come back in time.
fn look(directory: &Path) -> io::Result<PathBuf> {
    let (tell, found) = channel();
    let path = directory.to_owned();
    let look = move || {
        // Who asked may have gone.
        let _gone = tell.send(path.canonicalize());
    };
    thread::Builder::new().name("place".to_owned()).spawn(look)?;
    found.recv_timeout(PATIENCE).unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}
