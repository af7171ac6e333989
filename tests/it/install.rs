//! `styxy daemon install|uninstall`: which files are written, kept and removed.
//!
//! `systemctl` here is a script that notes how it was called: what a real user manager makes of the
//! files is shown by the tests that run one.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use crate::support::{Home, Output, finish};

const UNITS: [&str; 3] = ["styxy-unix.socket", "styxy.service", "styxy.socket"];

/// Finds the units that are in the user's directory, and says that nothing is active.
const SYSTEMCTL: &str = r#"#!/bin/sh
echo "$*" >>"$HOME/systemctl.log"
[ "$3" = show ] || exit 0
for unit in styxy.socket styxy-unix.socket styxy.service; do
    file=$XDG_CONFIG_HOME/systemd/user/$unit
    echo "Id=$unit"
    if [ -e "$file" ]; then
        echo LoadState=loaded
        echo "FragmentPath=$file"
    else
        echo LoadState=not-found
    fi
    echo ActiveState=inactive
    echo
done
"#;

/// A home with a user manager, as far as Styxy looks.
struct Managed {
    home: Home,
}

impl Managed {
    fn new() -> Self {
        let home = Home::new();
        fs::create_dir_all(home.path("run/systemd")).expect("a directory");
        fs::write(home.path("run/systemd/private"), "").expect("a file");
        fs::create_dir(home.path("bin")).expect("a directory");
        fs::write(home.path("bin/systemctl"), SYSTEMCTL).expect("a script");
        let mode = fs::Permissions::from_mode(0o755);
        fs::set_permissions(home.path("bin/systemctl"), mode).expect("a program");
        Self { home }
    }

    #[track_caller]
    fn styxy(&self, args: &[&str]) -> Output {
        let path = format!("{}:/usr/bin:/bin", self.home.path("bin").display());
        finish(self.home.styxy_command(args).env("PATH", path))
    }

    fn unit(&self, name: &str) -> PathBuf {
        self.home.path("config/systemd/user").join(name)
    }

    /// The names in the directory of units.
    fn units(&self) -> Vec<String> {
        let entries = fs::read_dir(self.home.path("config/systemd/user")).expect("a directory");
        let names = entries.map(|entry| entry.expect("an entry").file_name());
        let mut names: Vec<_> = names.map(|name| name.to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    /// How systemctl was called since the last time.
    fn calls(&self) -> Vec<String> {
        let log = self.home.path("home/systemctl.log");
        let text = fs::read_to_string(&log).unwrap_or_default();
        fs::write(log, "").expect("a file");
        let calls = text.lines().map(|line| line.replace("--user --no-ask-password ", ""));
        calls.filter(|call| !call.starts_with("show ")).collect()
    }
}

#[test]
fn what_was_installed_starts_this_program_and_is_removed_again() {
    let managed = Managed::new();
    let installed = managed.styxy(&["daemon", "install"]).ok();
    installed.clone().complains("systemctl --user enable --now styxy.socket");
    for name in UNITS {
        assert!(installed.stdout.contains(&managed.unit(name).display().to_string()), "{name}");
    }
    assert_eq!(managed.units(), UNITS);
    assert_eq!(managed.calls(), ["daemon-reload"], "nothing is enabled or started");
    let service = fs::read_to_string(managed.unit("styxy.service")).expect("a unit");
    let program = env!("CARGO_BIN_EXE_styxy");
    assert!(service.contains(&format!("\nExecStart={program} daemon run\n")), "{service}");
    let leftover = |name: &&str| {
        let text = fs::read_to_string(managed.unit(name)).expect("a unit");
        text.lines().any(|line| !line.starts_with('#') && line.contains("/usr/bin/styxy"))
    };
    assert_eq!(UNITS.iter().find(|name| leftover(name)), None, "the packaged program's path");

    managed.styxy(&["daemon", "install"]).ok();
    let units = UNITS.map(|name| managed.unit(name));
    managed.calls();
    let removed = managed.styxy(&["daemon", "uninstall"]).ok();
    assert!(units.iter().all(|unit| removed.stdout.contains(&unit.display().to_string())));
    assert_eq!(managed.units(), [""; 0]);
    let all = "styxy.socket styxy-unix.socket styxy.service";
    assert_eq!(
        managed.calls(),
        [
            format!("stop {all}"),
            format!("disable {all}"),
            "daemon-reload".to_owned(),
            format!("reset-failed {all}")
        ]
    );
    managed.styxy(&["daemon", "uninstall"]).ok();
    assert_eq!(managed.calls(), [""; 0], "there is nothing to stop");
}

#[test]
fn a_unit_of_somebody_else_is_neither_overwritten_nor_removed() {
    let managed = Managed::new();
    let theirs = managed.unit("styxy.service");
    fs::create_dir_all(theirs.parent().expect("a parent")).expect("a directory");
    fs::write(&theirs, "[Service]\nExecStart=/opt/other\n").expect("a file");

    let refused = managed.styxy(&["daemon", "install"]).exits(1);
    refused.complains(&theirs.display().to_string()).complains("try: mv ");
    assert_eq!(managed.units(), ["styxy.service"], "all three or none");
    assert_eq!(managed.calls(), [""; 0]);
    managed.styxy(&["daemon", "uninstall"]).ok();
    assert_eq!(
        fs::read_to_string(&theirs).expect("it is there"),
        "[Service]\nExecStart=/opt/other\n"
    );

    // `systemctl --user mask`.
    fs::remove_file(&theirs).expect("it was there");
    std::os::unix::fs::symlink("/dev/null", &theirs).expect("a link");
    managed.styxy(&["daemon", "install"]).exits(1).complains("styxy.service");
    assert_eq!(fs::read_link(&theirs).expect("still a link"), PathBuf::from("/dev/null"));
}

#[test]
fn a_unit_that_its_user_changed_keeps_them_all() {
    let managed = Managed::new();
    managed.styxy(&["daemon", "install"]).ok();
    let socket = managed.unit("styxy.socket");
    let text = fs::read_to_string(&socket).expect("a unit").replace("9876", "9875");
    fs::write(&socket, &text).expect("a file");
    managed.calls();
    for command in ["install", "uninstall"] {
        let refused = managed.styxy(&["daemon", command]).exits(1);
        refused.complains(&socket.display().to_string()).complains("changed");
        assert_eq!(managed.units(), UNITS);
        assert_eq!(fs::read_to_string(&socket).expect("a unit"), text);
        assert_eq!(managed.calls(), [""; 0], "nothing is stopped");
    }
    fs::remove_file(&socket).expect("it was there");
    managed.styxy(&["daemon", "install"]).ok();
    assert_eq!(managed.units(), UNITS);
}

#[test]
fn a_manager_that_looks_elsewhere_is_told_of() {
    let managed = Managed::new();
    let path = format!("{}:/usr/bin:/bin", managed.home.path("bin").display());
    let script = SYSTEMCTL.replace("$XDG_CONFIG_HOME", "/nowhere");
    fs::write(managed.home.path("bin/systemctl"), script).expect("a script");
    let mut install = managed.home.styxy_command(&["daemon", "install"]);
    finish(install.env("PATH", path)).exits(1).complains("XDG_CONFIG_HOME");
}

#[test]
fn without_a_user_manager_nothing_is_installed() {
    let home = Home::new();
    for command in ["install", "uninstall"] {
        let refused = home.styxy(&["daemon", command]).exits(69);
        assert_eq!(refused.stdout, "");
        refused.complains("no systemd user manager runs").complains("try: ");
    }
    assert!(!home.path("config/systemd").exists());
}

#[test]
fn json_names_the_files_and_the_next_command() {
    let managed = Managed::new();
    let installed = managed.styxy(&["daemon", "install", "--json"]).ok().json();
    assert_eq!(installed["files"].as_array().map(Vec::len), Some(3), "{installed:#}");
    assert_eq!(installed["program"], env!("CARGO_BIN_EXE_styxy"));
    assert_eq!(installed["next"], "systemctl --user enable --now styxy.socket");
    let removed = managed.styxy(&["daemon", "uninstall", "--json"]).ok().json();
    assert_eq!(removed["files"], installed["files"]);
}

/// A manager that hangs or is out of memory says no; a daemon that it did not start is no concern of
/// its.
#[test]
fn a_background_daemon_is_stopped_also_where_systemctl_refuses() {
    let managed = Managed::new();
    managed.styxy(&["daemon", "install"]).ok();
    let script = "#!/bin/sh\necho 'Failed to connect to bus' >&2\nexit 1\n";
    fs::write(managed.home.path("bin/systemctl"), script).expect("a script");
    let daemon = managed.home.daemon();
    let stopped = managed.styxy(&["daemon", "stop"]).exits(69);
    assert!(stopped.stderr.contains("Failed to connect to bus"), "{}", stopped.whole());
    assert!(stopped.stderr.contains(&daemon.pid().to_string()), "{}", stopped.whole());
    assert!(managed.home.try_get("/status").is_err(), "it has ended");
}
