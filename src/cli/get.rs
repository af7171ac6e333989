//! `styxy get`: the port of a service of this project.

use std::process::ExitCode;

use serde::Serialize;

use super::args::Get;
use super::assigned::assign;
use super::context::{Context, read, to_json};
use super::failure::{Exit, Failed};
use super::here::Here;
use super::output::{self, View, url};
use crate::api::{
    Allocation, AllocationState, AllocationsResponse, Assignment, AssignmentsResponse,
};
use crate::coordinator::Call;

pub(super) fn run(context: &Context, args: &Get) -> Result<ExitCode, Failed> {
    let here = Here::now(context.settings());
    here.warn(context);
    let project = here.project.clone();
    let mut client = context.connect()?;
    let AllocationsResponse { allocations } = read(&client.call(&Call::Allocations)?)?;
    if let Some(live) = live(&allocations, project.as_deref(), &args.name) {
        return show(context, args, live.port, live);
    }
    if let Some(project) = &project {
        // What styxy.toml names has a port, also before it ran for the first time.
        let assignments = if here.services.named(&args.name).is_some() {
            assign(&mut client, &here)?.assignments
        } else {
            let call = Call::Assignments(Some(project.clone()));
            read::<AssignmentsResponse>(&client.call(&call)?)?.assignments
        };
        if let Some(assigned) = assigned(&assignments, project, &args.name) {
            context.say(&format!("styxy: {} doesn't run now", args.name));
            return show(context, args, assigned.port, assigned);
        }
    }
    Err(unknown(project.as_deref(), &args.name))
}

/// The live allocation of that service: the one that listens, or else the newest.
fn live<'a>(
    allocations: &'a [Allocation],
    project: Option<&str>,
    name: &str,
) -> Option<&'a Allocation> {
    let of_service = allocations.iter().filter(|allocation| {
        allocation.service_name.as_deref() == Some(name)
            && allocation.project_path.as_deref() == project
    });
    // Times of the wire are of one form (RFC 3339 UTC with milliseconds), so text order is theirs.
    of_service.max_by_key(|allocation| {
        (allocation.state == AllocationState::Listening, allocation.allocated_at.as_str())
    })
}

fn assigned<'a>(
    assignments: &'a [Assignment],
    project: &str,
    name: &str,
) -> Option<&'a Assignment> {
    assignments.iter().find(|assignment| {
        assignment.project_path == project && assignment.service_name.as_deref() == Some(name)
    })
}

/// Prints the port, or what it was found in where JSON is wanted.
fn show(
    context: &Context,
    args: &Get,
    port: u16,
    found: &impl Serialize,
) -> Result<ExitCode, Failed> {
    if context.global.json {
        output::print_json(&to_json(found)?)?;
    } else if args.url {
        output::print(&format!("{}\n", url(port)))?;
    } else {
        output::print(&format!("{port}\n"))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn unknown(project: Option<&str>, name: &str) -> Failed {
    let place = match project {
        Some(project) => format!("in {}", View::current().path(project)),
        None => "outside of any project".to_owned(),
    };
    Failed::new(Exit::No, format!("no service '{name}' is known {place}"))
        .next(format!("styxy run -n {name} -- COMMAND    (styxy list shows what runs)"))
}

#[cfg(test)]
mod tests {
    use super::super::words::tests::web;
    use super::*;

    fn made(port: u16, time: &str, state: AllocationState) -> Allocation {
        Allocation { port, allocated_at: time.to_owned(), state, ..web() }
    }

    #[test]
    fn the_one_that_listens_counts_and_then_the_newest() {
        use AllocationState::{Listening, Reserved};
        let shop = web().project_path;
        let find = |all: &[Allocation], name| {
            live(all, shop.as_deref(), name).map(|allocation| allocation.port)
        };
        let old = made(1, "2026-01-17T18:00:00.000Z", Listening);
        let new = made(2, "2026-01-17T18:30:00.000Z", Reserved);
        let newest = made(3, "2026-01-17T18:30:00.001Z", Reserved);
        assert_eq!(find(&[old.clone(), new.clone(), newest.clone()], "web"), Some(1));
        assert_eq!(find(&[newest, new], "web"), Some(3));
        assert_eq!(find(std::slice::from_ref(&old), "api"), None);
        let elsewhere = Allocation { project_path: None, ..old };
        assert_eq!(find(std::slice::from_ref(&elsewhere), "web"), None);
        assert!(live(&[elsewhere], None, "web").is_some());
    }
}
