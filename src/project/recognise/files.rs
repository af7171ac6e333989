//! Reading the small files that say what a directory is.

use std::path::{Path, PathBuf};

use crate::small_file;

/// No manifest that a person writes is longer.
const LONGEST: u64 = 1 << 20;

/// The text of a file. What is no regular file, too long, not UTF-8 or not readable is taken as not
/// there.
pub(super) fn text(path: &Path) -> Option<String> {
    let mut text = String::from_utf8(small_file::read(path, LONGEST).ok()?).ok()?;
    if text.starts_with('\u{feff}') {
        text.remove(0);
    }
    Some(text)
}

/// The nearest directory, from `directory` up to `root`, for which `is_it` holds. Without a root
/// nothing above `directory` is looked at.
pub(super) fn nearest(
    directory: &Path,
    root: Option<&Path>,
    is_it: impl Fn(&Path) -> bool,
) -> Option<PathBuf> {
    let root = root.filter(|root| directory.starts_with(root)).unwrap_or(directory);
    let within = directory.ancestors().take_while(|place| place.starts_with(root));
    within.into_iter().find(|place| is_it(place)).map(Path::to_owned)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn only_short_regular_text_is_read() {
        let directory = tempfile::tempdir().expect("a directory");
        let place = |name: &str| directory.path().join(name);
        fs::write(place("short"), "\u{feff}{}").expect("a file");
        fs::write(place("long"), vec![b' '; (1 << 20) + 1]).expect("a file");
        fs::write(place("binary"), b"\xff\xfe").expect("a file");
        fs::create_dir(place("folder")).expect("a directory");
        let mode = rustix::fs::Mode::RWXU;
        rustix::fs::mkfifoat(rustix::fs::CWD, place("fifo"), mode).expect("a FIFO");
        std::os::unix::fs::symlink("short", place("link")).expect("a link");

        assert_eq!(text(&place("short")).as_deref(), Some("{}"), "without its byte order mark");
        assert_eq!(text(&place("link")).as_deref(), Some("{}"));
        for name in ["long", "binary", "folder", "fifo", "missing"] {
            assert_eq!(text(&place(name)), None, "{name}");
        }
        assert_eq!(text(Path::new("/dev/zero")), None);
    }

    #[test]
    fn nothing_above_the_root_is_looked_at() {
        let all = |_: &Path| true;
        let web = |place: &Path| place.ends_with("web");
        let (page, shop) = (Path::new("/src/shop/web/page"), Path::new("/src/shop"));
        assert_eq!(nearest(page, Some(shop), all).as_deref(), Some(page));
        assert_eq!(nearest(page, Some(shop), web).as_deref(), Some(Path::new("/src/shop/web")));
        assert_eq!(nearest(page, None, web), None);
        assert_eq!(nearest(page, Some(page), web), None);
        assert_eq!(nearest(page, Some(Path::new("/elsewhere")), web), None);
    }
}
