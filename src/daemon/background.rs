//! Leaving the client that started this daemon: its session, its directory, its descriptors.

use std::io;

/// The first descriptor after standard input, output and error, which the starter has put on
/// /dev/null.
const FIRST: u32 = 3;

/// Leaves everything that ties this process to its starter. Called before anything is opened.
///
/// A pipe that stays open here would hang `PORT=$(styxy allocate)`, and a working directory would
/// keep a file system from being unmounted.
pub(super) fn detach() -> io::Result<()> {
    // It fails for a process group's leader, who has left its starter's session already.
    match rustix::process::setsid() {
        Ok(_) | Err(rustix::io::Errno::PERM) => {}
        Err(error) => return Err(error.into()),
    }
    std::env::set_current_dir("/")?;
    crate::detect::descriptors::close_from(FIRST)
}
