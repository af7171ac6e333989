//! Whether a directory is there, without waiting for a file system that hangs.
//!
//! A network or FUSE file system whose other end is gone keeps whoever looks at it in the kernel,
//! for minutes or for ever, and the registry looks while nobody else can be served. So the kernel is
//! asked first for what it knows without waiting (RESOLVE_CACHED of openat2(2), Linux 5.12), which is
//! all there is to ask in most cases; for the rest one thread looks, and is waited for a moment.

use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;

/// How long one look may take: a disk that must be woken takes longer, and may.
const PATIENCE: Duration = Duration::from_millis(20);

static LOOKER: Mutex<Option<Looker>> = Mutex::new(None);

/// Whether it is there. Only what is surely not there is gone: a directory that is unmounted, may not
/// be looked at, or hangs, is not.
pub(super) fn exists(path: &str) -> bool {
    known(path).unwrap_or_else(|| {
        let mut looker = LOOKER.lock().unwrap_or_else(PoisonError::into_inner);
        look(&mut looker, path).unwrap_or(true)
    })
}

/// What the kernel can say at once.
fn known(path: &str) -> Option<bool> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    match openat2(CWD, path, flags, Mode::empty(), ResolveFlags::CACHED) {
        Ok(_) => Some(true),
        Err(Errno::NOENT | Errno::NOTDIR) => Some(false),
        Err(_) => None,
    }
}

/// A thread that looks, one path after the other.
struct Looker {
    paths: Sender<String>,
    found: Receiver<bool>,
    /// It has not come back from its last look.
    hangs: bool,
}

impl Looker {
    fn start() -> io::Result<Self> {
        let (paths, asked) = channel::<String>();
        let (tell, found) = channel();
        thread::Builder::new().name("directories".to_owned()).spawn(move || {
            for path in asked {
                // Who asked may have ended.
                if tell.send(is_directory(&path)).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { paths, found, hangs: false })
    }
}

/// What the thread finds; `None` when it does not come back in time, or is still at an earlier look.
fn look(looker: &mut Option<Looker>, path: &str) -> Option<bool> {
    if looker.is_none() {
        *looker = Looker::start().ok();
    }
    let thread = looker.as_mut()?;
    if thread.hangs {
        match thread.found.try_recv() {
            Ok(_) => thread.hangs = false,
            Err(TryRecvError::Empty) => return None,
            Err(TryRecvError::Disconnected) => *looker = None,
        }
    }
    let thread = looker.as_mut()?;
    thread.paths.send(path.to_owned()).ok()?;
    match thread.found.recv_timeout(PATIENCE) {
        Ok(found) => Some(found),
        Err(RecvTimeoutError::Timeout) => {
            thread.hangs = true;
            let path = crate::text::printable(path);
            tracing::warn!("{path} does not answer: it is taken to be there until it does");
            None
        }
        Err(RecvTimeoutError::Disconnected) => {
            *looker = None;
            None
        }
    }
}

fn is_directory(path: &str) -> bool {
    match std::fs::metadata(path) {
        Ok(metadata) => metadata.is_dir(),
        Err(error) => {
            !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_gone_only_when_it_is_surely_not_there() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = |name: &str| directory.path().join(name).display().to_string();
        std::fs::write(path("file"), "").expect("there is room");
        for look in [exists, is_directory] {
            assert!(look(&path(".")));
            assert!(!look(&path("missing")));
            assert!(!look(&path("file")));
            assert!(!look(&path("file/below")));
            // Not there, but not seen to be missing either: the name is too long to be looked for.
            assert!(look(&path(&"n".repeat(300))));
        }
    }

    #[test]
    fn a_thread_that_hangs_is_not_waited_for_twice_and_works_again() {
        let (paths, asked) = channel();
        let (tell, found) = channel();
        let mut looker = Some(Looker { paths, found, hangs: false });
        assert_eq!(look(&mut looker, "/hangs"), None);
        let start = std::time::Instant::now();
        assert_eq!(look(&mut looker, "/other"), None);
        assert!(start.elapsed() < PATIENCE, "{:?}", start.elapsed());
        assert_eq!(asked.try_iter().collect::<Vec<_>>(), ["/hangs"]);

        tell.send(false).expect("it is listened to");
        // What it found is of another path.
        tell.send(true).expect("it is listened to");
        assert_eq!(look(&mut looker, "/other"), Some(true));
    }
}
