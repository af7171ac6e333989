//! Journals that nobody wrote: mutations of real ones, by the million in the long form, and the ones
//! in `journals/`, each of which holds one thing that could go wrong.
//!
//! Whatever the bytes are, the state opens; every change that comes out stands in a whole line with
//! a right checksum; and a registry takes them all.

use std::fs;
use std::path::Path;
use std::time::Duration;

use styxy::config::Config;
use styxy::registry::{Change, Moment, Policy, Registry};
use tempfile::TempDir;

use super::journal::{open, outcome, right_lines};
use super::registry::Fake;

/// Written by the first version, with every kind of change.
const REAL: &[u8] = include_bytes!("../it/fixtures/journal-format-1.jsonl");

/// Numbers that look random and come again with the same seed (xorshift64*, Vigna 2016).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() >> 33).expect("31 bits") % limit.max(1)
    }
}

/// Changes bytes as disks, editors and tired people do, and seals some of the lines anew, so that
/// what they say is nonsense with a right checksum.
fn mutate(bytes: &mut Vec<u8>, numbers: &mut Numbers) {
    for _ in 0..=numbers.below(6) {
        let length = bytes.len();
        let at = numbers.below(length);
        let end = (at + 1 + numbers.below(120)).min(length);
        match numbers.below(9) {
            _ if length == 0 => return,
            0 => bytes[at] ^= 1 << numbers.below(8),
            1 => bytes[at] = [0, 0xff, b'\n', b'{', b'"', b'9', b' '][numbers.below(7)],
            2 => drop(bytes.drain(at..end)),
            3 => {
                let copy = bytes[at..end].to_vec();
                let to = numbers.below(length);
                bytes.splice(to..to, copy);
            }
            4 => bytes.truncate(at),
            5 => bytes.insert(at, b'\n'),
            6 => bytes.extend_from_slice(&REAL[..numbers.below(REAL.len())]),
            _ => reseal(bytes, at, numbers),
        }
    }
}

/// Changes a byte of the line around `at` and gives the line the checksum that it has now.
fn reseal(bytes: &mut Vec<u8>, at: usize, numbers: &mut Numbers) {
    let start = bytes[..at].iter().rposition(|byte| *byte == b'\n').map_or(0, |it| it + 1);
    let end = bytes[at..].iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |it| at + it);
    let Some(length) = (end - start).checked_sub(9).filter(|length| *length > 0) else { return };
    let mut json = bytes[start..start + length].to_vec();
    let place = numbers.below(length);
    json[place] = match numbers.below(4) {
        0 => b'0' + json[place] % 10,
        1 => json[place].wrapping_add(1),
        2 => b'-',
        _ => json[numbers.below(length)],
    };
    let line = [&json[..], format!(" {:08x}", crc32fast::hash(&json)).as_bytes()].concat();
    bytes.splice(start..end, line);
}

/// Opens a journal of these bytes, and has a registry live with what it says.
fn check(dir: &Path, bytes: &[u8]) -> usize {
    fs::write(dir.join("state.jsonl"), bytes).expect("a new file");
    let (store, loaded) = open(dir);
    let expected = outcome(right_lines(bytes));
    assert_eq!(outcome(loaded.changes.clone()), expected, "{}", bytes.escape_ascii());
    drop(store);
    let count = expected.len();
    let (_, again) = open(dir);
    assert_eq!(again.notices, [""; 0], "it is mended once: {}", bytes.escape_ascii());
    live_with(loaded.changes);
    count
}

/// Nothing that a journal says makes a registry panic, not even what no version ever wrote.
fn live_with(changes: Vec<Change>) {
    let mut machine = Fake::default();
    let mut registry = Registry::new(Policy::new(&Config::built_in(), [9876]));
    for change in changes {
        registry.replay(change);
    }
    let mut now = Moment { monotonic: Duration::from_secs(1000), unix_ms: 1_700_000_000_000 };
    registry.resume(true, &mut machine, now);
    registry.sweep(&mut machine, now);
    now.monotonic += Duration::from_secs(3600);
    registry.expire(&mut machine, now);
    let again: Vec<_> = registry.snapshot().collect();
    assert!(again.len() <= 100_000, "{} changes", again.len());
}

#[test]
fn a_mutated_journal_says_what_its_right_lines_say() {
    let count = if super::full() { 1_000_000 } else { 3_000 };
    let seed = std::env::var("STYXY_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed =
        seed.unwrap_or_else(|| std::time::UNIX_EPOCH.elapsed().expect("after 1970").as_secs());
    super::report(&format!("{count} journals, STYXY_TEST_SEED={seed}"));
    let mut numbers = Numbers(seed | 1);
    let mut changes = 0;
    for round in 0..count {
        // Damaged journals are kept beside, so each round of a few has a directory of its own.
        let dir = TempDir::new().expect("a temporary directory");
        let mut bytes = REAL.to_vec();
        mutate(&mut bytes, &mut numbers);
        changes += check(dir.path(), &bytes);
        assert!(round < 100 || changes > 0, "nothing of all these journals is right");
    }
}

/// A file each: what it holds is its name. Both the journals and what they say are fixed.
#[test]
fn the_journals_of_the_corpus_say_what_they_always_said() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/property/journals");
    let expected = fs::read_to_string(folder.join("EXPECTED")).expect("a list");
    let mut found = String::new();
    let mut names: Vec<_> = fs::read_dir(&folder)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8"))
        .filter(|name| name != "EXPECTED")
        .collect();
    names.sort();
    for name in &names {
        let dir = TempDir::new().expect("a temporary directory");
        let bytes = fs::read(folder.join(name)).expect("a journal");
        found.extend([name, " ", &check(dir.path(), &bytes).to_string(), "\n"]);
    }
    assert_eq!(found, expected, "left: name and how much remains of it now, right: EXPECTED");
    super::report(&format!("{} journals", names.len()));
}
