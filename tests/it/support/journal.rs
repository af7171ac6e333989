//! Journals as a test writes them.

use std::fs;

use serde_json::Value;
use styxy::registry::{Allocation, Change};

use super::Home;

/// A journal's line: JSON, a space, its CRC-32 as eight hexadecimal digits.
pub(crate) fn sealed(record: &Value) -> Vec<u8> {
    let json = record.to_string();
    format!("{json} {:08x}\n", crc32fast::hash(json.as_bytes())).into_bytes()
}

/// The changes of a journal's whole and right lines.
pub(crate) fn changes(journal: &[u8]) -> Vec<Change> {
    let lines = journal.split_inclusive(|byte| *byte == b'\n');
    let json = lines.map(|line| line.split_at(line.len() - " 12345678\n".len()).0);
    // The header is none.
    json.filter_map(|json| serde_json::from_slice(json).ok()).collect()
}

/// What a journal of `changes` says: of an allocation what its last line does, unless it has ended.
pub(crate) fn said(changes: &[Change]) -> Vec<Change> {
    let mut said: Vec<Change> = Vec::new();
    for change in changes {
        if let Change::Allocation(Allocation { lock_id, .. }) | Change::Released { lock_id, .. } =
            change
        {
            said.retain(|it| !matches!(it, Change::Allocation(it) if it.lock_id == *lock_id));
        }
        if !matches!(change, Change::Released { .. }) {
            said.push(change.clone());
        }
    }
    said
}

/// Has the journal be one of an earlier boot of this machine. No daemon may be running.
#[track_caller]
pub(crate) fn reboot(home: &Home) {
    let text = fs::read_to_string(home.journal()).expect("a journal");
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").expect("/proc");
    let (header, rest) = text.split_once('\n').expect("a header");
    let (header, _) = header.rsplit_once(' ').expect("a checksum");
    assert!(header.contains(boot.trim()), "{header}");
    let mut header: Value = serde_json::from_str(header).expect("JSON");
    header["journal"]["boot_id"] = "11111111-2222-3333-4444-555555555555".into();
    fs::write(home.journal(), [&sealed(&header)[..], rest.as_bytes()].concat()).expect("a file");
}
