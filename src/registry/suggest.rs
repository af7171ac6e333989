//! Free ports for who only wants to know. Nothing is reserved.

use super::Registry;
use super::candidates::{Origin, Search};
use super::machine::Machine;
use super::policy::NEAR_WISH;
use crate::api::{Protocol, Reasoned};
use crate::config::ServiceType;
use crate::error::Error;

/// Free ports, and why not the one wished for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suggestions {
    /// The likeliest pick first, each with what speaks for it.
    pub ports: Vec<Reasoned>,
    /// Why the port wished for is not among them.
    pub note: Option<String>,
}

impl Registry {
    /// At most `count` free ports for a service type, those near `wish` first.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownServiceType`].
    pub fn suggest(
        &self,
        name: &str,
        wish: Option<u16>,
        count: usize,
        machine: &mut impl Machine,
    ) -> Result<Suggestions, Error> {
        let service_type = self.service_type(name)?;
        let search = Search {
            service_type,
            protocol: Protocol::Tcp,
            wish,
            assigned: None,
            key: None,
            avoid: &[],
            seed: 0,
        };
        let mut ports: Vec<Reasoned> = Vec::with_capacity(count);
        let mut note = None;
        for (port, origin) in search.candidates(&self.policy.overflow) {
            if ports.len() == count {
                break;
            }
            if ports.iter().any(|it| it.port == port) {
                continue;
            }
            match self.try_port(port, origin, &search, machine) {
                Ok(()) => ports.push(Reasoned { port, reason: reason(port, &search, name) }),
                Err(skip) if origin == Origin::Wish => {
                    note = Some(format!("port {port} {}", self.tell(port, &skip, search.protocol)));
                }
                Err(_) => {}
            }
        }
        Ok(Suggestions { ports, note })
    }
}

/// What speaks for a candidate, in the order in which they are tried.
fn reason(port: u16, search: &Search<'_>, name: &str) -> String {
    let ServiceType { preferred_ports, port_range, .. } = search.service_type;
    let near = |wish: &u16| (*wish..=wish.saturating_add(NEAR_WISH)).contains(&port);
    match (search.wish.filter(near), port_range) {
        (Some(wish), _) if wish == port => "the port wished for".to_owned(),
        (Some(wish), _) => format!("close to {wish}"),
        (None, _) if preferred_ports.contains(&port) => format!("preferred for {name}"),
        (None, Some(range)) if range.contains(&port) => {
            format!("in the range of {name}, {}-{}", range.start(), range.end())
        }
        (None, _) => "in the overflow range, which is for every type".to_owned(),
    }
}
