//! What git says of a worktree: its branch, and whether it is a linked one.

use std::fs;
use std::path::{Path, PathBuf};

use crate::small_file;

/// What `.git` and `HEAD` files hold is a line. More than this, in bytes, is something else.
const LARGEST: u64 = 8 << 10;

/// The branch that is checked out at `root`, if it is the top of a git worktree and a branch is.
pub fn branch(root: &Path) -> Option<String> {
    let head = line(&git_directory(root)?.join("HEAD"))?;
    // gitrepository-layout(5): a symbolic ref, or the id of a commit where none is checked out.
    Some(head.strip_prefix("ref: refs/heads/")?.to_owned())
}

/// Whether `root` is the top of a linked worktree (git-worktree(1)): one of several of a repository,
/// and not its main one. A submodule is none.
pub fn is_linked(root: &Path) -> bool {
    // A linked worktree's directory says where the repository's own is; no other has that file.
    git_directory(root).is_some_and(|git| git.join("commondir").is_file())
}

/// The directory that keeps what git knows of the worktree at `root`.
fn git_directory(root: &Path) -> Option<PathBuf> {
    let git = root.join(".git");
    if fs::metadata(&git).ok()?.is_dir() {
        return Some(git);
    }
    let target = line(&git)?;
    // It may be relative to where the file is.
    Some(root.join(target.strip_prefix("gitdir: ")?))
}

/// The first line of a small file.
fn line(file: &Path) -> Option<String> {
    let text = String::from_utf8(small_file::read(file, LARGEST).ok()?).ok()?;
    text.lines().next().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::project::root::tests::git;

    #[test]
    fn git_is_believed_about_its_worktrees() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = |name: &str| directory.path().join(name);
        for repository in ["shop", "shared"] {
            fs::create_dir(path(repository)).expect("mkdir");
            git(&path(repository), &["init", "--quiet", "--initial-branch", "main"]);
            git(&path(repository), &["commit", "--quiet", "--allow-empty", "-m", "Begin"]);
        }
        git(&path("shop"), &["worktree", "add", "--quiet", "-b", "ann/cart", "../cart"]);
        git(&path("shop"), &["worktree", "add", "--quiet", "--detach", "../bisect"]);
        git(&path("shop"), &["submodule", "--quiet", "add", "../shared", "shared"]);

        let table = [
            ("shop", Some("main"), false),
            ("cart", Some("ann/cart"), true),
            ("bisect", None, true),
            ("shop/shared", Some("main"), false),
            (".", None, false),
        ];
        for (root, expected, linked) in table {
            assert_eq!(branch(&path(root)).as_deref(), expected, "{root}");
            assert_eq!(is_linked(&path(root)), linked, "{root}");
        }
        fs::write(path("shop/.git/HEAD"), "").expect("write");
        assert_eq!(branch(&path("shop")), None);
    }
}
