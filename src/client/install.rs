//! The units for one user, without a package: `styxy daemon install|uninstall`.

use std::env;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::unit_file::{self, Standing};
use super::units::{Manager, Unit};
use crate::paths::Paths;

/// The units of a package, by name; styxy.service last.
const UNITS: [(&str, &str); 3] = [
    ("styxy.socket", include_str!("../../systemd/styxy.socket")),
    ("styxy-unix.socket", include_str!("../../systemd/styxy-unix.socket")),
    ("styxy.service", include_str!("../../systemd/styxy.service")),
];

/// Why units were not installed or taken away.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody would read the files.
    #[error("no systemd user manager runs for this user")]
    NoManager,
    /// It is unknown where they belong.
    #[error("there is no directory for them: neither XDG_CONFIG_HOME nor HOME is set")]
    NoPlace,
    /// This program's own path is none that a unit can name.
    #[error("{0}")]
    Program(String),
    /// Somebody else wrote that file.
    #[error("{} is there already, and styxy did not write it", .0.display())]
    NotOurs(PathBuf),
    /// Styxy wrote that file, and somebody changed it.
    #[error("{} was changed since styxy wrote it", .0.display())]
    Changed(PathBuf),
    /// A file could not be read, written or removed.
    #[error("{}: {source}", path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// How.
        source: io::Error,
    },
    /// systemctl(1) failed.
    #[error("{0}")]
    Systemctl(String),
    /// The manager looks for its units elsewhere.
    #[error("the user manager does not use {}: {reason}", path.display())]
    NotUsed {
        /// The file that was written.
        path: PathBuf,
        /// What it uses instead.
        reason: String,
    },
}

impl Error {
    fn file(path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::File { path: path.to_owned(), source }
    }
}

/// What an installation made.
#[derive(Debug)]
pub struct Installed {
    /// The unit files that there are now.
    pub files: Vec<PathBuf>,
    /// The program that they start.
    pub program: PathBuf,
    /// The sockets listen already, by an earlier installation.
    pub is_active: bool,
}

/// Writes the units with this program's path, and has the manager read them. Nothing is enabled or
/// started. Either all three are written, or none.
///
/// # Errors
///
/// [`Error`]. Files that somebody else wrote or changed stay as they are.
pub fn install(paths: &Paths) -> Result<Installed, Error> {
    let manager = Manager::running(paths).ok_or(Error::NoManager)?;
    let program = own_program()?;
    let name = program.to_str().ok_or_else(|| {
        Error::Program(format!("{} is not UTF-8, which a unit has to be", program.display()))
    })?;
    let dir = unit_dir(paths)?;
    let mut due = Vec::new();
    for (unit, packaged) in UNITS {
        let path = dir.join(unit);
        let text = unit_file::render(packaged, name);
        match unit_file::standing(&path, &text).map_err(Error::file(&path))? {
            Standing::Absent | Standing::Ours => due.push((path, text)),
            Standing::Same => {}
            Standing::Changed => return Err(Error::Changed(path)),
            Standing::Foreign => return Err(Error::NotOurs(path)),
        }
    }
    let made = DirBuilder::new().recursive(true).mode(0o700).create(&dir);
    made.map_err(Error::file(&dir))?;
    write_all(&due)?;
    manager.reload().map_err(Error::Systemctl)?;
    let loaded = manager.units().map_err(Error::Systemctl)?;
    let files = UNITS.map(|(unit, _)| dir.join(unit)).to_vec();
    files.iter().try_for_each(|path| is_used(path, &loaded))?;
    let is_active = loaded.iter().any(|unit| !unit.is_service() && unit.is_active());
    Ok(Installed { files, program, is_active })
}

/// Stops and disables the units, and removes those files that [`install`] wrote; which they were.
/// Nothing happens where there are none.
///
/// # Errors
///
/// [`Error`]. A file of styxy's that somebody changed keeps them all.
pub fn uninstall(paths: &Paths) -> Result<Vec<PathBuf>, Error> {
    let manager = Manager::running(paths).ok_or(Error::NoManager)?;
    let dir = unit_dir(paths)?;
    let mut ours = Vec::new();
    for (unit, _) in UNITS {
        let path = dir.join(unit);
        match unit_file::standing(&path, "").map_err(Error::file(&path))? {
            Standing::Ours => ours.push((unit, path)),
            Standing::Changed => return Err(Error::Changed(path)),
            Standing::Absent | Standing::Same | Standing::Foreign => {}
        }
    }
    if ours.is_empty() {
        return Ok(Vec::new());
    }
    let units: Vec<&str> = ours.iter().map(|(unit, _)| *unit).collect();
    manager.retire(&units).map_err(Error::Systemctl)?;
    for (_, path) in &ours {
        fs::remove_file(path).map_err(Error::file(path))?;
    }
    manager.reload().map_err(Error::Systemctl)?;
    // It fails where none of them is known any more, which is what is wanted.
    let _ = manager.forget_failures(&units);
    Ok(ours.into_iter().map(|(_, path)| path).collect())
}

/// Where a user's own units are: `$XDG_CONFIG_HOME/systemd/user` (systemd.unit(5)).
fn unit_dir(paths: &Paths) -> Result<PathBuf, Error> {
    // The first configuration file is `$XDG_CONFIG_HOME/styxy/config.toml`.
    let home = paths.config_files.first().and_then(|file| file.ancestors().nth(2));
    home.map(|home| home.join("systemd/user")).ok_or(Error::NoPlace)
}

/// This program's path, which must lead to it also tomorrow.
fn own_program() -> Result<PathBuf, Error> {
    let program = env::current_exe()
        .map_err(|error| Error::Program(format!("this program's path is unknown: {error}")))?;
    if program.exists() {
        return Ok(program);
    }
    let gone = format!("this program was replaced or removed: {}", program.display());
    Err(Error::Program(gone))
}

/// Writes all files beside their places first, so that a full disk leaves the old ones alone.
fn write_all(files: &[(PathBuf, String)]) -> Result<(), Error> {
    // A name without a unit's ending: the manager takes no notice of it.
    let new = |path: &Path| {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(".new");
        path.with_file_name(name)
    };
    let written = files.iter().try_for_each(|(path, text)| {
        let path = new(path);
        write(&path, text).map_err(Error::file(&path))
    });
    let placed = written.and_then(|()| {
        let mut files = files.iter();
        files.try_for_each(|(path, _)| fs::rename(new(path), path).map_err(Error::file(path)))
    });
    if placed.is_err() {
        for (path, _) in files {
            // What is not there need not go.
            let _ = fs::remove_file(new(path));
        }
    }
    placed
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    // A leftover of one that was killed.
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o644).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// Sees that the manager has the unit from that very file: its `XDG_CONFIG_HOME` may be another.
fn is_used(path: &Path, loaded: &[Unit]) -> Result<(), Error> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let reason = match loaded.iter().find(|unit| unit.name == name) {
        Some(unit) if same(&unit.fragment, path) => return Ok(()),
        Some(unit) if unit.is_found() && !unit.fragment.as_os_str().is_empty() => {
            format!("it has {name} from {}", unit.fragment.display())
        }
        Some(unit) if unit.is_found() => format!("{name} is {}", unit.load),
        _ => format!("it finds no {name}; its XDG_CONFIG_HOME may be another one"),
    };
    Err(Error::NotUsed { path: path.to_owned(), reason })
}

fn same(one: &Path, other: &Path) -> bool {
    let real = |path: &Path| fs::canonicalize(path).ok();
    one == other || real(one).is_some_and(|path| Some(path) == real(other))
}
