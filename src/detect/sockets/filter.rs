//! A filter program for sock_diag: the kernel leaves out what is on none of some ranges of ports.
//!
//! The kernel's `include/uapi/linux/inet_diag.h` has the instructions, and `inet_diag_bc_run` and
//! `inet_diag_bc_audit` of its `net/ipv4/inet_diag.c` their meaning. An instruction has a code, and
//! how many bytes to go on if it is true (`yes`) and if not (`no`). A comparison is followed by a
//! second one of which only `no` counts: it is the port. A socket is taken when the program's end
//! is met exactly, and left out when it is overrun by four bytes.

use std::ops::RangeInclusive;

/// An attribute of the request: `INET_DIAG_REQ_BYTECODE`.
const BYTECODE: u16 = 1;

/// `INET_DIAG_BC_JMP`: never true.
const JUMP: u8 = 1;
/// `INET_DIAG_BC_S_GE`: the source port is so high or higher.
const AT_LEAST: u8 = 2;
/// `INET_DIAG_BC_S_LE`: the source port is so high or lower.
const AT_MOST: u8 = 3;

/// Bytes of an instruction.
const SIZE: u8 = 4;
/// Bytes of a comparison.
const COMPARISON: u8 = 2 * SIZE;
/// Bytes for one range.
const RANGE: u16 = 2 * COMPARISON as u16 + SIZE as u16;

/// How many ranges a program has at most: it is run for every socket.
const MOST_RANGES: usize = 32;

/// As few ranges as have all of `ports`, which are in their order, or at most [`MOST_RANGES`] with
/// some more ports in between.
pub(super) fn ranges(ports: impl IntoIterator<Item = u16>) -> Vec<RangeInclusive<u16>> {
    let mut ranges = Vec::new();
    for port in ports {
        add(&mut ranges, port..=port, 1);
    }
    let mut distance = 1;
    while ranges.len() > MOST_RANGES {
        distance *= 2;
        for range in std::mem::take(&mut ranges) {
            add(&mut ranges, range, distance);
        }
    }
    ranges
}

/// Adds a range that is not below the others, to the last of them where it is no farther away.
fn add(ranges: &mut Vec<RangeInclusive<u16>>, next: RangeInclusive<u16>, distance: u16) {
    match ranges.last_mut() {
        Some(last) if next.start().saturating_sub(*last.end()) <= distance => {
            *last = *last.start()..=*next.end();
        }
        _ => ranges.push(next),
    }
}

/// Adds the program to a netlink request. At most [`MOST_RANGES`] ranges, in ascending order.
pub(super) fn append(request: &mut Vec<u8>, ranges: &[RangeInclusive<u16>]) {
    let ranges = &ranges[..ranges.len().min(MOST_RANGES)];
    // Bytes from the range in hand to the program's end.
    let mut left = ranges.iter().map(|_| RANGE).sum::<u16>();
    // The attribute's head: its length with that, and its type.
    request.extend((left + 4).to_ne_bytes());
    request.extend(BYTECODE.to_ne_bytes());
    let mut put = |code: u8, yes: u8, no: u16| {
        request.extend([code, yes]);
        request.extend(no.to_ne_bytes());
    };
    for range in ranges {
        // To the next range, or beyond the end.
        let next = if left == RANGE { RANGE + u16::from(SIZE) } else { RANGE };
        put(AT_LEAST, COMPARISON, next);
        put(0, 0, *range.start());
        put(AT_MOST, COMPARISON, next - u16::from(COMPARISON));
        put(0, 0, *range.end());
        // To the end: it is taken.
        put(JUMP, SIZE, left - 2 * u16::from(COMPARISON));
        left -= RANGE;
    }
    // The message's own length stands at its beginning (netlink(7)).
    if let Ok(length) = u32::try_from(request.len())
        && let Some(place) = request.get_mut(..4)
    {
        place.copy_from_slice(&length.to_ne_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_one_range() {
        assert_eq!(ranges([]), []);
        assert_eq!(ranges([80]), [80..=80]);
        assert_eq!(ranges([1, 1, 2, 3, 5, 65_534, 65_535]), [1..=3, 5..=5, 65_534..=65_535]);
    }

    #[test]
    fn there_are_never_too_many_ranges() {
        for step in [2, 3, 10, 100, 1000] {
            let ports: Vec<u16> = (1..=u16::MAX).step_by(step).collect();
            let ranges = ranges(ports.iter().copied());
            assert!(ranges.len() <= MOST_RANGES, "{step}: {}", ranges.len());
            assert!(ranges.is_sorted_by(|one, next| one.end() < next.start()), "{step}");
            let is_in = |port| ranges.iter().any(|range| range.contains(port));
            assert!(ports.iter().all(is_in), "{step}");
        }
    }
}
