//! Which ports are tried for a request, in which order, and which are skipped.

use std::ops::RangeInclusive;

use super::Registry;
use super::machine::{Machine, Probe, Publisher};
use super::model::AssignmentKey;
use super::policy::NEAR_WISH;
use crate::api::Protocol;
use crate::config::ServiceType;

/// Why a port is a candidate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// Asked for by number.
    Wish,
    /// The service's assignment.
    Assigned,
    /// Anything else: close to a wish, preferred by the type, or in a range.
    Pick,
}

/// Why a candidate was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Skip {
    /// Never handed out; the end of a sentence that begins with the port.
    Never(&'static str),
    /// An allocation has it.
    Allocated,
    /// It is another service's assignment.
    Assigned(AssignmentKey),
    /// Somebody has it, whom the registry does not know.
    Taken,
    /// A container has it, or will have it.
    Published(Box<Publisher>),
    /// This user may not bind it.
    Forbidden,
}

impl Skip {
    /// Whether somebody has the port now whom the registry does not know.
    pub(super) fn is_taken(&self) -> bool {
        match self {
            Self::Taken => true,
            Self::Published(publisher) => publisher.running,
            Self::Never(_) | Self::Allocated | Self::Assigned(_) | Self::Forbidden => false,
        }
    }
}

/// What a port is looked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Search<'a> {
    pub(super) service_type: &'a ServiceType,
    pub(super) protocol: Protocol,
    pub(super) wish: Option<u16>,
    pub(super) assigned: Option<u16>,
    pub(super) key: Option<&'a AssignmentKey>,
    /// Ports that are not picked: whoever asks knows others that are to have them.
    pub(super) avoid: &'a [u16],
    /// Where in a range to begin, so that services spread and find their own again.
    pub(super) seed: u32,
}

impl Search<'_> {
    /// The candidates in order: a pure function of the search.
    pub(super) fn candidates(
        &self,
        overflow: &RangeInclusive<u16>,
    ) -> impl Iterator<Item = (u16, Origin)> + use<'_> {
        let pick = |port| (port, Origin::Pick);
        let near = self
            .wish
            .into_iter()
            .flat_map(|wish| wish.saturating_add(1)..=wish.saturating_add(NEAR_WISH));
        let wish = self.wish.map(|port| (port, Origin::Wish));
        let assigned = self.assigned.map(|port| (port, Origin::Assigned));
        let preferred = self.service_type.preferred_ports.iter().copied();
        let range = self.service_type.port_range.clone();
        let range = range.into_iter().flat_map(|range| rotated(range, self.seed));
        let rest = near.chain(preferred).chain(range).chain(rotated(overflow.clone(), self.seed));
        let rest = rest.filter(|port| !self.avoid.contains(port));
        wish.into_iter().chain(assigned).chain(rest.map(pick))
    }
}

/// The ports of `range`, beginning somewhere inside and going round.
fn rotated(range: RangeInclusive<u16>, seed: u32) -> impl Iterator<Item = u16> {
    let (first, last) = (*range.start(), *range.end());
    let length = u32::from(last).saturating_sub(u32::from(first)) + 1;
    // The remainder is below the length of a range of ports.
    let start = first + u16::try_from(seed % length).unwrap_or_default();
    (start..=last).chain(first..start)
}

/// Where a service begins in its range: the same in every process and on every machine.
pub(super) fn seed(project: Option<&str>, service: &str, slot: Option<u32>) -> u32 {
    let mut hash = crc32fast::Hasher::new();
    hash.update(project.unwrap_or_default().as_bytes());
    hash.update(b"\0");
    hash.update(service.as_bytes());
    hash.update(&slot.unwrap_or_default().to_le_bytes());
    hash.finalize()
}

impl Registry {
    /// Whether `port` can be given to this search now, by all rules and the machine's word.
    pub(super) fn try_port(
        &self,
        port: u16,
        origin: Origin,
        search: &Search<'_>,
        machine: &mut impl Machine,
    ) -> Result<(), Skip> {
        if let Some(reason) = self.policy.forbids(port) {
            return Err(Skip::Never(reason));
        }
        if self.tables.is_allocated(port, search.protocol) {
            return Err(Skip::Allocated);
        }
        if origin != Origin::Wish
            && let Some(other) = self.tables.assigned_to_other(port, search.key)
            && machine.directory_exists(&other.project_path)
        {
            return Err(Skip::Assigned(other.clone()));
        }
        // What a stopped container will want is left to it, by who could have any other as well.
        if let Some(publisher) = machine.publisher(port, search.protocol)
            && (publisher.running || origin == Origin::Pick)
        {
            return Err(Skip::Published(Box::new(publisher)));
        }
        match machine.probe(port, search.protocol) {
            Probe::Free => Ok(()),
            Probe::Taken => Err(Skip::Taken),
            Probe::Forbidden => Err(Skip::Forbidden),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_gone_round_once() {
        let ports: Vec<u16> = rotated(10..=14, 3).collect();
        assert_eq!(ports, [13, 14, 10, 11, 12]);
        assert_eq!(rotated(0..=u16::MAX, u32::MAX).count(), 65536);
        assert_eq!(rotated(7..=7, 99).collect::<Vec<_>>(), [7]);
    }

    #[test]
    fn candidates_come_in_the_documented_order() {
        let service_type = ServiceType {
            preferred_ports: vec![3000, 8000],
            port_range: Some(8001..=8002),
            ..ServiceType::default()
        };
        let search = Search {
            service_type: &service_type,
            protocol: Protocol::Tcp,
            wish: Some(65530),
            assigned: Some(4000),
            key: None,
            avoid: &[65533, 8000, 65530, 4000],
            seed: 0,
        };
        let order: Vec<_> = search.candidates(&(20000..=20001)).collect();
        let (head, tail) = order.split_at(2);
        assert_eq!(head, [(65530, Origin::Wish), (4000, Origin::Assigned)]);
        let ports: Vec<u16> = tail.iter().map(|(port, _)| *port).collect();
        let near = [65531, 65532, 65534, 65535];
        assert_eq!(ports, [&near[..], &[3000, 8001, 8002, 20000, 20001]].concat());
    }
}
