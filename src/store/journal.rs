//! The journal's line format: encoding, decoding, replay. Bytes in, changes out; no files.
//!
//! A line is a JSON object, a space, the CRC-32 (IEEE 802.3) of the object's bytes as eight
//! lower-case hexadecimal digits, and a newline. The first line is a header:
//!
//! ```text
//! {"journal":{"format":1,"boot_id":"9f0c…","version":"0.1.0"}} 8d1cc5d6
//! {"released":{"lock_id":"5f64…","reason":"released"}} 0b7a41cb
//! ```
//!
//! Every other line is a [`Change`]. A header may come again further down, where the machine was
//! booted in between: what stands above it belongs to an earlier boot. A later format may change
//! anything but the shape of the header and of the checksum, so that this version can say what it
//! found.

use std::io::{self, BufRead};

use foldhash::HashMap;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;
use uuid::fmt::Hyphenated;

use crate::api::Protocol;
use crate::registry::{Allocation, Change, Transport, transports};

/// The format that this version writes, and the only one that it reads.
pub(super) const FORMAT: u32 = 1;

/// A space, eight digits, a newline.
const SEAL_LENGTH: usize = 10;

/// How a header's JSON begins; no change's does.
const HEADER_START: &str = r#"{"journal":"#;

/// How an allocation's JSON begins, as this version writes it: lock id, port and protocol follow.
const ALLOCATION_START: &str = r#"{"allocation":{"lock_id":""#;

/// How deep an instance's metadata may be nested. `serde_json` reads 127 levels, and three of them
/// are the record's own.
const METADATA_DEPTH: usize = 124;

/// The first line, and the first line of every boot.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum HeaderLine<T> {
    Journal(Header<T>),
}

/// Who wrote the lines that follow, and in which boot.
#[derive(Debug, Serialize, Deserialize)]
struct Header<T> {
    format: u32,
    boot_id: Option<T>,
    version: Option<T>,
}

/// Writes a header line to the end of `buffer`.
pub(super) fn encode_header(buffer: &mut Vec<u8>, boot_id: &str) -> io::Result<()> {
    let version = env!("CARGO_PKG_VERSION");
    let header = Header { format: FORMAT, boot_id: Some(boot_id), version: Some(version) };
    seal(buffer, &HeaderLine::Journal(header))
}

/// Writes `change` as a line to the end of `buffer`.
///
/// Fails for what could be written but never be read again, and leaves `buffer` as it was then.
pub(super) fn encode(buffer: &mut Vec<u8>, change: &Change) -> io::Result<()> {
    if let Change::Instance(instance) = change
        && instance.metadata.values().any(|value| nests_deeper(value, METADATA_DEPTH))
    {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("the metadata of instance '{}' is nested too deeply", instance.instance_id),
        ));
    }
    seal(buffer, change)
}

/// Whether `value` has more than `levels` arrays and objects within each other.
fn nests_deeper(value: &Value, levels: usize) -> bool {
    let deeper = |value: &Value| levels == 0 || nests_deeper(value, levels - 1);
    match value {
        Value::Array(values) => levels == 0 || values.iter().any(deeper),
        Value::Object(values) => levels == 0 || values.values().any(deeper),
        _ => false,
    }
}

fn seal(buffer: &mut Vec<u8>, record: &impl Serialize) -> io::Result<()> {
    let start = buffer.len();
    if let Err(error) = serde_json::to_writer(&mut *buffer, record) {
        buffer.truncate(start);
        return Err(error.into());
    }
    let digits = hex(crc32fast::hash(&buffer[start..]));
    buffer.push(b' ');
    buffer.extend_from_slice(&digits);
    buffer.push(b'\n');
    Ok(())
}

fn hex(crc: u32) -> [u8; 8] {
    let mut digits = [0; 8];
    for (digit, shift) in digits.iter_mut().zip((0..32).step_by(4).rev()) {
        *digit = b"0123456789abcdef"[(crc >> shift & 0xf) as usize];
    }
    digits
}

/// What a line says.
enum Line<'a> {
    Header(Header<String>),
    /// JSON that is no header: a change, if it is known.
    Change(&'a str),
}

/// Why a line says nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// It is not whole, or its checksum is wrong.
    Checksum,
    /// Its checksum is right, but it is nothing that this version knows.
    Unknown,
    /// It is the first, and no header.
    NoHeader,
    /// It is a header of another format.
    Format(u32),
}

fn decode(line: &[u8]) -> Result<Line<'_>, Fault> {
    let length = line.len().checked_sub(SEAL_LENGTH).ok_or(Fault::Checksum)?;
    let (json, seal) = line.split_at(length);
    let digits = hex(crc32fast::hash(json));
    if seal[0] != b' ' || seal[1..9] != digits || seal[9] != b'\n' {
        return Err(Fault::Checksum);
    }
    // Once for the line rather than for each string in it: a fifth faster.
    let json = str::from_utf8(json).map_err(|_| Fault::Unknown)?;
    if !json.starts_with(HEADER_START) {
        return Ok(Line::Change(json));
    }
    match serde_json::from_str(json) {
        Ok(HeaderLine::Journal(header)) if header.format == FORMAT => Ok(Line::Header(header)),
        Ok(HeaderLine::Journal(header)) => Err(Fault::Format(header.format)),
        Err(_) => Err(Fault::Unknown),
    }
}

/// What a journal says.
#[derive(Debug, Default)]
pub(super) struct Replay {
    /// The changes, oldest first: of an allocation only the last one, and nothing of one that has
    /// ended. Of an earlier boot than the last one only the assignments.
    pub(super) changes: Vec<Change>,
    /// The boot that the last lines were written in; `None` where no header says it.
    pub(super) boot_id: Option<String>,
    /// How many lines there are.
    pub(super) lines: usize,
    /// How many bytes they have.
    pub(super) length: u64,
    /// How many bytes follow in a torn last line.
    pub(super) torn: u64,
    /// What is wrong besides a torn last line: the predicate of a sentence. Lines and bytes are
    /// not counted to the end then.
    pub(super) damage: Option<String>,
}

/// Reads a journal. Whatever its bytes are, it uses what can be used.
pub(super) fn replay(mut source: impl BufRead) -> io::Result<Replay> {
    let mut replay = Replay::default();
    let mut said = Said::default();
    let mut faults = Faults::default();
    let mut line = Vec::new();
    loop {
        line.clear();
        let length = source.read_until(b'\n', &mut line)? as u64;
        if length == 0 {
            break;
        }
        let number = replay.lines + 1;
        match decode(&line) {
            Ok(Line::Change(json)) => {
                if number == 1 {
                    faults.add(number, Fault::NoHeader);
                }
                if let Err(fault) = said.add(number, json) {
                    faults.add(number, fault);
                }
            }
            Ok(Line::Header(header)) => {
                if number > 1 && replay.boot_id != header.boot_id {
                    // Only another boot puts a header in the middle.
                    said.reboot();
                }
                replay.boot_id = header.boot_id;
            }
            Err(fault @ Fault::Format(_)) => {
                faults.add(number, fault);
                break;
            }
            // The writer was ended, or the machine lost power, in the middle of the last line.
            Err(Fault::Checksum)
                if number > 1 && faults.count == 0 && source.fill_buf()?.is_empty() =>
            {
                replay.torn = length;
                break;
            }
            Err(fault) => faults.add(number, fault),
        }
        replay.lines = number;
        replay.length += length;
    }
    replay.changes = said.into_changes(&mut faults);
    replay.damage = faults.into_predicate();
    Ok(replay)
}

/// What the lines so far say, with their numbers.
///
/// Most allocations of a long journal have ended further down. So the JSON of one is kept, and read
/// only when all lines were: a replay takes less than half the time, and a quarter of the memory.
#[derive(Default)]
struct Said {
    allocations: HashMap<Uuid, Unread>,
    by_port: HashMap<(u16, Transport), Uuid>,
    /// All else.
    changes: Vec<(usize, Change)>,
}

/// The last line of an allocation.
struct Unread {
    head: Head,
    number: usize,
    json: Box<str>,
}

impl Said {
    fn add(&mut self, number: usize, json: &str) -> Result<(), Fault> {
        // What takes the place of another line is understood first: else that one stands.
        if let Some(head) = Head::read(json).filter(|head| !self.replaces(head)) {
            self.insert(head, number, json);
            return Ok(());
        }
        match understand(json)? {
            Change::Allocation(Allocation { lock_id, port, protocol, .. }) => {
                let head = Head { lock_id, port, protocol };
                self.end(lock_id);
                // Where the line is lost that freed the port, the later one is right.
                for port in head.ports() {
                    if let Some(other) = self.by_port.get(&port).copied() {
                        self.end(other);
                    }
                }
                self.insert(head, number, json);
            }
            Change::Released { lock_id, .. } => self.end(lock_id),
            change => self.changes.push((number, change)),
        }
        Ok(())
    }

    fn replaces(&self, head: &Head) -> bool {
        self.allocations.contains_key(&head.lock_id)
            || head.ports().any(|port| self.by_port.contains_key(&port))
    }

    /// Adds the line of an allocation that replaces none.
    fn insert(&mut self, head: Head, number: usize, json: &str) {
        self.by_port.extend(head.ports().map(|port| (port, head.lock_id)));
        self.allocations.insert(head.lock_id, Unread { head, number, json: json.into() });
    }

    fn end(&mut self, lock_id: Uuid) {
        let ended = self.allocations.remove(&lock_id);
        for port in ended.iter().flat_map(|line| line.head.ports()) {
            self.by_port.remove(&port);
        }
    }

    /// What was said before is of an earlier boot.
    fn reboot(&mut self) {
        self.allocations.clear();
        self.by_port.clear();
        self.changes.retain(|(_, change)| change.is_durable());
    }

    /// All of it, oldest first.
    fn into_changes(self, faults: &mut Faults) -> Vec<Change> {
        let mut changes = self.changes;
        for Unread { number, json, .. } in self.allocations.into_values() {
            match understand(&json) {
                Ok(change) => changes.push((number, change)),
                Err(fault) => faults.add(number, fault),
            }
        }
        changes.sort_unstable_by_key(|(number, _)| *number);
        changes.into_iter().map(|(_, change)| change).collect()
    }
}

fn understand(json: &str) -> Result<Change, Fault> {
    serde_json::from_str(json).map_err(|_| Fault::Unknown)
}

/// What makes an allocation end another one.
#[derive(Clone, Copy)]
struct Head {
    lock_id: Uuid,
    port: u16,
    protocol: Protocol,
}

impl Head {
    /// Reads it where the JSON begins as this version writes it, without understanding the rest.
    fn read(json: &str) -> Option<Self> {
        let rest = json.strip_prefix(ALLOCATION_START)?;
        let (lock_id, rest) = rest.split_at_checked(Hyphenated::LENGTH)?;
        let (port, rest) = rest.strip_prefix(r#"","port":"#)?.split_once(',')?;
        let (protocol, _) = rest.strip_prefix(r#""protocol":""#)?.split_once('"')?;
        let protocols = [Protocol::Tcp, Protocol::Udp, Protocol::Both];
        Some(Self {
            lock_id: Uuid::try_parse(lock_id).ok()?,
            port: port.parse().ok()?,
            protocol: protocols.into_iter().find(|it| it.as_str() == protocol)?,
        })
    }

    fn ports(self) -> impl Iterator<Item = (u16, Transport)> {
        transports(self.protocol).map(move |transport| (self.port, transport))
    }
}

/// The faults of a journal: the first, and how many.
#[derive(Default)]
struct Faults {
    first: Option<(usize, Fault)>,
    count: usize,
}

impl Faults {
    fn add(&mut self, line: usize, fault: Fault) {
        let first = self.first.get_or_insert((line, fault));
        if line < first.0 {
            *first = (line, fault);
        }
        self.count += 1;
    }

    fn into_predicate(self) -> Option<String> {
        let (line, fault) = self.first?;
        let first = match fault {
            Fault::Checksum => format!("has a wrong checksum in line {line}"),
            Fault::Unknown => format!("has a record in line {line} that this version doesn't know"),
            Fault::NoHeader => "has no header".to_owned(),
            Fault::Format(format) => {
                format!("has format {format} in line {line}, and this version knows only {FORMAT}")
            }
        };
        Some(match self.count - 1 {
            0 => first,
            1 => format!("{first}, and one more fault"),
            more => format!("{first}, and {more} more faults"),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, json};
    use uuid::Uuid;

    use super::*;
    use crate::registry::{Assignment, AssignmentKey, Instance, Reason, Service};

    fn released(number: u128) -> Change {
        Change::Released { lock_id: Uuid::from_u128(number), reason: Reason::Released }
    }

    fn allocated(number: u128, port: u16) -> Change {
        let lock_id = Uuid::from_u128(number);
        Change::Allocation(Allocation { lock_id, port, ..Allocation::sample() })
    }

    fn assigned(port: u16) -> Change {
        let service = Service::Named("web".to_owned());
        let key = AssignmentKey { project_path: "/p".to_owned(), service };
        Change::Assignment(Assignment {
            key,
            service_type: "dev".to_owned(),
            port,
            last_used_ms: 1,
        })
    }

    fn line(json: &str) -> Vec<u8> {
        let crc = crc32fast::hash(json.as_bytes());
        format!("{json} {crc:08x}\n").into_bytes()
    }

    fn journal(boot_id: &str, changes: &[Change]) -> Vec<u8> {
        let mut bytes = Vec::new();
        encode_header(&mut bytes, boot_id).expect("a header");
        for change in changes {
            encode(&mut bytes, change).expect("a change");
        }
        bytes
    }

    fn read(mut bytes: &[u8]) -> Replay {
        replay(&mut bytes).expect("reading from memory does not fail")
    }

    #[test]
    fn a_line_is_json_and_its_crc() {
        let mut bytes = Vec::new();
        encode(&mut bytes, &released(7)).expect("a change");
        let json = r#"{"released":{"lock_id":"00000000-0000-0000-0000-000000000007","reason":"released"}}"#;
        assert_eq!(bytes, line(json));
        // The check value of CRC-32/ISO-HDLC.
        assert_eq!(&hex(crc32fast::hash(b"123456789")), b"cbf43926");
    }

    #[test]
    fn a_later_boot_voids_all_but_assignments() {
        let mut bytes = journal("one", &[allocated(1, 3000), assigned(3000)]);
        bytes.extend(journal("two", &[allocated(2, 3001)]));
        let replay = read(&bytes);
        assert_eq!(replay.changes, [assigned(3000), allocated(2, 3001)]);
        assert_eq!(replay.boot_id.as_deref(), Some("two"));
        assert_eq!((replay.lines, replay.damage), (5, None));
    }

    #[test]
    fn an_allocation_is_what_its_last_line_says_and_nothing_when_it_has_ended() {
        let changes =
            [allocated(1, 1), allocated(2, 2), allocated(1, 3), released(2), allocated(4, 4)];
        let replay = read(&journal("one", &changes));
        assert_eq!(replay.changes, [allocated(1, 3), allocated(4, 4)]);
        assert_eq!((replay.lines, replay.damage), (6, None));
    }

    /// Somebody got its port since: then the line that says that it ended is the one that is lost.
    #[test]
    fn an_allocation_that_ended_still_says_that_its_port_was_free() {
        let before = journal("one", &[allocated(1, 3000)]);
        let lost = line(r#"{"released":{"lock_id":"00000000"}}"#);
        let after = [allocated(2, 3000), released(2), allocated(3, 3001), allocated(3, 3001)];
        let mut bytes = [before, lost].concat();
        for change in &after {
            encode(&mut bytes, change).expect("a change");
        }
        assert_eq!(read(&bytes).changes, [allocated(3, 3001)]);
    }

    /// It may be of a later version: what stands above it is right then.
    #[test]
    fn an_allocation_that_is_not_understood_replaces_none_and_is_damage() {
        let strange = |number: u128| {
            let json = serde_json::to_string(&allocated(number, 9)).expect("JSON");
            line(&json.replace("tcp", "sctp"))
        };
        let mut bytes = journal("one", &[allocated(1, 1), allocated(2, 2), released(2)]);
        bytes.extend([strange(1), strange(5)].concat());
        let damaged = read(&bytes);
        assert_eq!(damaged.changes, [allocated(1, 1)]);
        let expected = "has a record in line 5 that this version doesn't know, and one more fault";
        assert_eq!(damaged.damage.as_deref(), Some(expected));

        encode(&mut bytes, &allocated(5, 5)).expect("a change");
        assert_eq!(read(&bytes).changes, [allocated(1, 1), allocated(5, 5)]);
    }

    #[test]
    fn nothing_of_a_newer_format_is_used() {
        let mut bytes = line(r#"{"journal":{"format":2,"boots":["one"]}}"#);
        bytes.extend(journal("one", &[assigned(1)]));
        let replay = read(&bytes);
        assert!(replay.changes.is_empty());
        let damage = replay.damage.expect("a newer format is said");
        assert!(damage.contains("format 2") && damage.contains("only 1"), "{damage}");
    }

    #[test]
    fn a_wrong_last_line_is_torn_and_one_before_it_is_damage() {
        let mut bytes = journal("one", &[assigned(1), assigned(2), assigned(3)]);
        let last = bytes.len() - 2;
        bytes[last] ^= 1;
        let torn = read(&bytes);
        assert_eq!(torn.changes, [assigned(1), assigned(2)]);
        assert_eq!(torn.damage, None);
        assert_eq!(torn.length, journal("one", &[assigned(1), assigned(2)]).len() as u64);

        bytes.extend(&journal("one", &[assigned(4)]));
        let damaged = read(&bytes);
        assert_eq!(damaged.changes, [assigned(1), assigned(2), assigned(4)]);
        assert_eq!(damaged.damage.as_deref(), Some("has a wrong checksum in line 4"));
    }

    /// A client may send as much as `serde_json` reads in a request; what is answered must also be
    /// read again from the journal, where it stands one level deeper.
    #[test]
    fn metadata_that_could_not_be_read_again_is_refused() {
        let mut accepted = 0;
        for depth in 118..130 {
            let mut value = json!(1);
            for _ in 0..depth {
                value = json!([value]);
            }
            let change = Change::Instance(Instance {
                instance_id: "deep".to_owned(),
                working_directory: None,
                process: None,
                registered_at_ms: 0,
                metadata: Map::from_iter([("deep".to_owned(), value)]),
            });
            let mut bytes = journal("one", &[]);
            if encode(&mut bytes, &change).is_ok() {
                accepted += 1;
                assert_eq!(read(&bytes).changes, [change], "{depth} levels");
            } else {
                assert_eq!(bytes, journal("one", &[]), "a refused change leaves nothing behind");
            }
        }
        assert!((1..12).contains(&accepted), "{accepted} of 12 depths were accepted");
    }
}
