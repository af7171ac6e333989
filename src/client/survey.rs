//! A look at all there is of a daemon. It starts none: where systemd listens for one that does not
//! run, nobody is asked.

use std::io;

use super::Failure;
use super::discover::{Endpoint, Lookup};
use super::http::Request;
use super::link::{Link, Trouble, clause};
use super::trust::Miss;
use super::units::{Manager, Unit};
use crate::api::{Protocol, StatusResponse};
use crate::config::Config;
use crate::coordinator::{Answer, Call};
use crate::detect::holders::{self, Finder};
use crate::detect::process;
use crate::paths::Paths;
use crate::store::{LockHolder, lock_holder};
use crate::text::printable;

/// What there is now.
#[derive(Debug)]
pub struct Survey {
    /// The units, or why the manager does not tell of them; `None` where no user manager runs.
    pub units: Option<Result<Vec<Unit>, String>>,
    /// The unix socket and the TCP address.
    pub places: [Place; 2],
    /// The process that works on the state, where its lock file says so.
    pub holder: Option<LockHolder>,
}

/// An address that may be a daemon's.
#[derive(Debug)]
pub struct Place {
    /// `unix:/…`, `http://127.0.0.1:9876`.
    pub address: String,
    /// Its port, where it is a TCP address.
    pub port: Option<u16>,
    /// Commands look for a daemon there.
    pub is_asked: bool,
    /// What is there.
    pub found: Found,
}

/// Who is at an address.
#[derive(Debug)]
pub enum Found {
    /// A daemon of this user, with its answer to `GET /status`.
    Daemon(Answer),
    /// systemd listens, and starts the daemon when somebody asks.
    Dormant,
    /// Somebody else: `another program (karma, pid 812) listens on 127.0.0.1:9876`.
    Stranger(String),
    /// Nobody, or nobody who lets us in.
    Nobody(io::Error),
    /// A daemon that does not answer as it should.
    Trouble(Failure),
}

/// How a daemon came to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// As `styxy.service` of the user manager.
    Service,
    /// A command started it.
    Background,
    /// By hand, with `styxy daemon run`.
    Foreground,
}

/// Looks at units, addresses and lock.
///
/// # Errors
///
/// [`Failure::Unreachable`] when the environment names an address that cannot be.
pub fn look(paths: &Paths, config: &Config) -> Result<Survey, Failure> {
    let lookup = Lookup::from_env(paths, config)
        .map_err(|reason| Failure::Unreachable { reason, holder: None })?;
    let units = Manager::running(paths).map(|manager| manager.units());
    let holder = lock_holder(&paths.state_dir);
    let known = units.as_ref().and_then(|units| units.as_deref().ok()).unwrap_or_default();
    let places = endpoints(&lookup, paths, config).map(|endpoint| Place {
        address: endpoint.to_string(),
        port: match &endpoint {
            Endpoint::Tcp(address) => Some(address.port()),
            Endpoint::Unix(_) => None,
        },
        is_asked: lookup.places().contains(&endpoint),
        found: if is_dormant(&endpoint, known) {
            Found::Dormant
        } else {
            ask(&endpoint, holder.as_ref())
        },
    });
    Ok(Survey { units, places, holder })
}

/// The usual addresses, with the one that the environment names instead of its like.
fn endpoints(lookup: &Lookup, paths: &Paths, config: &Config) -> [Endpoint; 2] {
    let unix = Endpoint::Unix(paths.socket.clone());
    let tcp = Endpoint::Tcp(config.daemon.listen);
    match lookup {
        Lookup::Usual(places) => places.clone(),
        Lookup::Named(named @ Endpoint::Tcp(_)) => [unix, named.clone()],
        Lookup::Named(named @ Endpoint::Unix(_)) => [named.clone(), tcp],
    }
}

/// Whether a question would start the service.
fn is_dormant(endpoint: &Endpoint, units: &[Unit]) -> bool {
    let address = match endpoint {
        Endpoint::Tcp(address) => address.to_string(),
        Endpoint::Unix(path) => path.display().to_string(),
    };
    let sleeps = |unit: &Unit| matches!(unit.active.as_str(), "inactive" | "failed");
    units.iter().any(|unit| unit.is_active() && unit.listen.contains(&address))
        && units.iter().any(|unit| unit.is_service() && sleeps(unit))
}

fn ask(endpoint: &Endpoint, holder: Option<&LockHolder>) -> Found {
    let link = match Link::open(endpoint) {
        Ok(link) => link,
        Err(Miss::Nobody(error)) => return silent(endpoint, holder, error),
        Err(Miss::Stranger(who)) => return Found::Stranger(who),
    };
    match link.ask(&Request::from(&Call::Status)) {
        Ok(reply) => match super::answer(&link, reply) {
            Ok(answer) => Found::Daemon(answer),
            Err(failure) => Found::Trouble(failure),
        },
        Err(Trouble::Stranger(who)) => Found::Stranger(who),
        Err(trouble) => Found::Trouble(trouble.into()),
    }
}

/// Nobody who answers. A program that listens on a TCP port and says nothing has it all the same;
/// our own daemon may just be stopped.
fn silent(endpoint: &Endpoint, holder: Option<&LockHolder>, error: io::Error) -> Found {
    let Endpoint::Tcp(address) = endpoint else { return Found::Nobody(error) };
    if error.kind() == io::ErrorKind::ConnectionRefused {
        return Found::Nobody(error);
    }
    let usage = holders::usage(&Finder::default(), address.port(), Protocol::Tcp).ok().flatten();
    let process = usage.as_ref().and_then(|usage| usage.process.as_ref());
    let is_ours = |holder: &LockHolder| process.is_some_and(|process| process.pid == holder.pid);
    match (&usage, process) {
        (None, _) => Found::Nobody(error),
        _ if holder.is_some_and(is_ours) => Found::Nobody(error),
        (_, Some(process)) => Found::Stranger(format!(
            "{} (pid {}) listens on {address} and does not answer",
            printable(&process.name),
            process.pid
        )),
        (Some(usage), None) => Found::Stranger(format!(
            "a program (uid {}) listens on {address} and does not answer",
            usage.uid
        )),
    }
}

impl Survey {
    /// The answer of the daemon that commands would ask.
    ///
    /// # Errors
    ///
    /// [`Failure::Unreachable`] with what is at each address, or what the daemon refused with.
    pub fn status(&self) -> Result<&Answer, Failure> {
        let mut tried = Vec::new();
        let mut holder = None;
        for Place { address, found, .. } in self.places.iter().filter(|place| place.is_asked) {
            match found {
                Found::Daemon(answer) => return Ok(answer),
                Found::Trouble(failure) => return Err(failure.clone()),
                Found::Dormant => {
                    tried.push(format!("{address}: systemd listens, and starts one when asked"));
                }
                Found::Nobody(error) => tried.push(format!("{address}: {}", clause(error))),
                Found::Stranger(who) => {
                    tried.push(who.clone());
                    holder = holder.or_else(|| Some(who.clone()));
                }
            }
        }
        let reason = format!("no daemon answers ({})", tried.join("; "));
        Err(Failure::Unreachable { reason, holder })
    }

    /// The units that the manager has. Empty also where no manager runs, or none answers.
    pub fn known_units(&self) -> &[Unit] {
        self.units.as_ref().and_then(|units| units.as_deref().ok()).unwrap_or_default()
    }

    /// How the daemon that said `status` came to run.
    pub fn kind(&self, status: &StatusResponse) -> Kind {
        let is_service = |unit: &Unit| unit.is_service() && unit.pid == Some(status.pid);
        if status.socket_activated || self.known_units().iter().any(is_service) {
            return Kind::Service;
        }
        let command = process::describe(status.pid).and_then(|process| process.command);
        match command {
            Some(command) if command.split(' ').any(|word| word == "--background") => {
                Kind::Background
            }
            _ => Kind::Foreground,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn socket(listen: &str, active: &str) -> Unit {
        Unit {
            name: "styxy.socket".to_owned(),
            active: active.to_owned(),
            listen: vec![listen.to_owned()],
            ..Unit::default()
        }
    }

    fn service(active: &str) -> Unit {
        Unit { name: "styxy.service".to_owned(), active: active.to_owned(), ..Unit::default() }
    }

    #[test]
    fn whoever_would_be_started_by_a_question_is_not_asked() {
        let tcp = Endpoint::Tcp(([127, 0, 0, 1], 9876).into());
        let unix = Endpoint::Unix("/run/user/1/styxy/styxy.sock".into());
        let [on_tcp, on_unix] = ["127.0.0.1:9876", "/run/user/1/styxy/styxy.sock"];
        let table = [
            (&tcp, socket(on_tcp, "active"), service("inactive"), true),
            (&unix, socket(on_unix, "active"), service("inactive"), true),
            (&unix, socket(on_unix, "active"), service("failed"), true),
            (&tcp, socket(on_tcp, "active"), service("active"), false),
            (&tcp, socket(on_tcp, "active"), service("activating"), false),
            (&tcp, socket(on_tcp, "failed"), service("inactive"), false),
            (&tcp, socket("127.0.0.1:9877", "active"), service("inactive"), false),
        ];
        for (endpoint, socket, service, expected) in table {
            let case = format!("{socket:?} {service:?}");
            assert_eq!(is_dormant(endpoint, &[socket, service]), expected, "{case}");
        }
        assert!(!is_dormant(&tcp, &[]));
    }

    #[test]
    fn where_nobody_answers_every_address_is_named() {
        let place = |address: &str, found| Place {
            address: address.to_owned(),
            port: None,
            is_asked: true,
            found,
        };
        let nobody = || Found::Nobody(io::ErrorKind::ConnectionRefused.into());
        let survey = |places| Survey { units: None, places, holder: None };
        let failure = survey([place("unix:/s", Found::Dormant), place("http://h", nobody())])
            .status()
            .expect_err("nobody answers");
        assert_eq!(
            failure.to_string(),
            "no daemon answers (unix:/s: systemd listens, and starts one when asked; http://h: \
             connection refused)"
        );

        let answer = Answer { body: "{}".to_owned(), created: false };
        let mut places = [place("unix:/s", nobody()), place("http://h", Found::Daemon(answer))];
        assert!(survey(places).status().is_ok());

        let karma = "another program (karma, pid 812) listens on h".to_owned();
        places = [place("unix:/s", nobody()), place("http://h", Found::Stranger(karma.clone()))];
        let failure = survey(places).status().expect_err("nobody answers");
        assert!(matches!(failure, Failure::Unreachable { holder: Some(who), .. } if who == karma));
    }
}
