//! The scripts of package.json and composer.json.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::files;

/// The package that a package manager works on.
#[derive(Debug)]
pub(super) struct Package {
    /// Where it is.
    pub(super) directory: PathBuf,
    json: Value,
}

impl Package {
    /// The package of `directory`: the nearest one with such a manifest, as npm looks for it. A
    /// broken one is none.
    pub(super) fn nearest(manifest: &str, directory: &Path, root: Option<&Path>) -> Option<Self> {
        let directory = files::nearest(directory, root, |place| place.join(manifest).exists())?;
        let text = files::text(&directory.join(manifest))?;
        Some(Self { json: serde_json::from_str(&text).ok()?, directory })
    }

    /// The command line of a script.
    pub(super) fn script(&self, name: &str) -> Option<String> {
        match self.json.get("scripts")?.get(name)? {
            Value::Array(lines) => Some(composed(lines)),
            line => Some(composed(std::slice::from_ref(line))).filter(|line| !line.is_empty()),
        }
    }
}

/// The lines of a script; composer's may have several, one behind the other. There, callbacks into PHP are left out; `@php` is
/// the interpreter and `@NAME` another script.
fn composed(lines: &[Value]) -> String {
    let lines = lines.iter().filter_map(Value::as_str);
    let commands = lines.filter(|line| line.contains(' ') || !line.contains("::"));
    let commands = commands.map(|line| match line.strip_prefix('@') {
        Some(line) if line.starts_with("php ") => line.to_owned(),
        Some(name) => format!("composer run {name}"),
        None => line.to_owned(),
    });
    commands.collect::<Vec<_>>().join("\n")
}
