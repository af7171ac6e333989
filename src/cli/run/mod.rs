//! `styxy run`: a command with a port of its own.

mod exec;
mod nested;
mod plan;
mod reserve;
mod unreserved;

use std::path::Path;
use std::process::ExitCode;

use super::allocate::explain;
use super::args::{DEFAULT_TYPE, Run};
use super::context::{Context, to_json};
use super::failure::Failed;
use super::here::Here;
use super::output::{self, url};
use super::{assigned, words};
use crate::api::{AllocateRequest, Allocation, Assignment};
use crate::client::{Client, Failure};
use crate::project::recognise::{self, HandOver};
use exec::{Named, Place, Start, become_command};
use plan::{Plan, Wanted};
use reserve::{Reserved, reserve};

pub(super) fn run(context: &Context, args: &Run) -> Result<ExitCode, Failed> {
    let here = Here::now(context.settings());
    here.warn(context);
    let root = here.project.as_deref().map(Path::new);
    let runs = recognise::of_command(&args.command, &here.directory, root);
    let plan = Plan::new(args, &here, context.settings(), runs)?;
    if let Some(several) = plan.several {
        context.say(&ports_of_several(several, &plan));
    }
    let mut client = match context.connect() {
        Ok(client) => client,
        Err(failure) => return Err(unreserved::run(context, args, &here, &plan, failure)),
    };
    match prepare(context, &mut client, args, &here, &plan) {
        Ok((start, reserved)) => {
            let failed = become_command(&start);
            reserved.release(&mut client);
            Err(failed)
        }
        Err(failure) if failure.is_own_trouble() => {
            Err(unreserved::run(context, args, &here, &plan, failure))
        }
        Err(failure) => match running(&failure) {
            Some(running) if args.reuse => print_running(context, &running),
            _ => Err(failure.into()),
        },
    }
}

/// Gets all ports, and says which.
fn prepare(
    context: &Context,
    client: &mut Client,
    args: &Run,
    here: &Here,
    plan: &Plan,
) -> Result<(Start, Reserved), Failure> {
    let siblings = siblings(context, client, here)?;
    let outer = nested::inherited(client, args, plan)?;
    let inherited = plan.wanted.iter().map(|wanted| outer.take_over(client, &wanted.request));
    let inherited: Vec<Option<Allocation>> = inherited.collect::<Result<_, _>>()?;
    let missing = plan.wanted.iter().zip(&inherited).filter(|(_, inherited)| inherited.is_none());
    let requests: Vec<AllocateRequest> = missing.map(|(it, _)| it.request.clone()).collect();
    let reserved = reserve(client, requests)?;

    // One answer for each that was missing, in their order.
    let mut made = reserved.answers.iter().map(|answer| &answer.allocation);
    let allocations: Vec<&Allocation> = inherited
        .iter()
        .filter_map(|inherited| inherited.as_ref().or_else(|| made.next()))
        .collect();
    for allocation in &allocations {
        announce(context, &words::service_of(allocation), allocation.port);
    }
    reserved.answers.iter().for_each(|answer| explain(context, answer));
    let ports = allocations.into_iter().map(Place::of).collect();
    Ok((start(context, args, here, plan, ports, &siblings), reserved))
}

/// The ports of the project's services. Without them the command can start all the same.
fn siblings(
    context: &Context,
    client: &mut Client,
    here: &Here,
) -> Result<Vec<Assignment>, Failure> {
    if here.services.is_empty() {
        return Ok(Vec::new());
    }
    match assigned::assign(client, here) {
        Ok(answer) => Ok(answer.assignments),
        Err(failure) if failure.is_own_trouble() => Err(failure),
        Err(failure) => {
            context.say(&format!("warning: the ports of the other services: {failure}"));
            Ok(Vec::new())
        }
    }
}

/// Why a command that starts several programs has no PORT, and what each of them has instead.
fn ports_of_several(name: &str, plan: &Plan) -> String {
    let variables: Vec<&str> =
        plan.wanted.iter().filter_map(|wanted| wanted.variable.as_deref()).collect();
    let instead = match &variables[..] {
        [] => "name their services in styxy.toml, or put styxy run before each of them".to_owned(),
        variables => format!("they have {}", variables.join(", ")),
    };
    format!("styxy: {name} starts several programs, which would all take one PORT: {instead}")
}

/// What the command is started with: `places` are what the plan wanted, in its order.
fn start(
    context: &Context,
    args: &Run,
    here: &Here,
    plan: &Plan,
    places: Vec<Place>,
    siblings: &[Assignment],
) -> Start {
    let lock_ids = places.iter().filter_map(|place| place.lock_id.clone()).collect();
    let owner = places.iter().find_map(|place| place.owner);
    let own_name = |wanted: &Wanted| wanted.request.service_name.clone();
    let named = plan.wanted.iter().zip(&places).filter_map(|(wanted, place)| {
        let variable = wanted.variable.clone();
        Some(Named { name: own_name(wanted)?, variable, port: place.port })
    });
    let mut named: Vec<Named> = named.collect();
    for service in here.services.all() {
        let port = assigned::port_of(siblings, &service.name);
        if let Some(port) = port
            && named.iter().all(|it| it.name != service.name)
        {
            let variable = Some(service.variable.clone());
            named.push(Named { name: service.name.clone(), variable, port });
        }
    }
    let own = places.into_iter().next().filter(|_| plan.has_own);
    let told = own.as_ref().and_then(|own| tell(context, args, plan, own.port));
    let (words, told) = match told {
        Some(told) => (told.words, told.variables),
        None => (args.command.clone(), Vec::new()),
    };
    Start { words, own, told, variable: plan.variable.clone(), named, lock_ids, owner }
}

/// Tells the program its port in the way that it listens to, where that is known.
fn tell(context: &Context, args: &Run, plan: &Plan, port: u16) -> Option<HandOver> {
    let program = plan.program.as_ref()?;
    let service_type = &plan.wanted.first()?.request.service_type;
    if !plan.is_typed && service_type != DEFAULT_TYPE {
        context.say(&format!("  {service_type}: {}", program.why()));
    }
    if args.no_inject {
        return None;
    }
    let told = program.hand_over(&args.command, port);
    if let Some(said) = &told.said {
        context.say(&format!("  {said}"));
    }
    Some(told)
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

#[cfg(test)]
mod tests {
    use super::super::words::tests::web;
    use super::*;
    use crate::error::Error;
    use crate::registry::Probe;

    #[test]
    fn what_runs_already_is_found_in_the_refusal() {
        let error = Error::AlreadyRunning { running: Box::new(web()) };
        let failure = Failure::Refused(Box::new(error.to_response()));
        assert_eq!(running(&failure), Some(web()));
        assert_eq!(running(&reserve::not_held(3000, Probe::Taken)), None);
    }
}
