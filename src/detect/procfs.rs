//! Reading /proc/PID (proc(5)) with few system calls and, where it is small, without the heap.

use std::ffi::{CStr, OsString};
use std::io::Write;
use std::mem::MaybeUninit;
use std::num::NonZeroU64;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::sync::OnceLock;

use rustix::buffer::spare_capacity;
use rustix::fs::{CWD, Mode, OFlags, RawDir, fstat, openat, readlinkat, readlinkat_raw};
use rustix::io::{Errno, Result, pread, read};
use rustix::path::DecInt;

/// Room for `/proc/PID/stat` up to its 28th field: 64 bytes of name, 27 numbers of up to 20 digits.
pub(super) type StatBuffer = [u8; 1024];

/// The fields of `/proc/PID/stat` that matter here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stat<'b> {
    /// The name, without its parentheses; 15 bytes at most for what is not a kernel thread.
    pub(super) name: &'b [u8],
    /// Field 3.
    pub(super) state: u8,
    /// Field 4, 0 where the parent is in an outer pid namespace.
    pub(super) parent: u32,
    /// Field 6, 0 where the session's leader is in an outer pid namespace.
    pub(super) session: u32,
    /// Field 9.
    flags: u32,
    /// Field 20.
    pub(super) threads: u32,
    /// Field 22, in clock ticks since boot.
    pub(super) start_ticks: u64,
    /// Field 28: that of its parent where it [is forked](Self::is_forked).
    pub(super) image: Option<Image>,
}

/// One run of execve(2): where the stack begins that it made, which the kernel chooses at random and
/// a fork keeps. So whoever has called no execve(2) yet has its parent's. Without that choice
/// (ADDR_NO_RANDOMIZE of personality(2)) many programs have the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Image(NonZeroU64);

impl<'b> Stat<'b> {
    /// The name may hold spaces, parentheses and line ends, so the last parenthesis ends it.
    fn parse(text: &'b [u8]) -> Option<Self> {
        let open = text.iter().position(|byte| *byte == b'(')?;
        let close = text.iter().rposition(|byte| *byte == b')')?;
        let name = text.get(open + 1..close)?;
        let mut fields = text.get(close + 2..)?.split(|byte| *byte == b' ');
        let state = *fields.next()?.first()?;
        let parent = number(fields.next()?)?;
        let session = number(fields.nth(1)?)?;
        let flags = number(fields.nth(2)?)?;
        let threads = number(fields.nth(10)?)?;
        let start_ticks = number(fields.nth(1)?)?;
        // 0 also where the process may not be looked into (ptrace(2)).
        let image = number(fields.nth(5)?).and_then(NonZeroU64::new).map(Image);
        Some(Self { name, state, parent, session, flags, threads, start_ticks, image })
    }

    /// Whether nothing of the process runs any more. A process whose first thread has ended shows
    /// state Z too, and lives on in its other threads.
    pub(super) fn is_dead(&self) -> bool {
        matches!(self.state, b'X' | b'x') || (self.state == b'Z' && self.threads <= 1)
    }

    /// Whether it is a thread of the kernel, which has neither arguments nor environment:
    /// PF_KTHREAD of the kernel's include/linux/sched.h.
    pub(super) fn is_kernel_thread(&self) -> bool {
        self.flags & 0x0020_0000 != 0
    }

    /// Whether it has called no execve(2) since it was made, as every thread: PF_FORKNOEXEC of the
    /// same file.
    pub(super) fn is_forked(&self) -> bool {
        self.flags & 0x0000_0040 != 0
    }

    /// What its forks have in common with it and with nobody else; nothing of a fork, whose parent
    /// and whose parent's other forks have the same.
    pub(super) fn own_image(&self) -> Option<Image> {
        self.image.filter(|_| !self.is_forked())
    }

    /// Whether its first thread has ended and others live: then `/proc/PID/{fd,cwd,environ}` are
    /// empty, and only those of the other threads tell.
    fn is_leaderless(&self) -> bool {
        self.state == b'Z' && self.threads > 1
    }
}

fn number<T: std::str::FromStr>(text: &[u8]) -> Option<T> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Reads `/proc/PID/stat`: three system calls.
///
/// # Errors
///
/// `ENOENT` or `ESRCH` when there is no such process, and what open(2) says.
pub(super) fn stat(pid: u32, buffer: &mut StatBuffer) -> Result<Stat<'_>> {
    let file = open(format_args!("/proc/{pid}/stat"), OFlags::RDONLY)?;
    parse_stat(&file, buffer)
}

/// Opens a path that is short, as all of these are.
fn open(path: std::fmt::Arguments<'_>, flags: OFlags) -> Result<OwnedFd> {
    let mut text = [0_u8; 40];
    openat(CWD, short_path(path, &mut text)?, flags | OFlags::CLOEXEC, Mode::empty())
}

/// A path made on the stack.
fn short_path<'t>(path: std::fmt::Arguments<'_>, text: &'t mut [u8]) -> Result<&'t [u8]> {
    let mut rest = &mut *text;
    rest.write_fmt(path).map_err(|_| Errno::NAMETOOLONG)?;
    let unused = rest.len();
    let length = text.len() - unused;
    Ok(&text[..length])
}

fn parse_stat<'b>(file: &OwnedFd, buffer: &'b mut StatBuffer) -> Result<Stat<'b>> {
    let length = read(file, &mut buffer[..])?;
    Stat::parse(&buffer[..length]).ok_or(Errno::BADMSG)
}

/// A process as /proc lists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Listed {
    pub(super) pid: u32,
    /// The inode of its directory. The kernel makes it when somebody first looks, and may make
    /// another one when it is short of memory, but never gives one to two processes: the same
    /// inode is the same process.
    pub(super) inode: u64,
}

/// All processes that can be seen, by pid.
///
/// # Errors
///
/// When /proc is not there.
pub(super) fn processes() -> Result<Vec<Listed>> {
    let proc = open(format_args!("/proc"), OFlags::RDONLY | OFlags::DIRECTORY)?;
    let mut processes = Vec::with_capacity(512);
    numbers(&proc, |pid, inode| processes.push(Listed { pid, inode }))?;
    processes.sort_unstable_by_key(|listed| listed.pid);
    Ok(processes)
}

/// The number that was given last to a process or thread of this pid namespace
/// (`/proc/sys/kernel/ns_last_pid`, Linux 3.3): who is new has a higher one, until they begin again
/// from the bottom. `/proc/loadavg` has it too, but in some containers that is made up.
///
/// # Errors
///
/// When the kernel does not tell, or tells of another pid namespace than /proc shows.
pub(super) fn last_pid() -> Result<u32> {
    static IS_OURS: OnceLock<bool> = OnceLock::new();
    // Open for good: every death asks, and to open it takes three times as long as to read it.
    static FILE: OnceLock<OwnedFd> = OnceLock::new();
    let is_ours = || {
        let mut target = [0; 16];
        let length = readlinkat_raw(CWD, c"/proc/self", &mut target[..]).unwrap_or(0);
        number(&target[..length]) == Some(std::process::id())
    };
    if !*IS_OURS.get_or_init(is_ours) {
        return Err(Errno::NOTSUP);
    }
    let file = if let Some(file) = FILE.get() {
        file
    } else {
        let file = open(format_args!("/proc/sys/kernel/ns_last_pid"), OFlags::RDONLY)?;
        FILE.get_or_init(|| file)
    };
    let mut text = [0; 16];
    let length = pread(file, &mut text[..], 0)?;
    number(text[..length].trim_ascii_end()).ok_or(Errno::BADMSG)
}

/// Calls `each` with every entry of a directory that is a number, and with its inode.
fn numbers(directory: &OwnedFd, mut each: impl FnMut(u32, u64)) -> Result<()> {
    let mut buffer = [MaybeUninit::<u8>::uninit(); 8192];
    let mut entries = RawDir::new(directory, &mut buffer);
    while let Some(entry) = entries.next() {
        let entry = entry?;
        if let Some(number) = number(entry.file_name().to_bytes()) {
            each(number, entry.ino());
        }
    }
    Ok(())
}

/// The directory of one process, or of one of its threads.
///
/// While it is open it stays that process's: once the process is dead every look into it fails
/// with `ESRCH`, whoever has the pid then.
#[derive(Debug)]
pub(super) struct ProcDir {
    fd: OwnedFd,
}

impl ProcDir {
    /// Opens `/proc/PID`.
    ///
    /// # Errors
    ///
    /// `ENOENT` when there is no such process, and what open(2) says.
    pub(super) fn open(pid: u32) -> Result<Self> {
        let fd = open(format_args!("/proc/{pid}"), OFlags::PATH | OFlags::DIRECTORY)?;
        Ok(Self { fd })
    }

    /// The effective user of the process.
    ///
    /// The directory itself always belongs to the effective user; the files in it belong to root
    /// when the process is not dumpable (proc(5)).
    ///
    /// # Errors
    ///
    /// What fstat(2) says.
    pub(super) fn uid(&self) -> Result<u32> {
        Ok(fstat(&self.fd)?.st_uid)
    }

    /// The inode of the directory, as the list has it ([`Listed`]).
    ///
    /// # Errors
    ///
    /// What fstat(2) says.
    pub(super) fn inode(&self) -> Result<u64> {
        Ok(fstat(&self.fd)?.st_ino)
    }

    /// Reads its `stat`.
    ///
    /// # Errors
    ///
    /// As [`stat`].
    pub(super) fn stat<'b>(&self, buffer: &'b mut StatBuffer) -> Result<Stat<'b>> {
        parse_stat(&self.file(c"stat")?, buffer)
    }

    /// Where one of its links (`cwd`, `exe`) leads.
    ///
    /// # Errors
    ///
    /// `EACCES` where the process may not be looked at, and what readlink(2) says.
    pub(super) fn link(&self, name: &CStr) -> Result<PathBuf> {
        let target = readlinkat(&self.fd, name, Vec::new())?;
        Ok(PathBuf::from(OsString::from_vec(target.into_bytes())))
    }

    /// Reads a file of it into `text`, at most `limit` bytes.
    ///
    /// # Errors
    ///
    /// `EACCES` where the process may not be looked at, and what read(2) says.
    pub(super) fn read(&self, name: &CStr, limit: usize, text: &mut Vec<u8>) -> Result<()> {
        text.clear();
        let file = self.file(name)?;
        while text.len() < limit {
            text.reserve(4096);
            if read(&file, spare_capacity(text))? == 0 {
                break;
            }
        }
        text.truncate(limit);
        Ok(())
    }

    /// Calls `each` with the inode of every socket that it has open and with the descriptor, and
    /// says whether it has any descriptor at all.
    ///
    /// # Errors
    ///
    /// `EACCES` where the process may not be looked at.
    pub(super) fn sockets(&self, mut each: impl FnMut(u64, u32)) -> Result<bool> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = openat(&self.fd, c"fd", flags, Mode::empty())?;
        let mut any = false;
        // Longer targets are paths, and no sockets: that they are cut off does not matter.
        let mut target = [0_u8; 32];
        numbers(&directory, |descriptor, _| {
            any = true;
            if let Ok(length) = readlinkat_raw(&directory, DecInt::new(descriptor), &mut target[..])
                && let Some(inode) = socket_inode(&target[..length])
            {
                each(inode, descriptor);
            }
        })?;
        Ok(any)
    }

    /// Its descriptors, to be looked at one by one: where it may not be looked at, none is a socket.
    ///
    /// # Errors
    ///
    /// What open(2) says.
    pub(super) fn descriptors(&self) -> Result<Descriptors> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Descriptors(openat(&self.fd, c"fd", flags, Mode::empty())?))
    }

    /// The directory of a living thread, where the first one has ended and others live.
    pub(super) fn other_thread(&self) -> Option<Self> {
        let mut buffer = [0; 1024];
        if !self.stat(&mut buffer).ok()?.is_leaderless() {
            return None;
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let tasks = openat(&self.fd, c"task", flags, Mode::empty()).ok()?;
        let mut threads = Vec::new();
        numbers(&tasks, |thread, _| threads.push(thread)).ok()?;
        threads.into_iter().find_map(|thread| {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let thread =
                Self { fd: openat(&tasks, DecInt::new(thread), flags, Mode::empty()).ok()? };
            (thread.stat(&mut buffer).ok()?.state != b'Z').then_some(thread)
        })
    }

    fn file(&self, name: &CStr) -> Result<OwnedFd> {
        openat(&self.fd, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
    }
}

/// The directory of a process's descriptors.
#[derive(Debug)]
pub(super) struct Descriptors(OwnedFd);

impl Descriptors {
    /// The inode of the socket that is open as `descriptor`, if one is.
    pub(super) fn socket_at(&self, descriptor: u32) -> Option<u64> {
        let mut target = [0_u8; 32];
        let length = readlinkat_raw(&self.0, DecInt::new(descriptor), &mut target[..]).ok()?;
        socket_inode(&target[..length])
    }
}

/// `socket:[INODE]`
fn socket_inode(target: &[u8]) -> Option<u64> {
    number(target.strip_prefix(b"socket:[")?.strip_suffix(b"]")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_look_like_fields() {
        let text =
            b"42 (a) R 1 (b) S 7 42 9 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 3 0 123456 1 2 3 4 5 678 9";
        let stat = Stat::parse(text).expect("it has 28 fields");
        assert_eq!(stat.name, b"a) R 1 (b");
        assert_eq!((stat.state, stat.parent, stat.session), (b'S', 7, 9));
        assert_eq!((stat.threads, stat.start_ticks), (3, 123_456));
        let image = NonZeroU64::new(678).map(Image);
        assert_eq!((stat.own_image(), stat.image), (image, image), "it called execve(2)");
        let fork = Stat { flags: stat.flags | 0x40, ..stat };
        assert_eq!((fork.own_image(), fork.image), (None, image));
    }

    #[test]
    fn a_short_or_strange_text_is_no_stat() {
        for text in ["", "42", "42 (sh", "42 (sh)", "42 (sh) S 1 2 3", ") 42 ("] {
            assert_eq!(Stat::parse(text.as_bytes()), None, "{text:?}");
        }
    }

    #[test]
    fn a_link_to_a_socket_tells_its_inode() {
        assert_eq!(socket_inode(b"socket:[18446744073709551615]"), Some(u64::MAX));
        assert_eq!(socket_inode(b"/tmp/socket:[1]"), None);
        assert_eq!(socket_inode(b"socket:[1"), None);
        assert_eq!(socket_inode(b"pipe:[1]"), None);
    }

    #[test]
    fn who_is_new_has_a_number_that_was_not_given_before() {
        let before = last_pid().expect("this kernel tells");
        let thread = std::thread::spawn(rustix::thread::gettid).join().expect("it ends");
        let number = thread.as_raw_pid().unsigned_abs();
        let after = last_pid().expect("this kernel tells");
        // Other tests start processes, too, and the numbers may have begun again.
        assert!(after >= number || after < before, "{before}, {number}, {after}");
        assert_ne!(after, before);
    }

    #[test]
    fn the_own_process_is_seen() {
        let pid = std::process::id();
        let mut buffer = [0; 1024];
        let by_path = stat(pid, &mut buffer).expect("this process lives").start_ticks;
        let directory = ProcDir::open(pid).expect("this process lives");
        assert_eq!(directory.stat(&mut buffer).expect("it is readable").start_ticks, by_path);
        let listed = processes().expect("/proc is there");
        assert!(listed.is_sorted_by_key(|listed| listed.pid));
        assert!(listed.iter().any(|listed| listed.pid == pid));
        assert_eq!(processes().expect("/proc is there").first(), listed.first(), "inodes stay");
        assert_eq!(directory.uid(), Ok(rustix::process::geteuid().as_raw()));
    }
}
