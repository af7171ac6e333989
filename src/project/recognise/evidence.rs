//! What a package's directory says of the programs that it uses.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::files;
use super::manifests::KINDS;
use super::table::{Program, programs};

/// What is known of one directory. Each manifest is read when a row first asks for it.
#[derive(Debug)]
pub(super) struct Evidence<'p> {
    directory: &'p Path,
    /// By the manifest's name.
    dependencies: BTreeMap<&'static str, Vec<String>>,
}

/// A program, and what tells of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) program: Program,
    pub(super) why: String,
}

/// The nearest directory that has a manifest or another file of the table.
pub(super) fn package(directory: &Path, root: Option<&Path>) -> Option<PathBuf> {
    let manifests = KINDS.iter().flat_map(|kind| kind.files).copied();
    let files: Vec<_> = manifests.chain(programs().flat_map(Program::files)).collect();
    files::nearest(directory, root, |place| files.iter().any(|file| place.join(file).exists()))
}

impl<'p> Evidence<'p> {
    /// The evidence of that directory.
    pub(super) fn of(directory: &'p Path) -> Self {
        Self { directory, dependencies: BTreeMap::new() }
    }

    /// The first program that there is evidence for. Where code of one kind is run, only evidence of
    /// that kind counts: what node runs is no Django.
    pub(super) fn find(&mut self, kind: Option<&str>) -> Option<Found> {
        programs().find_map(|program| {
            let dependency = program.dependencies().find_map(|(prefix, name)| {
                let counts = kind.is_none_or(|kind| kind == prefix);
                counts.then(|| self.depends_on(prefix, name)).flatten()
            });
            let why = dependency.or_else(|| {
                let counts = |file: &&str| kind.is_none_or(|kind| is_manifest_of(kind, file));
                let mut files = program.files().filter(counts);
                let file = files.find(|file| self.directory.join(file).exists())?;
                Some(format!("{file} is there"))
            })?;
            Some(Found { program, why })
        })
    }

    fn depends_on(&mut self, prefix: &str, name: &str) -> Option<String> {
        let kinds = KINDS.iter().filter(|kind| kind.prefix == prefix);
        let mut files = kinds.flat_map(|kind| kind.files.iter().map(|file| (kind.names, *file)));
        let (_, file) = files.find(|(names, file)| {
            let read = || files::text(&self.directory.join(file)).map(|text| names(&text));
            let found = self.dependencies.entry(file).or_insert_with(|| read().unwrap_or_default());
            found.iter().any(|one| one == name)
        })?;
        Some(format!("{file} depends on {name}"))
    }
}

fn is_manifest_of(prefix: &str, file: &str) -> bool {
    KINDS.iter().any(|kind| kind.prefix == prefix && kind.files.contains(&file))
}
