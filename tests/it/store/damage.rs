//! Damaged journals: what is right in them is used, they are kept beside, and the state opens.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, mknodat};
use styxy::registry::Change;
use tempfile::TempDir;

use super::samples::{every_kind, removed};
use super::{open, reopened, sample};
use crate::support::said;

fn journal(dir: &Path) -> PathBuf {
    dir.join("state.jsonl")
}

/// The damaged journals that were kept.
fn kept(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("an entry"));
    let mut kept: Vec<_> = entries.map(|entry| entry.path()).collect();
    kept.retain(|path| path.to_str().is_some_and(|path| path.contains("state.jsonl.damaged-")));
    kept.sort();
    kept
}

/// Opens the state in `dir`, whose journal is damaged: says so once, keeps the bytes, goes on.
fn assert_kept_and_used(dir: &Path, expected: &[Change], sentence: &str) {
    let bytes = fs::read(journal(dir)).expect("a journal");
    let (mut store, loaded) = open(dir);
    let mut expected = said(expected);
    assert_eq!(loaded.changes, expected);
    let kept = kept(dir);
    let [kept] = &kept[..] else { panic!("one journal is kept beside, not {kept:?}") };
    assert_eq!(fs::read(kept).expect("the kept one"), bytes);
    let [notice] = &loaded.notices[..] else { panic!("one notice, not {:?}", loaded.notices) };
    for part in [sentence, kept.to_str().expect("UTF-8"), "what else it says is used"] {
        assert!(notice.contains(part), "{notice}");
    }

    store.append(&[removed(99)]).expect("room on the disk");
    drop(store);
    expected.push(removed(99));
    assert_eq!(reopened(dir), expected, "the new journal is whole");
}

/// A line of the journal with a right checksum.
fn line(json: &str) -> String {
    format!("{json} {:08x}\n", crc32fast::hash(json.as_bytes()))
}

/// Writes the sample journal, with its lines changed by `edit`.
fn sample_with(edit: impl FnOnce(&mut Vec<String>)) -> TempDir {
    let dir = sample();
    let text = fs::read_to_string(journal(dir.path())).expect("a journal");
    let mut lines: Vec<_> = text.split_inclusive('\n').map(str::to_owned).collect();
    edit(&mut lines);
    fs::write(journal(dir.path()), lines.concat()).expect("our file");
    dir
}

/// A writer may be killed, and a machine lose power, after any byte.
#[test]
fn every_prefix_opens_and_says_what_its_whole_lines_say() {
    let source = sample();
    let bytes = fs::read(journal(source.path())).expect("a journal");
    let header = bytes.iter().position(|byte| *byte == b'\n').expect("a header") + 1;
    let all = every_kind();
    let dir = TempDir::new().expect("a temporary directory");
    for length in 0..=bytes.len() {
        fs::write(journal(dir.path()), &bytes[..length]).expect("our file");
        let whole = bytes[..length].split(|byte| *byte == b'\n').count() - 1;
        let (_store, loaded) = open(dir.path());
        assert_eq!(loaded.changes, said(&all[..whole.saturating_sub(1)]), "{length} bytes");
        let is_whole = length > 0 && bytes[length - 1] == b'\n';
        assert_eq!(loaded.notices.is_empty(), is_whole, "{length} bytes: {:?}", loaded.notices);
        if length >= header {
            let last = bytes[..length].iter().rposition(|byte| *byte == b'\n').expect("a header");
            let left = fs::read(journal(dir.path())).expect("a journal");
            assert_eq!(left, bytes[..=last], "a torn line is cut off");
        }
    }
    assert!(kept(dir.path()).len() <= 10, "damaged journals do not fill the disk");
}

#[test]
fn a_flipped_bit_costs_its_line_alone() {
    let dir = sample_with(|lines| lines[4] = lines[4].replacen("vim", "wim", 1));
    let mut expected = every_kind();
    expected.remove(3);
    assert_kept_and_used(dir.path(), &expected, "has a wrong checksum in line 5.");
}

#[test]
fn a_journal_without_its_header_is_used() {
    let dir = sample_with(|lines| drop(lines.remove(0)));
    assert_kept_and_used(dir.path(), &every_kind(), "has no header.");
}

#[test]
fn several_faults_are_counted() {
    let dir = sample_with(|lines| {
        lines[0] = "{\n".to_owned();
        lines.insert(3, "\n".to_owned());
        lines.insert(3, "\u{0}\n".to_owned());
    });
    let sentence = "has a wrong checksum in line 1, and 2 more faults.";
    assert_kept_and_used(dir.path(), &every_kind(), sentence);
}

#[test]
fn bytes_that_are_not_text_are_damage() {
    let dir = sample();
    let mut bytes = fs::read(journal(dir.path())).expect("a journal");
    bytes.splice(0..0, (0..=255).cycle().take(1000));
    fs::write(journal(dir.path()), bytes).expect("our file");
    // The last of them stand in the header's line.
    assert_kept_and_used(dir.path(), &every_kind(), "has a wrong checksum in line 1, and");

    let dir = TempDir::new().expect("a temporary directory");
    fs::write(journal(dir.path()), [0xff; 5000]).expect("a new file");
    assert_kept_and_used(dir.path(), &[], "has a wrong checksum in line 1.");
}

/// A newer version wrote it, and the user went back to this one.
#[test]
fn a_record_that_is_not_known_is_left_out() {
    let dir = sample_with(|lines| lines.push(line(r#"{"reserved_range":{"from":1}}"#)));
    assert_kept_and_used(dir.path(), &every_kind(), "that this version doesn't know.");
}

#[test]
fn a_field_that_is_not_known_does_no_harm() {
    let json = r#"{"instance_removed":{"instance_id":"b","why":"tired"}}"#;
    let dir = sample_with(|lines| lines.push(line(json)));
    let changes = reopened(dir.path());
    let expected = Change::InstanceRemoved { instance_id: "b".to_owned() };
    assert_eq!(changes.last(), Some(&expected));
}

#[test]
fn nothing_of_a_newer_format_is_used() {
    let header = line(r#"{"journal":{"format":2,"boots":[]}}"#);
    let dir = sample_with(|lines| lines[0] = header);
    assert_kept_and_used(dir.path(), &[], "has format 2 in line 1, and this version knows only 1.");
}

#[test]
fn an_empty_file_is_said_and_nothing_more() {
    let dir = TempDir::new().expect("a temporary directory");
    fs::write(journal(dir.path()), "").expect("a new file");
    let (_store, loaded) = open(dir.path());
    assert!(loaded.changes.is_empty());
    assert!(loaded.notices.iter().all(|notice| notice.contains("state.jsonl was empty")));
    assert_eq!((loaded.notices.len(), kept(dir.path()).len()), (1, 0));
}

#[test]
fn what_is_no_file_makes_room_for_one() {
    type Make = fn(&Path);
    let socket: Make = |path| {
        std::os::unix::net::UnixListener::bind(path).expect("a socket");
    };
    let fifo: Make = |path| {
        mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a FIFO");
    };
    let directory: Make = |path| fs::create_dir(path).expect("a directory");
    let link: Make = |path| std::os::unix::fs::symlink("state.jsonl", path).expect("a link");
    let odd = [
        ("is a socket", socket),
        ("is a FIFO", fifo),
        ("is a directory", directory),
        ("is a symbolic link to itself", link),
    ];
    for (sentence, make) in odd {
        let dir = TempDir::new().expect("a temporary directory");
        make(&journal(dir.path()));
        let (mut store, loaded) = open(dir.path());
        let [notice] = &loaded.notices[..] else { panic!("one notice: {:?}", loaded.notices) };
        assert!(notice.contains(sentence), "{notice}");
        assert_eq!(kept(dir.path()).len(), 1, "{sentence}");
        store.append(&every_kind()).expect("room on the disk");
        drop(store);
        assert_eq!(reopened(dir.path()), said(&every_kind()), "{sentence}");
    }
}

/// A file that nobody could read into memory.
#[test]
fn a_huge_file_is_kept_and_its_first_lines_are_used() {
    let dir = sample();
    let file = fs::OpenOptions::new().write(true).open(journal(dir.path())).expect("our file");
    // Sparse: it takes no room.
    file.set_len(1 << 40).expect("a longer file");
    let (_store, loaded) = open(dir.path());
    assert_eq!(loaded.changes, said(&every_kind()));
    assert!(loaded.notices[0].contains("is longer than"), "{:?}", loaded.notices);
    let length = fs::metadata(&kept(dir.path())[0]).expect("the kept one").len();
    assert_eq!(length, 1 << 40);
}

#[test]
fn damage_of_an_earlier_boot_stays_of_that_boot() {
    let dir = sample_with(|lines| lines[4] = lines[4].replacen("vim", "wim", 1));
    for notices in [1, 0] {
        let (_store, loaded) = super::open_in(dir.path(), "next boot");
        assert!(loaded.rebooted);
        assert_eq!(loaded.notices.len(), notices);
        assert_eq!(loaded.changes.len(), said(&every_kind()).len() - 1);
    }
}
