//! Real small disks, for tests of what happens when one is full or may not be written.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use super::{is_root, skip};

/// A tmpfs of its own, unmounted on drop.
pub(crate) struct Tmpfs(TempDir);

impl Tmpfs {
    /// Mounts a tmpfs of `kib` KiB. Only root may; for anybody else the test is skipped.
    #[track_caller]
    pub(crate) fn mount(kib: u32) -> Option<Self> {
        if !is_root() {
            skip("mounting a small disk needs root");
            return None;
        }
        let dir = TempDir::new().expect("a temporary directory");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={kib}k"), "styxy-test"]).arg(dir.path());
        assert!(mount.status().expect("mount(8) runs").success());
        Some(Self(dir))
    }

    /// Its root.
    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Lets nobody write, not even root. A file that is open for writing keeps it from that.
    pub(crate) fn make_read_only(&self) {
        self.remount("remount,ro");
    }

    /// Lets everybody write again.
    pub(crate) fn make_writable(&self) {
        self.remount("remount,rw");
    }

    fn remount(&self, options: &str) {
        let mut mount = Command::new("mount");
        mount.args(["-o", options]).arg(self.path());
        assert!(mount.status().expect("mount(8) runs").success());
    }

    /// Fills it but for `left` bytes (in whole pages), until [`Tmpfs::free`].
    pub(crate) fn fill(&self, left: u64) {
        let mut filler = File::create(self.filler()).expect("a new file");
        let error = loop {
            if let Err(error) = filler.write_all(&[0; 4096]) {
                break error;
            }
        };
        assert_eq!(error.kind(), ErrorKind::StorageFull);
        let length = filler.metadata().expect("its length").len();
        filler.set_len(length - left).expect("a shorter file");
    }

    /// Makes room again.
    pub(crate) fn free(&self) {
        fs::remove_file(self.filler()).expect("it was filled");
    }

    fn filler(&self) -> std::path::PathBuf {
        self.path().join("filler")
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        // Lazily: a test that fails may still have files open.
        let unmounted = Command::new("umount").arg("--lazy").arg(self.path()).status();
        if !unmounted.is_ok_and(|status| status.success()) {
            eprintln!("{} stays mounted", self.path().display());
        }
    }
}
