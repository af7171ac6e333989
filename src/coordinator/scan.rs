//! `GET /scan`: every port of a range that is allocated or used.

use std::collections::BTreeMap;

use super::holder::Projects;
use super::{Coordinator, now};
use crate::api::{PortInUse, ScanResponse, SystemUsage};
use crate::detect::sockets;
use crate::error::Error;

/// A port with one transport protocol; TCP sorts before UDP.
type Place = (u16, bool);

impl Coordinator {
    /// `GET /scan`. Slow: it looks through /proc, once for all sockets.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidValue`] for a range that ends before it begins.
    pub fn scan(&self, start: u16, end: u16) -> Result<ScanResponse, Error> {
        if end < start {
            return Err(Error::invalid("end", format!("{end} is below start, which is {start}")));
        }
        self.ask_engines_if_old();
        // As a daemon answers it: the allocations are as they are now.
        self.lock().glance();
        let mut in_use = BTreeMap::<Place, PortInUse>::new();
        for (place, system_usage) in self.servers(start, end) {
            let entry = in_use.entry(place).or_insert_with(|| nobody(place.0));
            // Of several sockets one whose process can be seen.
            let is_better = entry.system_usage.as_ref().is_none_or(|it| it.process.is_none());
            if is_better {
                entry.system_usage = Some(system_usage);
            }
        }
        let mut projects = Projects::default();
        let used = in_use.values_mut().filter_map(|entry| entry.system_usage.as_mut());
        used.for_each(|usage| projects.add_to(usage));
        self.add_allocations(start, end, &mut in_use);
        let scan_range = format!("{start}-{end}");
        Ok(ScanResponse { scan_range, ports_in_use: in_use.into_values().collect() })
    }

    /// Who serves on which port: those with a socket, then the containers that a port is published
    /// for without one. What the walk finds is news for the allocations too.
    fn servers(&self, start: u16, end: u16) -> Vec<(Place, SystemUsage)> {
        let mut sockets = sockets::serving().unwrap_or_else(|error| {
            tracing::warn!("can't see who listens: {error}");
            Vec::new()
        });
        sockets.retain(|socket| (start..=end).contains(&socket.local.port()));
        let usages = self.name_these(&sockets).usages(&sockets);
        let inner = self.lock();
        let explained = sockets.iter().zip(usages).filter_map(|(socket, usage)| {
            let place = (socket.local.port(), socket.protocol.has_udp());
            Some((place, inner.host.explain(place.0, socket.protocol, Some(usage))?))
        });
        explained
            .chain(
                inner
                    .host
                    .published(start..=end)
                    .map(|(port, usage)| ((port, usage.protocol.has_udp()), usage)),
            )
            .collect()
    }

    /// A port that is allocated is in use, whether or not anybody listens there yet.
    fn add_allocations(&self, start: u16, end: u16, in_use: &mut BTreeMap<Place, PortInUse>) {
        let inner = self.lock();
        let now = now();
        let registry = &inner.registry;
        let in_range = |port| (start..=end).contains(&port);
        for allocation in registry.allocations().filter(|it| in_range(it.port)) {
            let (port, protocol) = (allocation.port, allocation.protocol);
            let shown = registry.show(allocation.lock_id, now);
            let mut is_used = false;
            for place in [(port, false), (port, true)] {
                let is_its = if place.1 { protocol.has_udp() } else { protocol.has_tcp() };
                if let (true, Some(entry)) = (is_its, in_use.get_mut(&place)) {
                    entry.allocated_to.clone_from(&shown);
                    is_used = true;
                }
            }
            if !is_used {
                let place = (port, !protocol.has_tcp());
                in_use.entry(place).or_insert_with(|| nobody(port)).allocated_to = shown;
            }
        }
    }
}

fn nobody(port: u16) -> PortInUse {
    PortInUse { port, allocated_to: None, system_usage: None }
}
