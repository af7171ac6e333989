//! `styxy run` is the command, as if it had been started alone: exit codes, signals, the terminal.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use rustix::process::Signal;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::support::{Home, PATIENCE, Running, eventually, finish};

#[test]
fn every_exit_code_is_the_commands() {
    let home = Home::new();
    let _daemon = home.daemon();
    for code in 0..=255 {
        home.styxy(&["run", "--", "sh", "-c", &format!("exit {code}")]).exits(code);
    }
}

#[test]
fn a_command_that_dies_of_a_signal_dies_of_that_signal() {
    let home = Home::new();
    let _daemon = home.daemon();
    // Without a core file.
    for signal in [Signal::HUP, Signal::INT, Signal::TERM, Signal::KILL, Signal::USR1, Signal::PIPE]
    {
        let mut child = home.run(&["--", "sh", "-c", "echo ready; exec sleep 600"]);
        assert_eq!(child.line(), "ready");
        child.signal(signal);
        assert_eq!(child.wait().signal(), Some(signal.as_raw()));
    }
}

#[test]
fn signals_that_were_ignored_are_ignored_by_the_command() {
    let home = Home::new();
    let _daemon = home.daemon();
    for trap in ["", "trap '' PIPE; ", "trap '' PIPE HUP INT; "] {
        let ignored = |starter: &str| {
            let script = format!("{trap}{starter} grep SigIgn /proc/self/status");
            finish(&mut home.shell(&script)).ok().stdout
        };
        assert_eq!(ignored("styxy run --"), ignored(""), "{trap}");
    }
}

/// A shell on a terminal of its own, and what it has printed.
struct Terminal {
    master: File,
    printed: Arc<Mutex<String>>,
    shell: Running,
}

const SIZE: Winsize = Winsize { ws_row: 37, ws_col: 111, ws_xpixel: 0, ws_ypixel: 0 };

impl Terminal {
    fn open(home: &Home) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a pseudoterminal");
        grantpt(&master).expect("ours");
        unlockpt(&master).expect("ours");
        tcsetwinsize(&master, SIZE).expect("a terminal has a size");
        let name = ptsname(&master, Vec::new()).expect("a name").into_string().expect("UTF-8");
        let open = || File::options().read(true).write(true).open(&name).expect("a terminal");
        // setsid -c makes it the controlling terminal of a session of its own (setsid(1)).
        let mut command = home.shell("exec setsid -c bash --norc --noprofile -i");
        command.env("PS1", "").env("TERM", "dumb");
        command.stdin(open()).stdout(open()).stderr(open());
        let shell = Running::spawn(&mut command);

        let master = File::from(master);
        let mut reader = master.try_clone().expect("a descriptor");
        let printed = Arc::new(Mutex::new(String::new()));
        let sink = Arc::clone(&printed);
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            // EIO is the end: nobody has the other side open any more.
            while let Ok(length @ 1..) = reader.read(&mut buffer) {
                sink.lock()
                    .expect("one writer")
                    .push_str(&String::from_utf8_lossy(&buffer[..length]));
            }
        });
        let mut terminal = Self { master, printed, shell };
        // The echo would be found instead of what is printed.
        terminal.types("stty -echo; echo s''tart\n");
        terminal.prints("start");
        terminal
    }

    fn types(&mut self, text: &str) {
        self.master.write_all(text.as_bytes()).expect("a terminal takes it");
    }

    /// Waits until `text` was printed, and forgets all up to there.
    #[track_caller]
    fn prints(&mut self, text: &str) {
        eventually(PATIENCE, || {
            let mut printed = self.printed.lock().expect("one writer");
            let Some(at) = printed.find(text) else { return Err(format!("{text:?}: {printed:?}")) };
            printed.drain(..at + text.len());
            Ok(())
        });
    }
}

/// Says its terminal's size at the start and whenever that changes, and when it goes on after a stop.
const PROGRAM: &str = r#"
import os, signal
# print() must not be entered twice, as a signal during it would.
def say(*_): os.write(1, b"size=%dx%d\n" % tuple(os.get_terminal_size()))
signal.signal(signal.SIGWINCH, say)
signal.signal(signal.SIGCONT, lambda *_: os.write(1, b"goes-on\n"))
say()
while True: signal.pause()
"#;

#[test]
fn the_terminal_is_the_commands_as_if_it_had_been_started_alone() {
    let home = Home::new();
    let _daemon = home.daemon();
    std::fs::write(home.work().join("program.py"), PROGRAM).expect("a file");
    for before in ["", "styxy run -q -- "] {
        let mut terminal = Terminal::open(&home);
        terminal.types(&format!("{before}python3 program.py\n"));
        terminal.prints("size=111x37");
        let wide = Winsize { ws_col: 140, ..SIZE };
        tcsetwinsize(&terminal.master, wide).expect("a terminal has a size");
        terminal.prints("size=140x37");

        terminal.types("\x1a");
        terminal.prints("Stopped");
        terminal.types("jobs; echo job''s=$(jobs | wc -l)\n");
        terminal.prints("jobs=1");
        terminal.types("fg\n");
        terminal.prints("goes-on");
        terminal.types("\x03");
        terminal.prints("KeyboardInterrupt");
        terminal.types("echo cod''e=$?\n");
        terminal.prints("code=130");

        // In the background it is not the terminal's, until it is fetched.
        terminal.types(&format!("{before}python3 program.py & \n"));
        terminal.prints("size=140x37");
        terminal.types("kill -STOP %1; wait -n 2>/dev/null; fg\n");
        terminal.prints("goes-on");
        terminal.types("\x1c");
        terminal.prints("Quit");
        terminal.types("echo cod''e=$?; exit 7\n");
        terminal.prints("code=131");
        assert_eq!(terminal.shell.wait().code(), Some(7), "{before:?}");
    }
    assert_eq!(home.allocations(), [serde_json::Value::Null; 0]);
}

#[test]
fn a_closed_terminal_ends_the_command() {
    let home = Home::new();
    let _daemon = home.daemon();
    let mut terminal = Terminal::open(&home);
    std::fs::write(home.work().join("program.py"), PROGRAM).expect("a file");
    terminal.types("styxy run -q -- python3 program.py\n");
    terminal.prints("size=111x37");
    let [allocation] = &home.allocations()[..] else { panic!("one server runs") };
    let lock_id = allocation["lock_id"].clone();
    // Who closes a terminal's window hangs up (tty_ioctl(4), SIGHUP).
    let Terminal { master, mut shell, .. } = terminal;
    shell.signal(Signal::HUP);
    drop(master);
    shell.wait();
    home.ends_within(PATIENCE, &lock_id);
}

/// Without a terminal the command has what it was given.
#[test]
fn pipes_are_passed_through() {
    let home = Home::new();
    let _daemon = home.daemon();
    let mut command: Command =
        home.styxy_command(&["run", "-q", "--", "sh", "-c", "cat; cat >&2 </dev/null"]);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it starts");
    child.stdin.take().expect("a pipe").write_all(b"through").expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.stdout, b"through");
}
