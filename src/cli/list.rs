//! `styxy list`: who has which port.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::builder::styling::AnsiColor;
use serde_json::Value;

use super::args::List;
use super::context::{Context, project_at, project_here, read};
use super::failure::{Exit, Failed};
use super::feed::{Feed, News};
use super::output::{self, Cell, Table, View, printable, short};
use super::words;
use crate::api::{Allocation, AllocationState, AllocationsResponse};
use crate::coordinator::{Answer, Call};
use crate::project;

/// How long to wait for more of what happens at once.
const TOGETHER: Duration = Duration::from_millis(20);

pub(super) fn run(context: &Context, args: &List) -> Result<ExitCode, Failed> {
    let project = wanted_project(args)?;
    if args.watch {
        return watch(context, project.as_deref());
    }
    let mut answer = context.ask(&Call::Allocations)?;
    if let Some(project) = &project {
        answer.body = only_of(&answer, project)?;
    }
    context.answer(&answer, |list: AllocationsResponse| {
        if list.allocations.is_empty() {
            context.say("styxy: nothing is allocated");
        }
        table(&View::current(), &list.allocations).render(headers(&list.allocations))
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Shows the list whenever it is another one than before: on a terminal in place of the last, else
/// below it.
fn watch(context: &Context, project: Option<&str>) -> Result<ExitCode, Failed> {
    /// Home, and erase what is below (ECMA-48, CUP and ED).
    const CLEAR: &str = "\x1b[H\x1b[J";
    let mut feed = Feed::look_on(context)?;
    let is_terminal = output::stdout_is_terminal() && !context.global.json;
    let mut shown = None;
    loop {
        let mut answer = feed.call(&Call::Allocations)?;
        if let Some(project) = project {
            answer.body = only_of(&answer, project)?;
        }
        let text = if context.global.json {
            format!("{}\n", answer.body.trim_end())
        } else {
            let list: AllocationsResponse = read(&answer)?;
            // Ages grow all the time: only a person who looks at them wants that.
            let table = table(&View::current(), &list.allocations);
            let table = table.render(headers(&list.allocations));
            if is_terminal { format!("{CLEAR}{table}") } else { table }
        };
        let state = if is_terminal { text.clone() } else { answer.body };
        if shown.as_ref() != Some(&state) {
            if !output::print_on(&text)? {
                return Ok(ExitCode::SUCCESS);
            }
            shown = Some(state);
        }
        feed.next(None)?;
        // What happens together is shown together.
        while matches!(feed.next(Some(TOGETHER))?, News::Event(..)) {}
    }
}

/// A header over nothing says nothing.
fn headers(allocations: &[Allocation]) -> bool {
    !allocations.is_empty() && output::stdout_is_terminal()
}

/// The project that the list is limited to.
fn wanted_project(args: &List) -> Result<Option<String>, Failed> {
    if args.here {
        let project = project_here().ok_or_else(|| {
            Failed::new(Exit::Usage, "--here: the working directory is in no project")
                .next("styxy list --project DIR")
        });
        return project.map(Some);
    }
    match &args.project {
        Some(directory) => project_at(Some(directory)),
        None => Ok(None),
    }
}

/// The answer, without the other projects' allocations and otherwise as it came.
fn only_of(answer: &Answer, project: &str) -> Result<String, Failed> {
    let unreadable = |error: serde_json::Error| {
        Failed::new(Exit::Unreachable, format!("the daemon's answer can't be read: {error}"))
    };
    let mut body: Value = serde_json::from_str(&answer.body).map_err(unreadable)?;
    if let Some(list) = body.get_mut("allocations").and_then(Value::as_array_mut) {
        list.retain(|allocation| allocation["project_path"] == project);
    }
    serde_json::to_string(&body).map_err(unreadable)
}

fn table(view: &View, allocations: &[Allocation]) -> Table<6> {
    let mut table = Table::new(["PORT", "STATE", "SERVICE", "PROJECT", "HELD BY", "AGE"]);
    for allocation in allocations {
        let project = allocation.project_path.as_deref();
        table.push([
            port(allocation).into(),
            state(allocation.state),
            words::service_of(allocation).into(),
            project.map_or_else(|| "-".to_owned(), |project| place(view, project)).into(),
            holders(view, allocation).into(),
            view.age(&allocation.allocated_at).into(),
        ]);
    }
    table
}

/// A project's root, with the branch that is checked out there: worktrees look alike.
fn place(view: &View, project: &str) -> String {
    let path = view.path(project);
    match project::branch(Path::new(project)) {
        Some(branch) => format!("{path} ({})", printable(&branch)),
        None => path,
    }
}

/// The port, with its protocol where that is not TCP.
fn port(allocation: &Allocation) -> String {
    use crate::api::Protocol;
    match allocation.protocol {
        Protocol::Tcp => allocation.port.to_string(),
        Protocol::Udp => format!("{}/udp", allocation.port),
        Protocol::Both => format!("{}/both", allocation.port),
    }
}

fn state(state: AllocationState) -> Cell {
    let colour = match state {
        AllocationState::Reserved => AnsiColor::Yellow,
        AllocationState::Listening => AnsiColor::Green,
        AllocationState::Conflict => AnsiColor::Red,
    };
    Cell::coloured(state.as_str(), colour)
}

/// Listener or owner, then the instance and what is left of the lease.
fn holders(view: &View, allocation: &Allocation) -> String {
    let process = match (&allocation.listener, allocation.process_id) {
        (Some(_), _) | (None, Some(_)) => Some(words::keeper(view, allocation)),
        (None, None) => None,
    };
    let instance = allocation.instance_id.as_deref().map(|id| printable(id).into_owned());
    let lease = allocation.expires_at.as_deref().and_then(|end| view.until(end));
    let lease = lease.map(|left| format!("lease {}", short(left)));
    let parts: Vec<String> =
        [process, instance, lease, words::elsewhere(allocation)].into_iter().flatten().collect();
    if parts.is_empty() { "-".to_owned() } else { parts.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::super::words::tests::{view, web};
    use super::*;
    use crate::api::Protocol;

    fn plain(allocations: &[Allocation], with_headers: bool) -> String {
        let text = table(&view(), allocations).render(with_headers);
        anstream::adapter::strip_str(&text).to_string()
    }

    #[test]
    fn a_row_says_port_state_service_project_holder_and_age() {
        let leased = Allocation {
            port: 53,
            protocol: Protocol::Udp,
            service_name: None,
            process_id: None,
            instance_id: Some("editor_a".to_owned()),
            project_path: None,
            expires_at: Some("2026-01-17T18:49:00.000Z".to_owned()),
            state: AllocationState::Reserved,
            listener: None,
            ..web()
        };
        assert_eq!(
            plain(&[leased, web()], true),
            "PORT    STATE      SERVICE  PROJECT     HELD BY             AGE\n\
             53/udp  reserved   dev      -           editor_a, lease 8m  14m\n\
             5173    listening  dev/web  ~/src/shop  vite (pid 812)      14m\n"
        );
        assert_eq!(plain(&[], false), "");
    }

    #[test]
    fn one_projects_list_keeps_fields_that_this_version_does_not_know() {
        let body = r#"{"allocations":[{"port":1,"project_path":"/a","later":7},{"port":2,"project_path":null}],"more":1}"#;
        let answer = Answer { body: body.to_owned(), created: false };
        assert_eq!(
            only_of(&answer, "/a").expect("an answer"),
            r#"{"allocations":[{"port":1,"project_path":"/a","later":7}],"more":1}"#
        );
    }
}
