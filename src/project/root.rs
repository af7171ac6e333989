//! Which project a directory belongs to.

use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, open, statat};

/// What the top directory of a project holds when no git worktree is there to say it.
///
/// Missing on purpose: `Makefile`, which C programs have in every directory.
const MARKERS: [&str; 24] = [
    "styxy.toml",
    "package.json",
    "Cargo.toml",
    "pyproject.toml",
    "setup.py",
    "requirements.txt",
    "manage.py",
    "go.mod",
    "Gemfile",
    "mix.exs",
    "composer.json",
    "pom.xml",
    "build.gradle",
    "build.gradle.kts",
    "settings.gradle",
    "settings.gradle.kts",
    "deno.json",
    "deno.jsonc",
    "compose.yaml",
    "compose.yml",
    "docker-compose.yml",
    "docker-compose.yaml",
    ".jj",
    ".hg",
];

/// The root of the project that `directory` belongs to: the git worktree, else the nearest
/// directory with a project marker. Symlinks are resolved.
///
/// - A linked worktree and a submodule are projects of their own, as they are for git.
/// - A git worktree at the home directory keeps somebody's dotfiles: a marker below it is nearer
///   to what is being worked on. It counts where there is none.
/// - A marker at the home directory makes no project of it, and none above it is looked for.
/// - `/` is no project, and neither is a directory in which everybody may make files, such as
///   /tmp: a stranger would choose the project of everything below.
///
/// `None` also when `directory` does not exist. What may not be looked at is taken as not there.
pub fn root_of(directory: &Path) -> Option<PathBuf> {
    root_beside(directory, std::env::var_os("HOME").map(PathBuf::from).as_deref())
}

/// The package below `root` that `directory` belongs to, as a path relative to `root`: the nearest
/// directory with a project marker. `None` where that is the root itself, or there is none.
///
/// Both are taken as they are: `directory` has to be of [`root_of`]'s form, without symlinks.
pub fn package_of<'d>(directory: &'d Path, root: &Path) -> Option<&'d Path> {
    let below = directory.ancestors().take_while(|place| *place != root && place.starts_with(root));
    below.filter(|place| has_marker(place)).find_map(|place| place.strip_prefix(root).ok())
}

fn root_beside(directory: &Path, home: Option<&Path>) -> Option<PathBuf> {
    let directory = directory.canonicalize().ok()?;
    let home = home.and_then(|home| home.canonicalize().ok());
    let is_home = |place: &Path| Some(place) == home.as_deref();

    let worktree = directory.ancestors().find(|place| has_git(place) && may_be_project(place));
    let root = match worktree {
        Some(worktree) if !is_home(worktree) => Some(worktree),
        _ => directory
            .ancestors()
            .take_while(|place| !is_home(place))
            .find(|place| has_marker(place) && may_be_project(place))
            .or(worktree),
    };
    root.map(Path::to_owned)
}

/// Whether this is the top of a git worktree: it has a `.git` directory with a `HEAD`, or the
/// `.git` file of a linked worktree or a submodule (gitrepository-layout(5)).
///
/// An empty directory and a device are what sandboxes put over a `.git` to hide it.
fn has_git(place: &Path) -> bool {
    let git = place.join(".git");
    match statat(CWD, &git, AtFlags::empty()).map(|git| FileType::from_raw_mode(git.st_mode)) {
        Ok(FileType::Directory) => statat(CWD, git.join("HEAD"), AtFlags::empty()).is_ok(),
        Ok(FileType::RegularFile) => true,
        _ => false,
    }
}

fn has_marker(place: &Path) -> bool {
    // By name each is a look into the kernel's cache, whereas the whole of a directory may be long.
    let Ok(place) = open(place, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()) else {
        return false;
    };
    MARKERS.iter().any(|marker| statat(&place, *marker, AtFlags::empty()).is_ok())
}

fn may_be_project(place: &Path) -> bool {
    place.parent().is_some() && !is_shared(place)
}

/// Whether everybody may make files here. The sticky bit tells such a directory from those of file
/// systems that know no permissions and show all of them.
fn is_shared(place: &Path) -> bool {
    const SHARED: Mode = Mode::SVTX.union(Mode::WOTH);
    statat(CWD, place, AtFlags::empty())
        .is_ok_and(|directory| Mode::from_raw_mode(directory.st_mode).contains(SHARED))
}

#[cfg(test)]
pub(super) mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::process::Command;

    use super::*;

    /// A directory tree; a path that ends in `/` is a directory, every other one an empty file.
    struct Tree(tempfile::TempDir);

    impl Tree {
        fn new(paths: &[&str]) -> Self {
            let directory = tempfile::tempdir().expect("a temporary directory");
            let tree = Self(directory);
            for path in paths {
                let place = tree.0.path().join(path);
                let is_directory = path.ends_with('/');
                let parent = if is_directory { Some(place.as_path()) } else { place.parent() };
                fs::create_dir_all(parent.expect("a parent")).expect("mkdir");
                if !is_directory {
                    fs::write(place, "").expect("write");
                }
            }
            tree
        }

        fn path(&self, path: &str) -> PathBuf {
            self.0.path().canonicalize().expect("it exists").join(path)
        }

        /// The root of `directory`'s project, relative to the tree; the home directory is `home`.
        fn root_of(&self, directory: &str) -> Option<String> {
            let home = self.path("home");
            let root = root_beside(&self.path(directory), Some(&home))?;
            let root = root.strip_prefix(self.path("")).expect("it is within the tree");
            Some(root.to_str().expect("UTF-8").to_owned())
        }
    }

    #[track_caller]
    pub(in crate::project) fn git(directory: &Path, arguments: &[&str]) {
        let output = Command::new("git")
            .args(["-c", "user.name=Ann", "-c", "user.email=ann@example.org"])
            .args(["-c", "protocol.file.allow=always"])
            .args(arguments)
            .current_dir(directory)
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_SYSTEM", "/dev/null")
            .output()
            .expect("git is installed");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    #[test]
    fn git_worktrees_are_projects_of_their_own() {
        let tree = Tree::new(&["shop/apps/web/package.json", "shop/apps/web/src/", "shared/"]);
        for repository in ["shop", "shared"] {
            git(&tree.path(repository), &["init", "--quiet"]);
            git(&tree.path(repository), &["commit", "--quiet", "--allow-empty", "-m", "Begin"]);
        }
        git(&tree.path("shop"), &["worktree", "add", "--quiet", "../feature"]);
        git(&tree.path("shop"), &["worktree", "add", "--quiet", "trees/inner"]);
        git(&tree.path("shop"), &["submodule", "--quiet", "add", "../shared", "libs/shared"]);
        fs::create_dir_all(tree.path("feature/apps/web/src")).expect("mkdir");

        for (directory, root) in [
            ("shop", "shop"),
            ("shop/apps/web/src", "shop"),
            ("shop/.git/hooks", "shop"),
            ("feature", "feature"),
            ("feature/apps/web/src", "feature"),
            ("shop/trees/inner", "shop/trees/inner"),
            ("shop/libs/shared", "shop/libs/shared"),
        ] {
            assert_eq!(tree.root_of(directory).as_deref(), Some(root), "{directory}");
        }
    }

    #[test]
    fn a_package_is_the_nearest_one_below_the_root() {
        let tree = Tree::new(&[
            "shop/package.json",
            "shop/apps/web/package.json",
            "shop/apps/web/src/",
            "shop/apps/shared/",
            "site/package.json",
        ]);
        let package = |directory: &str| {
            let directory = tree.path(directory);
            package_of(&directory, &tree.path("shop")).map(Path::to_owned)
        };
        assert_eq!(package("shop/apps/web/src"), Some("apps/web".into()));
        assert_eq!(package("shop/apps/web"), Some("apps/web".into()));
        assert_eq!(package("shop/apps/shared"), None);
        assert_eq!(package("shop"), None, "that is the root");
        assert_eq!(package("site"), None, "that is elsewhere");
    }

    #[test]
    fn nearest_marker_stands_in_for_git() {
        let tree = Tree::new(&[
            "shop/package.json",
            "shop/api/go.mod",
            "shop/api/cmd/server/",
            "shop/web/src/Makefile",
            "elsewhere/",
        ]);
        assert_eq!(tree.root_of("shop/api/cmd/server").as_deref(), Some("shop/api"));
        assert_eq!(tree.root_of("shop/web/src").as_deref(), Some("shop"));
        assert_eq!(tree.root_of("shop/package.json").as_deref(), Some("shop"), "asked of a file");
        assert_eq!(tree.root_of("elsewhere"), None);
        assert_eq!(tree.root_of("missing"), None);
    }

    #[test]
    fn git_that_is_none_does_not_count() {
        let tree = Tree::new(&["shop/Cargo.toml", "shop/src/.git/"]);
        assert_eq!(tree.root_of("shop/src").as_deref(), Some("shop"));
        fs::remove_dir(tree.path("shop/src/.git")).expect("rmdir");
        symlink("/dev/null", tree.path("shop/src/.git")).expect("symlink");
        assert_eq!(tree.root_of("shop/src").as_deref(), Some("shop"));
    }

    #[test]
    fn home_is_a_project_only_as_a_worktree_and_only_at_last() {
        let tree = Tree::new(&[
            "package.json",
            "home/package.json",
            "home/notes/",
            "home/src/shop/pom.xml",
            "home/src/shop/lib/",
            "home/src/site/.git/HEAD",
            "home/src/site/web/package.json",
        ]);
        assert_eq!(tree.root_of("home"), None);
        assert_eq!(tree.root_of("home/notes"), None);
        assert_eq!(tree.root_of("home/src/shop/lib").as_deref(), Some("home/src/shop"));

        git(&tree.path("home"), &["init", "--quiet"]);
        assert_eq!(tree.root_of("home/notes").as_deref(), Some("home"));
        assert_eq!(tree.root_of("home/src/shop/lib").as_deref(), Some("home/src/shop"));
        assert_eq!(tree.root_of("home/src/site/web").as_deref(), Some("home/src/site"));
    }

    #[test]
    fn project_around_the_home_directory_is_one() {
        let tree = Tree::new(&["go.mod", "src/", "home/"]);
        assert_eq!(tree.root_of("src").as_deref(), Some(""), "a test may put its home anywhere");
    }

    #[test]
    fn shared_directory_is_no_project() {
        let tree = Tree::new(&["tmp/package.json", "tmp/.git/HEAD", "tmp/mine/go.mod", "tmp/x/"]);
        let open_to =
            |mode| fs::set_permissions(tree.path("tmp"), fs::Permissions::from_mode(mode));
        open_to(0o1777).expect("chmod");
        assert_eq!(tree.root_of("tmp/x"), None);
        assert_eq!(tree.root_of("tmp/mine").as_deref(), Some("tmp/mine"));
        open_to(0o777).expect("chmod");
        assert_eq!(tree.root_of("tmp/x").as_deref(), Some("tmp"), "a file system without modes");
    }

    #[test]
    fn symlinks_are_resolved() {
        let tree = Tree::new(&["real/shop/go.mod", "real/shop/cmd/"]);
        symlink("real/shop/cmd", tree.path("link")).expect("symlink");
        assert_eq!(tree.root_of("link").as_deref(), Some("real/shop"));
        symlink("real", tree.path("home")).expect("symlink");
        fs::write(tree.path("real/go.mod"), "").expect("write");
        fs::remove_file(tree.path("real/shop/go.mod")).expect("rm");
        assert_eq!(tree.root_of("link"), None, "home is recognised behind its link");
    }

    #[test]
    fn file_system_root_is_no_project() {
        assert_eq!(root_beside(Path::new("/"), None), None);
        assert_eq!(root_beside(Path::new("/proc/self/net"), None), None);
    }
}
