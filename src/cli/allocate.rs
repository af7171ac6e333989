//! `styxy allocate`: a port for whoever asks.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use super::args::{Allocate, DEFAULT_TYPE};
use super::assigned::assign;
use super::context::{Context, read};
use super::failure::{Exit, Failed};
use super::here::Here;
use super::output::{self, View, url};
use super::owner::{Owner, new_lock_id};
use super::{shell, words};
use crate::api::{AllocateRequest, AllocateResponse, BatchRequest, BatchResponse, IfRunning};
use crate::client::Failure;
use crate::config::Config;
use crate::coordinator::{Answer, Call};
use crate::project::recognise::{self, Recognised};
use crate::project::variable_of;

/// How long `--wait` pauses before it asks again.
const PAUSE: Duration = Duration::from_millis(250);

pub(super) fn run(context: &Context, args: &Allocate) -> Result<ExitCode, Failed> {
    check_usage(args)?;
    let here = Here::at(args.project.as_deref(), context.settings())?;
    here.warn(context);
    let recognised = recognised(args, &here, context.settings());
    let requests = requests(args, &here, context.settings(), recognised.as_ref());
    if !args.dry_run {
        prefer_declared(context, &here, &requests)?;
    }
    let call = call(requests);
    let answer = ask_until(context, &call, args.wait)?;
    if context.global.json {
        output::print_json(&answer.body)?;
        return Ok(ExitCode::SUCCESS);
    }
    let allocated = match call {
        Call::AllocateBatch(_) => read::<BatchResponse>(&answer)?.allocations,
        _ => vec![read::<AllocateResponse>(&answer)?],
    };
    output::print(&answer_text(args, &allocated))?;
    for answer in &allocated {
        announce(context, answer, args.dry_run);
    }
    if let Some(recognised) = recognised.filter(|it| it.service_type() != DEFAULT_TYPE) {
        context.say(&format!("  {}: {}", recognised.service_type(), recognised.why()));
    }
    Ok(ExitCode::SUCCESS)
}

/// What clap cannot check.
fn check_usage(args: &Allocate) -> Result<(), Failed> {
    if args.exact && (args.names.len() > 1 || args.count.is_some_and(|count| count > 1)) {
        let fact = "--exact is for one port, and several are asked for";
        return Err(Failed::new(Exit::Usage, fact));
    }
    if !args.shell {
        return Ok(());
    }
    let mut variables = BTreeMap::new();
    for name in &args.names {
        if let Some(other) = variables.insert(variable_of(name), name) {
            let fact = format!("{other} and {name} would be the same variable");
            return Err(Failed::new(Exit::Usage, fact));
        }
    }
    Ok(())
}

/// What the project is, where neither a type nor a name says what the port is for.
fn recognised(args: &Allocate, here: &Here, config: &Config) -> Option<Recognised> {
    let meant = here.meant(args.service.as_deref(), None, config);
    if meant.service_type.is_some() || !args.names.is_empty() {
        return None;
    }
    let root = Path::new(here.project.as_deref()?);
    // Whoever names the project from elsewhere is in none of its directories.
    let directory = if args.project.is_some() { root } else { &here.directory };
    recognise::of_directory(directory, Some(root))
}

/// One request for each port.
fn requests(
    args: &Allocate,
    here: &Here,
    config: &Config,
    recognised: Option<&Recognised>,
) -> Vec<AllocateRequest> {
    let default_type = recognised.map_or(DEFAULT_TYPE, Recognised::service_type);
    let mut request = AllocateRequest {
        preferred_port: args.port,
        exact: args.exact,
        instance_id: args.instance.id().map(str::to_owned),
        project_path: here.project.clone(),
        lease_seconds: args.lease,
        protocol: args.protocol.into(),
        if_running: IfRunning::Another,
        dry_run: args.dry_run,
        ..AllocateRequest::default()
    };
    // An instance holds what was made without an owner.
    let owner = match (args.pid, &request.instance_id) {
        (Some(pid), _) => Some(Owner::named(pid)),
        (None, Some(_)) => None,
        (None, None) => Owner::parent(),
    };
    if let Some(owner) = owner {
        owner.fill(&mut request);
    }
    let one = |name: Option<&str>| {
        let meant = here.meant(args.service.as_deref(), name, config);
        let service_type = meant.service_type.unwrap_or_else(|| default_type.to_owned());
        // Whoever asks for a number asks for no port again.
        let package = || here.package_name(&service_type).filter(|_| args.port.is_none());
        let service_name = meant.name.or_else(package);
        AllocateRequest {
            avoid_ports: here.ports_of_others(service_name.as_deref()),
            service_name,
            service_type,
            lock_id: Some(new_lock_id()),
            ..request.clone()
        }
    };
    match args.count {
        // Several of one service are not that service.
        Some(count) => {
            let unnamed = || AllocateRequest { service_name: None, ..one(None) };
            (0..count).map(|_| unnamed()).collect()
        }
        None if args.names.is_empty() => vec![one(None)],
        None => args.names.iter().map(|name| one(Some(name))).collect(),
    }
}

/// Gives the services of styxy.toml their assignments, so that one which is asked for the first time
/// gets the port that stands there.
fn prefer_declared(
    context: &Context,
    here: &Here,
    requests: &[AllocateRequest],
) -> Result<(), Failure> {
    let mut names = requests.iter().filter_map(|request| request.service_name.as_deref());
    if names.any(|name| here.services.named(name).is_some()) {
        assign(&mut context.connect()?, here)?;
    }
    Ok(())
}

/// Several requests are all granted or none.
fn call(mut requests: Vec<AllocateRequest>) -> Call {
    match requests.pop() {
        Some(only) if requests.is_empty() => Call::Allocate(only),
        last => {
            requests.extend(last);
            Call::AllocateBatch(BatchRequest { requests })
        }
    }
}

/// Asks until there is a port, or `patience` is at its end.
fn ask_until(
    context: &Context,
    call: &Call,
    patience: Option<Duration>,
) -> Result<Answer, Failure> {
    let started = Instant::now();
    loop {
        // A client that works on the journal has its lock, so none is kept during a pause.
        let refusal = match context.ask(call) {
            Err(Failure::Refused(refusal)) if may_pass(&refusal.code) => refusal,
            answer => return answer,
        };
        let left = patience.unwrap_or_default().saturating_sub(started.elapsed());
        if left.is_zero() {
            return Err(Failure::Refused(refusal));
        }
        std::thread::sleep(PAUSE.min(left));
    }
}

/// Whether waiting may help.
fn may_pass(code: &str) -> bool {
    matches!(code, "range_exhausted" | "port_unavailable")
}

/// What a person wants to know besides the port.
fn announce(context: &Context, answer: &AllocateResponse, dry_run: bool) {
    let (port, service) = (answer.port, words::service_of(&answer.allocation));
    context.say(&if dry_run {
        format!("styxy: would be port {port} ({service}); nothing is reserved")
    } else {
        let again = if answer.reused { ", as before" } else { "" };
        format!("styxy: port {port} ({service}){again}  lock id {}", answer.lock_id)
    });
    explain(context, answer);
}

/// Why this port, and who runs already.
pub(super) fn explain(context: &Context, answer: &AllocateResponse) {
    explain_notes(context, &answer.notes);
    let view = View::current();
    for running in &answer.also_running {
        let (keeper, age) = (words::keeper(&view, running), view.age(&running.allocated_at));
        context.say(&format!("  also running: {} by {keeper}, {age}", url(running.port)));
    }
}

/// Why this port.
pub(super) fn explain_notes(context: &Context, notes: &[String]) {
    for note in notes {
        context.say(&format!("  {note}"));
    }
}

/// The ports, as they were asked for.
fn answer_text(args: &Allocate, allocated: &[AllocateResponse]) -> String {
    let line = |(index, one): (usize, &AllocateResponse)| {
        if args.shell {
            let (port, lock_id) = match allocated.len() {
                1 => ("PORT".to_owned(), "STYXY_LOCK_ID".to_owned()),
                _ => variables(one, index),
            };
            format!("export {port}={} {lock_id}={}\n", one.port, shell::quote(&one.lock_id))
        } else if args.url {
            format!("{}\n", url(one.port))
        } else {
            format!("{}\n", one.port)
        }
    };
    allocated.iter().enumerate().map(line).collect()
}

/// The variables of one of several ports: `WEB_PORT` and `STYXY_LOCK_ID_WEB`, or `PORT_1` and
/// `STYXY_LOCK_ID_1`.
fn variables(answer: &AllocateResponse, index: usize) -> (String, String) {
    match &answer.allocation.service_name {
        Some(name) => {
            let name = variable_of(name);
            (format!("{name}_PORT"), format!("STYXY_LOCK_ID_{name}"))
        }
        None => (format!("PORT_{}", index + 1), format!("STYXY_LOCK_ID_{}", index + 1)),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::args::{Cli, Command, Deferred};
    use super::super::words::tests::web;
    use super::*;
    use crate::api::Allocation;

    fn args(line: &[&str]) -> Allocate {
        let cli = Cli::try_parse_from(["styxy", "allocate"].iter().chain(line)).expect("it parses");
        match cli.command {
            Command::Allocate(Deferred(args)) => args,
            other => panic!("{other:?}"),
        }
    }

    fn allocated(name: Option<&str>, port: u16, lock_id: &str) -> AllocateResponse {
        let service_name = name.map(str::to_owned);
        AllocateResponse {
            success: true,
            port,
            lock_id: lock_id.to_owned(),
            message: String::new(),
            reused: false,
            allocation: Allocation { port, service_name, ..web() },
            also_running: vec![],
            notes: vec![],
        }
    }

    #[test]
    fn one_port_is_one_request_and_several_are_one_batch() {
        let config = Config::built_in();
        let here = Here { project: Some("/".to_owned()), ..Here::default() };
        let line = ["--instance", "a"];
        let one = call(requests(&args(&line), &here, &config, None));
        let Call::Allocate(request) = one else { panic!("{one:?}") };
        assert_eq!((request.service_type.as_str(), request.service_name), ("dev", None));
        assert_eq!(request.project_path.as_deref(), Some("/"));
        assert_eq!(request.instance_id.as_deref(), Some("a"));
        assert_eq!(request.process_id, None, "the instance holds it");

        let line = [&line[..], &["-n", "web", "-n", "api", "--lease", "90s"]].concat();
        let batch = call(requests(&args(&line), &here, &config, None));
        let Call::AllocateBatch(BatchRequest { requests }) = batch else { panic!("{batch:?}") };
        let names: Vec<_> = requests.iter().map(|one| one.service_name.as_deref()).collect();
        assert_eq!(names, [Some("web"), Some("api")]);
        assert_ne!(requests[0].lock_id, requests[1].lock_id);
        assert_eq!(requests[1].lease_seconds, Some(90));
    }

    #[test]
    fn stdout_carries_the_ports_alone() {
        let both = [allocated(Some("web"), 3000, "a-1"), allocated(Some("main-app"), 8000, "b-2")];
        let text = |line: &[&str], count: usize| answer_text(&args(line), &both[..count]);
        assert_eq!(text(&[], 2), "3000\n8000\n");
        assert_eq!(text(&["--url"], 1), "http://localhost:3000\n");
        assert_eq!(text(&["--shell"], 1), "export PORT=3000 STYXY_LOCK_ID=a-1\n");
        assert_eq!(
            text(&["--shell"], 2),
            "export WEB_PORT=3000 STYXY_LOCK_ID_WEB=a-1\n\
             export MAIN_APP_PORT=8000 STYXY_LOCK_ID_MAIN_APP=b-2\n"
        );
        let unnamed = [allocated(None, 3000, "a"), allocated(None, 3001, "b;id")];
        assert_eq!(
            answer_text(&args(&["--shell"]), &unnamed),
            "export PORT_1=3000 STYXY_LOCK_ID_1=a\nexport PORT_2=3001 STYXY_LOCK_ID_2='b;id'\n"
        );
    }

    #[test]
    fn what_cannot_be_answered_is_wrong_usage() {
        let wrong: [&[&str]; 3] = [
            &["-p", "3000", "--exact", "--count", "2"],
            &["-p", "3000", "--exact", "-n", "a", "-n", "b"],
            &["--shell", "-n", "a-b", "-n", "a.b"],
        ];
        for line in wrong {
            let failed = check_usage(&args(line)).expect_err("wrong usage");
            assert_eq!(failed.exit, Exit::Usage, "{line:?}");
        }
        assert!(check_usage(&args(&["--shell", "-n", "a", "-n", "b"])).is_ok());
    }
}
