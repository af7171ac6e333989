//! SIGPIPE as whoever started this program left it.
//!
//! Rust's runtime ignores it before `main`, and `Command::exec` sets it back to the default. Under a
//! service manager (IgnoreSIGPIPE= of systemd.exec(5)) and behind `trap '' PIPE` it was ignored, and
//! a program inherits that (execve(2)). Only what runs before the runtime can see it.

use std::mem::MaybeUninit;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};

static WAS_IGNORED: AtomicBool = AtomicBool::new(false);

#[used]
#[expect(unsafe_code, reason = "the loader calls what stands in this section (ELF gABI, 5)")]
// SAFETY: such a function may take no arguments, and this one needs nothing of the runtime.
#[unsafe(link_section = ".init_array")]
static LOOK: extern "C" fn() = look;

#[expect(unsafe_code, reason = "rustix does not ask for the disposition of a signal")]
extern "C" fn look() {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: nothing is set, and there is room for the answer. All zeros are the default action.
    let action = unsafe {
        libc::sigaction(libc::SIGPIPE, ptr::null(), action.as_mut_ptr());
        action.assume_init()
    };
    WAS_IGNORED.store(action.sa_sigaction == libc::SIG_IGN, Ordering::Relaxed);
}

/// Has the command begin with SIGPIPE as this program did.
#[expect(unsafe_code, reason = "std has no other way to leave a signal ignored")]
pub fn pass_on(command: &mut Command) {
    if WAS_IGNORED.load(Ordering::Relaxed) {
        let ignore = || {
            // SAFETY: signal(2) is async-signal-safe (signal-safety(7)), and no handler is set.
            unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
            Ok(())
        };
        // SAFETY: what is between std's reset and execve(2) does no more than that.
        unsafe { command.pre_exec(ignore) };
    }
}
