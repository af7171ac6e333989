//! Where things are: state, sockets, configuration files.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The places of one user on one machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    /// `$XDG_STATE_HOME/styxy/MACHINE_ID`.
    pub state_dir: PathBuf,
    /// `$XDG_RUNTIME_DIR/styxy/styxy.sock`. Where the directories are deep it may be longer than a
    /// socket's path can be: see [`check_socket_path`].
    pub socket: PathBuf,
    /// The configuration files, the first that exists counts.
    pub config_files: Vec<PathBuf>,
}

impl Paths {
    /// Reads the environment (XDG Base Directory specification).
    ///
    /// # Errors
    ///
    /// When there is neither `HOME` nor what would make it unnecessary.
    pub fn from_env() -> Result<Self, String> {
        let surroundings = Surroundings {
            variable: |name: &str| std::env::var_os(name),
            root: Path::new("/"),
            uid: rustix::process::getuid().as_raw(),
        };
        surroundings.paths()
    }
}

/// The longest path that a unix socket can have, in bytes: `sun_path` of unix(7) has 108, and one
/// ends it.
pub const LONGEST_SOCKET_PATH: usize = 107;

/// Whether a unix socket can be bound at `socket`.
///
/// # Errors
///
/// When the path is longer than [`LONGEST_SOCKET_PATH`]: one sentence that says what to change.
pub fn check_socket_path(socket: &Path) -> Result<(), String> {
    let length = socket.as_os_str().len();
    if length <= LONGEST_SOCKET_PATH {
        return Ok(());
    }
    Err(format!(
        "{} can't be a socket: its path has {length} bytes and unix(7) allows {LONGEST_SOCKET_PATH}; \
         set XDG_RUNTIME_DIR to a shorter directory",
        socket.display()
    ))
}

/// What the places depend on; a parameter, so that a test needs no environment of its own.
struct Surroundings<'a, V> {
    /// An environment variable by its name.
    variable: V,
    /// Where `etc`, `run` and `var` are.
    root: &'a Path,
    uid: u32,
}

impl<V: Fn(&str) -> Option<OsString>> Surroundings<'_, V> {
    fn paths(&self) -> Result<Paths, String> {
        let config_home = self.base("XDG_CONFIG_HOME", ".config")?;
        let state_home = self.base("XDG_STATE_HOME", ".local/state")?;
        let state_dir = state_home.join("styxy").join(self.machine());
        let socket = match self.runtime_dir() {
            Some(directory) => directory.join("styxy/styxy.sock"),
            None => state_dir.join("styxy.sock"),
        };
        let config_files =
            vec![config_home.join("styxy/config.toml"), self.root.join("etc/styxy/config.toml")];
        Ok(Paths { state_dir, socket, config_files })
    }

    /// The directory that a variable names, or else its place below the home directory.
    fn base(&self, variable: &str, below_home: &str) -> Result<PathBuf, String> {
        match self.absolute(variable) {
            Some(directory) => Ok(directory),
            None => Ok(self.home()?.join(below_home)),
        }
    }

    /// "All paths set in these environment variables must be absolute. If an implementation
    /// encounters a relative path … it should consider the path invalid and ignore it."
    fn absolute(&self, variable: &str) -> Option<PathBuf> {
        (self.variable)(variable).map(PathBuf::from).filter(|path| path.is_absolute())
    }

    fn home(&self) -> Result<PathBuf, String> {
        self.absolute("HOME").or_else(|| self.home_of_passwd()).ok_or_else(|| {
            format!(
                "HOME is not set, and /etc/passwd has no home directory for uid {}: set HOME",
                self.uid
            )
        })
    }

    /// The home directory by passwd(5), for a service manager that sets no `HOME`. Users of another
    /// source (LDAP, systemd-homed) are not in the file.
    fn home_of_passwd(&self) -> Option<PathBuf> {
        let passwd = fs::read(self.root.join("etc/passwd")).ok()?;
        passwd.split(|byte| *byte == b'\n').find_map(|line| {
            let mut fields = line.split(|byte| *byte == b':');
            let uid = fields.nth(2)?;
            let home = Path::new(std::ffi::OsStr::from_bytes(fields.nth(2)?));
            let is_ours = uid == self.uid.to_string().as_bytes() && home.is_absolute();
            is_ours.then(|| home.to_owned())
        })
    }

    /// The directory for sockets: what `XDG_RUNTIME_DIR` names, else what logind would have named.
    ///
    /// After `su` the variable may still name the directory of the user before, "which must be
    /// owned by the user": then it counts as not set. One that does not exist yet is taken at its
    /// word.
    fn runtime_dir(&self) -> Option<PathBuf> {
        let owner = |path: &Path| fs::metadata(path).ok().map(|directory| directory.uid());
        let named = self.absolute("XDG_RUNTIME_DIR");
        named.filter(|path| owner(path).is_none_or(|uid| uid == self.uid)).or_else(|| {
            let usual = self.root.join("run/user").join(self.uid.to_string());
            (owner(&usual) == Some(self.uid)).then_some(usual)
        })
    }

    /// What tells this machine from others that share the home directory, as one path component:
    /// the machine id of machine-id(5) or of D-Bus, else `host-` and the host name.
    ///
    /// A machine id is missing in many containers, and says `uninitialized` while a machine boots
    /// for the first time.
    fn machine(&self) -> String {
        ["etc/machine-id", "var/lib/dbus/machine-id"]
            .iter()
            .find_map(|file| machine_id(&self.root.join(file)))
            .unwrap_or_else(|| host(&self.root.join("proc/sys/kernel/hostname")))
    }
}

fn machine_id(file: &Path) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    let id = text.trim_ascii();
    (id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit())).then(|| id.to_owned())
}

/// `host-` keeps a host name from looking like a machine id, or from being `..`.
fn host(file: &Path) -> String {
    let name = fs::read_to_string(file).unwrap_or_default();
    let is_safe = |letter: char| letter.is_ascii_alphanumeric() || "-_.".contains(letter);
    let name = name.trim_ascii().replace(|letter| !is_safe(letter), "_");
    format!("host-{name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef";

    /// A root directory of its own, with the files of `files`.
    fn root(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("a temporary directory");
        for (name, text) in files {
            let file = root.path().join(name);
            fs::create_dir_all(file.parent().expect("a parent")).expect("mkdir");
            fs::write(file, text).expect("write");
        }
        root
    }

    fn our_uid() -> u32 {
        rustix::process::getuid().as_raw()
    }

    fn paths(root: &Path, uid: u32, variables: &[(&str, &str)]) -> Result<Paths, String> {
        let variable = |name: &str| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into())
        };
        Surroundings { variable, root, uid }.paths()
    }

    #[test]
    fn variables_name_the_places() {
        let root = root(&[("etc/machine-id", &format!("{ID}\n"))]);
        let variables = [
            ("XDG_CONFIG_HOME", "/c"),
            ("XDG_STATE_HOME", "/s"),
            ("XDG_RUNTIME_DIR", "/does/not/exist/yet"),
        ];
        let expected = Paths {
            state_dir: Path::new("/s/styxy").join(ID),
            socket: "/does/not/exist/yet/styxy/styxy.sock".into(),
            config_files: vec![
                "/c/styxy/config.toml".into(),
                root.path().join("etc/styxy/config.toml"),
            ],
        };
        assert_eq!(paths(root.path(), our_uid(), &variables), Ok(expected), "HOME is not needed");
    }

    #[test]
    fn home_stands_in_for_what_is_missing_or_relative() {
        let root = root(&[("etc/machine-id", ID)]);
        let relative = [
            ("HOME", "/home/ann"),
            ("XDG_CONFIG_HOME", "config"),
            ("XDG_STATE_HOME", ""),
            ("XDG_RUNTIME_DIR", "run"),
        ];
        for variables in [&relative[..], &relative[..1]] {
            let paths = paths(root.path(), our_uid(), variables).expect("HOME is set");
            let state_dir = Path::new("/home/ann/.local/state/styxy").join(ID);
            assert_eq!(paths.socket, state_dir.join("styxy.sock"));
            assert_eq!(paths.state_dir, state_dir);
            assert_eq!(paths.config_files[0], Path::new("/home/ann/.config/styxy/config.toml"));
        }
    }

    #[test]
    fn passwd_stands_in_for_home() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\n\nbroken:x:1000\nnone:x:1000:1000:::\n\
                      ann:x:1000:1000:Ann,,,:/home/ann:/bin/sh\n";
        let root = root(&[("etc/passwd", passwd), ("etc/machine-id", ID)]);
        for variables in [&[][..], &[("HOME", "")], &[("HOME", "ann")]] {
            let paths = paths(root.path(), 1000, variables).expect("passwd knows the home");
            assert!(paths.state_dir.starts_with("/home/ann/.local/state"), "{paths:?}");
        }
        let error = paths(root.path(), 1001, &[]).expect_err("nobody knows the home");
        assert!(error.contains("HOME") && error.contains("1001"), "{error}");
    }

    #[test]
    fn runtime_directory_has_to_be_ours() {
        let root = root(&[("theirs/file", ""), ("etc/machine-id", ID)]);
        let usual = root.path().join("run/user").join(our_uid().to_string());
        fs::create_dir_all(&usual).expect("mkdir");
        let unset = paths(root.path(), our_uid(), &[("HOME", "/h")]).expect("HOME is set");
        assert_eq!(unset.socket, usual.join("styxy/styxy.sock"));

        // For any other user, what this one made is somebody else's.
        let other = our_uid() + 1;
        let theirs = root.path().join("theirs");
        let theirs = theirs.to_str().expect("UTF-8");
        fs::create_dir_all(root.path().join("run/user").join(other.to_string())).expect("mkdir");
        let variables = [("HOME", "/h"), ("XDG_RUNTIME_DIR", theirs)];
        let paths = paths(root.path(), other, &variables).expect("HOME is set");
        assert_eq!(paths.socket, paths.state_dir.join("styxy.sock"));
    }

    #[test]
    fn machine_is_one_safe_component() {
        let dbus = "var/lib/dbus/machine-id";
        let hostname = "proc/sys/kernel/hostname";
        for (files, expected) in [
            (vec![("etc/machine-id", "uninitialized\n"), (dbus, ID)], ID),
            (
                vec![("etc/machine-id", ""), (hostname, "ann-laptop.local\n")],
                "host-ann-laptop.local",
            ),
            (vec![("etc/machine-id", "../../x"), (hostname, "../../ä\n")], "host-.._..__"),
            (vec![(hostname, "..")], "host-.."),
            (vec![], "host-"),
        ] {
            let root = root(&files);
            let paths = paths(root.path(), our_uid(), &[("HOME", "/h")]).expect("HOME is set");
            let expected = Path::new("/h/.local/state/styxy").join(expected);
            assert_eq!(paths.state_dir, expected, "{files:?}");
        }
    }

    #[test]
    fn path_that_passes_the_check_can_be_bound() {
        let root = tempfile::tempdir().expect("a temporary directory");
        let directory = root.path().as_os_str().len() + 1;
        let longest = root.path().join("s".repeat(LONGEST_SOCKET_PATH - directory));
        assert_eq!(check_socket_path(&longest), Ok(()));
        std::os::unix::net::UnixListener::bind(&longest).expect("the longest path can be bound");

        let longer = root.path().join("s".repeat(LONGEST_SOCKET_PATH - directory + 1));
        assert!(check_socket_path(&longer).is_err_and(|error| error.contains("XDG_RUNTIME_DIR")));
        assert!(std::os::unix::net::UnixListener::bind(&longer).is_err());
    }

    #[test]
    fn this_machine_has_places() {
        let paths = Paths::from_env().expect("a home directory");
        assert!(paths.state_dir.is_absolute() && paths.socket.is_absolute());
        assert_eq!(paths.config_files[1], Path::new("/etc/styxy/config.toml"));
    }
}
