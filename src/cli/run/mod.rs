//! `styxy run`: a command with a port of its own.

use std::os::fd::OwnedFd;
use std::process::ExitCode;

use serde_json::{Map, json};

use super::allocate::{explain, explain_notes};
use super::args::{DEFAULT_TYPE, Run};
use super::context::{Context, project_here, read, to_json};
use super::exec::{Place, become_command};
use super::failure::{Exit, Failed};
use super::output::{self, url};
use super::owner::{Owner, new_lock_id};
use super::{nested, words};
use crate::api::{AllocateRequest, AllocateResponse, Allocation, IfRunning, Protocol};
use crate::client::fallback::{Fallback, Picked};
use crate::client::{Client, Failure};
use crate::config::Config;
use crate::coordinator::Call;
use crate::detect::ports;
use crate::error::{self, Error};
use crate::registry::Probe;

/// How often to ask again when somebody else took the port between the answer and the bind.
const ATTEMPTS: usize = 5;

pub(super) fn run(context: &Context, args: &Run) -> Result<ExitCode, Failed> {
    let request = request(args, project_here());
    let mut client = match context.connect() {
        Ok(client) => client,
        Err(failure) => return Err(run_unreserved(context, args, &request, failure)),
    };
    if let Some(outer) = nested::inherited(&mut client, args, request.project_path.as_deref()) {
        announce(context, &words::service_of(&outer), outer.port);
        return Err(become_command(&args.command, &args.env, &Place::of(&outer)));
    }
    match reserve(&mut client, request.clone()) {
        Ok(reserved) => Err(run_reserved(context, args, client, reserved)),
        Err(failure) if failure.is_own_trouble() => {
            Err(run_unreserved(context, args, &request, failure))
        }
        Err(failure) => match running(&failure) {
            Some(running) if args.reuse => print_running(context, &running),
            _ => Err(failure.into()),
        },
    }
}

/// What to ask for. This process is the owner: it becomes the command.
fn request(args: &Run, project: Option<String>) -> AllocateRequest {
    let mut request = AllocateRequest {
        service_type: args.service.as_deref().unwrap_or(DEFAULT_TYPE).to_owned(),
        service_name: args.name.clone(),
        preferred_port: args.port,
        instance_id: std::env::var("STYXY_INSTANCE").ok().filter(|id| !id.is_empty()),
        project_path: project,
        lock_id: Some(new_lock_id()),
        if_running: if_running(args),
        ..AllocateRequest::default()
    };
    Owner::this_process().fill(&mut request);
    request
}

/// An unnamed service starts beside what runs. `--reuse` wants no more of what runs than its URL, and
/// the refusal has that.
fn if_running(args: &Run) -> IfRunning {
    match args.name {
        Some(_) if !args.another => IfRunning::Refuse,
        _ => IfRunning::Another,
    }
}

/// A port that is allocated, and bound so that nobody gets in between.
#[derive(Debug)]
struct Reserved {
    answer: AllocateResponse,
    sockets: Vec<OwnedFd>,
}

/// Asks for a port and binds it, until both succeed.
fn reserve(client: &mut Client, mut request: AllocateRequest) -> Result<Reserved, Failure> {
    let mut attempts = 1;
    loop {
        let answer: AllocateResponse = read(&client.call(&Call::Allocate(request.clone()))?)?;
        let probe = match ports::hold(answer.port, Protocol::Tcp) {
            Ok(sockets) => return Ok(Reserved { answer, sockets }),
            Err(probe) => probe,
        };
        release(client, &answer.lock_id);
        if attempts == ATTEMPTS {
            return Err(not_held(answer.port, probe));
        }
        attempts += 1;
        request.lock_id = Some(new_lock_id());
    }
}

/// Each port that was allocated could not be bound here.
fn not_held(port: u16, probe: Probe) -> Failure {
    let reason = match probe {
        Probe::Forbidden => "may not be bound by this user",
        Probe::Free | Probe::Taken => "was taken at once by somebody else, as were those before it",
    };
    let context = Map::from_iter([("suggestions".to_owned(), json!(["the same again"]))]);
    let refusal = error::response("port_unavailable", &format!("port {port} {reason}"), context);
    Failure::Refused(Box::new(refusal))
}

/// Gives a port back that this process can't use. When that fails, the end of this process, its
/// owner, does the same.
fn release(client: &mut Client, lock_id: &str) {
    drop(client.call(&Call::Release(lock_id.to_owned())));
}

/// Becomes the command, or gives the port back and says why not.
fn run_reserved(context: &Context, args: &Run, mut client: Client, reserved: Reserved) -> Failed {
    let Reserved { answer, sockets } = reserved;
    announce(context, &words::service_of(&answer.allocation), answer.port);
    explain(context, &answer);
    let failed = become_command(&args.command, &args.env, &Place::of(&answer.allocation));
    drop(sockets);
    release(&mut client, &answer.lock_id);
    failed
}

/// The one line that a person is told.
fn announce(context: &Context, service: &str, port: u16) {
    context.say(&format!("styxy: port {port} ({service})  {}", url(port)));
}

/// The allocation of what runs already, if that is why there is no port.
fn running(failure: &Failure) -> Option<Allocation> {
    match failure {
        Failure::Refused(refusal) if refusal.code == "already_running" => {
            serde_json::from_value(refusal.context.get("running")?.clone()).ok()
        }
        _ => None,
    }
}

/// `--reuse`: says where the service runs.
fn print_running(context: &Context, running: &Allocation) -> Result<ExitCode, Failed> {
    if context.global.json {
        output::print_json(&to_json(running)?)?;
    } else {
        output::print(&format!("{}\n", url(running.port)))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Becomes the command on a port that is free but not reserved, unless that is not wanted: Styxy must
/// never be the reason that a server can't start.
fn run_unreserved(
    context: &Context,
    args: &Run,
    request: &AllocateRequest,
    failure: Failure,
) -> Failed {
    if args.require {
        return Failed::from(failure).exit(Exit::Unreachable);
    }
    let Picked { port, held, notes } = match pick(context, request) {
        Ok(picked) => picked,
        Err(error) => return Failure::Refused(Box::new(error.to_response())).into(),
    };
    context.say(&format!("warning: not reserved ({failure})"));
    let name = request.service_name.as_deref();
    announce(context, &words::service(&request.service_type, name), port);
    explain_notes(context, &notes);
    let place = Place { port, lock_id: None, name: request.service_name.clone() };
    let failed = become_command(&args.command, &args.env, &place);
    drop(held);
    failed
}

/// Picks a port without a reservation: the service's own, if the journal can be read.
fn pick(context: &Context, request: &AllocateRequest) -> Result<Picked, Error> {
    let mut fallback = match Context::paths() {
        Ok(paths) => Fallback::new(context.config(&paths)).with_assignments(&paths.state_dir),
        Err(_) => Fallback::new(&Config::built_in()),
    };
    fallback.pick(request)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::args::{Cli, Command};
    use super::super::words::tests::web;
    use super::*;

    fn args(line: &[&str]) -> Run {
        let line = [&["styxy", "run"], line, &["true"]].concat();
        match Cli::try_parse_from(line).expect("it parses").command {
            Command::Run(args) => args,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn only_a_named_service_is_refused_when_it_runs_already() {
        let table: [(&[&str], IfRunning); 5] = [
            (&[], IfRunning::Another),
            (&["--reuse"], IfRunning::Another),
            (&["-n", "web"], IfRunning::Refuse),
            (&["-n", "web", "--reuse"], IfRunning::Refuse),
            (&["-n", "web", "--another"], IfRunning::Another),
        ];
        for (line, expected) in table {
            assert_eq!(if_running(&args(line)), expected, "{line:?}");
        }
    }

    #[test]
    fn what_runs_already_is_found_in_the_refusal() {
        let error = Error::AlreadyRunning { running: Box::new(web()) };
        let failure = Failure::Refused(Box::new(error.to_response()));
        assert_eq!(running(&failure), Some(web()));
        assert_eq!(running(&not_held(3000, Probe::Taken)), None);
    }
}
