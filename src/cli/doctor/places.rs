//! Files and directories: configuration, runtime and state directory, journal.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{Access, access, statvfs};
use rustix::process::geteuid;

use super::Finding;
use crate::cli::output::View;
use crate::config::Diagnostic;
use crate::paths::{Paths, check_socket_path};
use crate::store::Inspection;

/// Less room than this, in bytes, is a disk that is full in a moment.
const LITTLE_ROOM: u64 = 1 << 20;

/// What is wrong in the configuration.
pub(super) fn configuration(paths: &Paths, diagnostics: &[Diagnostic]) -> Finding {
    let errors = diagnostics.iter().filter(|one| !one.is_warning).count();
    let first = diagnostics.iter().min_by_key(|one| one.is_warning);
    let Some(first) = first else {
        let file = paths.config_files.iter().find(|file| file.exists());
        return Finding::ok(
            "configuration",
            match file {
                Some(file) => format!("{} is right", shown(file)),
                None => "there is no file: the built-in one counts".to_owned(),
            },
        );
    };
    let message = match diagnostics.len() - 1 {
        0 => first.to_string(),
        more => format!("{first} (and {more} more)"),
    };
    let next = "styxy config check, and mend it; the rest of the file counts";
    if errors > 0 {
        Finding::fail("configuration", message, next)
    } else {
        Finding::warn("configuration", message, next)
    }
}

/// The directory of the socket, the one around it, and the state directory.
pub(super) fn directories(paths: &Paths) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Err(reason) = check_socket_path(&paths.socket) {
        findings.push(Finding::fail("runtime-dir", reason, "XDG_RUNTIME_DIR=/run/user/$(id -u)"));
    } else if let Some(dir) = paths.socket.parent() {
        findings.push(if dir == paths.state_dir {
            let message = "there is none, so the socket is in the state directory";
            Finding::ok("runtime-dir", message)
        } else {
            let around = dir.parent().map(|around| private("runtime-dir", around));
            // What is wrong with the outer one is wrong with the inner one.
            match around {
                Some(finding) if finding.suggestion.is_some() => finding,
                _ => private("runtime-dir", dir),
            }
        });
    }
    let state = private("state-dir", &paths.state_dir);
    let room = state.suggestion.is_none().then(|| room(&paths.state_dir)).flatten();
    findings.push(room.unwrap_or(state));
    findings
}

/// Whether a directory is this user's alone, or can be made.
fn private(check: &'static str, dir: &Path) -> Finding {
    let name = shown(dir);
    let found = match fs::metadata(dir) {
        Ok(found) => found,
        Err(error) if error.kind() == ErrorKind::NotFound => return missing(check, dir),
        Err(error) => {
            let next = "its directories must let you in: ls -ld";
            return Finding::fail(check, format!("{name}: {error}"), format!("{next} {name}"));
        }
    };
    let mode = found.mode() & 0o7777;
    let uid = geteuid().as_raw();
    if !found.is_dir() {
        return Finding::fail(check, format!("{name} is no directory"), format!("rm {name}"));
    }
    if found.uid() != uid {
        let message = format!("{name} belongs to uid {}, and you are {uid}", found.uid());
        return Finding::fail(check, message, format!("sudo chown -R {uid} {name}"));
    }
    if let Err(error) = access(dir, Access::WRITE_OK | Access::EXEC_OK) {
        let error = io::Error::from(error);
        let message = format!("{name} (mode {mode:03o}) can't be written: {error}");
        let next = match error.kind() {
            ErrorKind::ReadOnlyFilesystem => "findmnt -T ".to_owned() + &name,
            _ => format!("chmod 700 {name}"),
        };
        return Finding::fail(check, message, next);
    }
    if mode & 0o077 != 0 {
        let message = format!("{name} is open to others (mode {mode:03o})");
        return Finding::warn(check, message, format!("chmod 700 {name}"));
    }
    Finding::ok(check, format!("{name} is yours alone (mode {mode:03o})"))
}

/// A directory that is not there yet: somebody has to make it.
fn missing(check: &'static str, dir: &Path) -> Finding {
    let name = shown(dir);
    let above = dir.ancestors().skip(1).find(|above| above.exists());
    let writable = above.map_or(Err(rustix::io::Errno::NOENT), |above| {
        access(above, Access::WRITE_OK | Access::EXEC_OK)
    });
    match writable {
        Ok(()) => Finding::ok(check, format!("{name} is made when it is needed")),
        Err(error) => {
            let message = format!("{name} can't be made: {}", io::Error::from(error));
            Finding::fail(check, message, format!("mkdir -p -m 700 {name}"))
        }
    }
}

/// Whether the disk has room, if it hasn't.
fn room(dir: &Path) -> Option<Finding> {
    let disk = statvfs(dir).ok()?;
    let left = disk.f_bavail.saturating_mul(disk.f_frsize);
    // A file system that counts nothing says 0 of 0.
    if disk.f_blocks == 0 || left >= LITTLE_ROOM {
        return None;
    }
    let name = shown(dir);
    let next = format!("make room on the disk of {name}: df {name}");
    let message = format!("the disk of {name} has {left} bytes left");
    Some(match left {
        0 => Finding::fail("state-dir", message, next),
        _ => Finding::warn("state-dir", message, next),
    })
}

/// Whether the journal can be read, and what of earlier ones is left.
pub(super) fn journal(paths: &Paths, journal: &io::Result<Option<Inspection>>) -> Vec<Finding> {
    let journal = match journal {
        Ok(Some(journal)) => journal,
        Ok(None) => {
            return vec![Finding::ok("journal", "there is none yet")];
        }
        Err(error) => {
            let dir = shown(&paths.state_dir);
            let message = format!("the journal in {dir} can't be read: {error}");
            return vec![Finding::fail("journal", message, format!("ls -la {dir}"))];
        }
    };
    let path = shown(&journal.path);
    let mut findings = vec![match &journal.damage {
        None => Finding::ok("journal", format!("{path} can be read, {} lines", journal.lines)),
        Some(damage) => {
            let next = "styxy daemon restart keeps a copy, and goes on with what can be used";
            Finding::fail("journal", format!("{path} {damage}"), next)
        }
    }];
    if let Some(last) = journal.kept.last() {
        let message = format!("{} damaged journals were kept", journal.kept.len());
        let next = format!("rm {}*, once nothing is missed", shown(&prefix(last)));
        findings.push(Finding::warn("journal", message, next));
    }
    findings
}

/// `…/state.jsonl.damaged-` of a kept journal.
fn prefix(kept: &Path) -> std::path::PathBuf {
    let name = kept.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let end = name.rfind('-').map_or(name.len(), |dash| dash + 1);
    kept.with_file_name(&name[..end])
}

fn shown(path: &Path) -> String {
    View::current().path(&path.to_string_lossy())
}
