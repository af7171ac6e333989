//! `styxy release`: ends allocations by name, port or lock id.

use std::process::ExitCode;

use uuid::Uuid;

use super::args::Release;
use super::context::{Context, Scope, read};
use super::failure::{Exit, Failed};
use super::output::{self, View};
use super::words;
use crate::api::{Allocation, AllocationsResponse, ReleaseResponse};
use crate::client::Client;
use crate::coordinator::Call;

/// Every target is tried; the exit code is that of the worst failure.
pub(super) fn run(context: &Context, args: &Release) -> Result<ExitCode, Failed> {
    let targets: Vec<Target> = args.targets.iter().map(|text| Target::parse(text)).collect();
    let mut client = context.connect()?;
    let needs_list = targets.iter().any(|target| !matches!(target, Target::LockId(_)));
    let allocations = if needs_list {
        read::<AllocationsResponse>(&client.call(&Call::Allocations)?)?.allocations
    } else {
        Vec::new()
    };
    let scope = Scope::here(args.instance.id());
    let mut worst = 0;
    for target in &targets {
        if let Err(failed) = release(context, &mut client, target, &allocations, &scope) {
            failed.report(context.global.json);
            worst = worst.max(failed.exit.code());
        }
    }
    Ok(ExitCode::from(worst))
}

/// What an argument names.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Target {
    LockId(String),
    Port(u16),
    Name(String),
}

impl Target {
    /// Reads it: a port, a UUID, or else a name.
    pub(super) fn parse(text: &str) -> Self {
        if let Ok(port) = text.parse() {
            return Self::Port(port);
        }
        match Uuid::try_parse(text) {
            // A UUID may be written in several ways, and a lock id is told in this one (RFC 9562).
            Ok(lock_id) => Self::LockId(lock_id.to_string()),
            Err(_) => Self::Name(text.to_owned()),
        }
    }

    /// Whether it may mean that allocation, wherever that belongs.
    pub(super) fn names(&self, allocation: &Allocation) -> bool {
        match self {
            Self::LockId(lock_id) => allocation.lock_id == *lock_id,
            Self::Port(port) => allocation.port == *port,
            Self::Name(name) => allocation.service_name.as_deref() == Some(name),
        }
    }
}

/// Releases all that a target names within the scope.
fn release(
    context: &Context,
    client: &mut Client,
    target: &Target,
    allocations: &[Allocation],
    scope: &Scope,
) -> Result<(), Failed> {
    let lock_ids = match target {
        Target::LockId(lock_id) => vec![lock_id.as_str()],
        _ => resolve(target, allocations, scope, &View::current())?,
    };
    if let (Target::Name(name), 2..) = (target, lock_ids.len()) {
        context.say(&format!("styxy: {name} has {} allocations here: all go", lock_ids.len()));
    }
    for lock_id in lock_ids {
        let answer = client.call(&Call::Release(lock_id.to_owned()))?;
        context.answer(&answer, |released: ReleaseResponse| {
            format!("{}\n", output::printable(&released.message))
        })?;
    }
    Ok(())
}

/// The lock ids of what a name or port means here. What is another's is refused with its owner.
fn resolve<'a>(
    target: &Target,
    allocations: &'a [Allocation],
    scope: &Scope,
    view: &View,
) -> Result<Vec<&'a str>, Failed> {
    let named = || allocations.iter().filter(|allocation| target.names(allocation));
    let ours: Vec<&str> =
        named().filter(|one| scope.has(one)).map(|one| one.lock_id.as_str()).collect();
    if !ours.is_empty() {
        return Ok(ours);
    }
    let shown = match target {
        Target::Port(port) => format!("port {port}"),
        Target::Name(text) | Target::LockId(text) => format!("'{text}'"),
    };
    let Some(other) = named().next() else {
        let failed = Failed::new(Exit::No, format!("{shown} is not allocated"));
        return Err(failed.next("styxy list    shows what is"));
    };
    let failed = Failed::new(Exit::NotYours, format!("{shown} belongs to another project"));
    let holder = words::holder(view, Some(other), None).unwrap_or_default();
    Err(failed
        .holder(format!("held by {holder}"))
        .next(format!("styxy release {}    if you are sure", other.lock_id)))
}

#[cfg(test)]
mod tests {
    use super::super::words::tests::{view, web};
    use super::*;

    const ID: &str = "5d0bbf0c-3e0e-4f0e-9d3c-222222222222";

    #[test]
    fn an_argument_is_a_port_a_lock_id_or_a_name() {
        assert_eq!(Target::parse("3000"), Target::Port(3000));
        assert_eq!(Target::parse("65536"), Target::Name("65536".to_owned()));
        assert_eq!(Target::parse(ID), Target::LockId(ID.to_owned()));
        assert_eq!(Target::parse("web"), Target::Name("web".to_owned()));
    }

    #[test]
    fn a_lock_id_is_found_however_it_is_written() {
        let allocation = Allocation { lock_id: ID.to_owned(), ..web() };
        let [upper, plain] = [ID.to_uppercase(), ID.replace('-', "")];
        for text in [ID, &upper, &plain, &format!("urn:uuid:{ID}")] {
            assert!(Target::parse(text).names(&allocation), "{text}");
        }
    }

    fn shop() -> Scope {
        Scope { project: web().project_path, instance: None }
    }

    #[test]
    fn all_of_a_name_in_this_project_and_none_of_another_is_meant() {
        let second = Allocation { lock_id: ID.to_owned(), port: 5174, ..web() };
        let elsewhere = Allocation {
            lock_id: "other".to_owned(),
            project_path: Some("/srv/x".to_owned()),
            ..web()
        };
        let all = [web(), second, elsewhere];
        let name = Target::parse("web");
        let found = resolve(&name, &all, &shop(), &view()).expect("two");
        assert_eq!(found, [web().lock_id.as_str(), ID]);
        let found = resolve(&Target::Port(5174), &all, &shop(), &view()).expect("one");
        assert_eq!(found, [ID]);
    }

    #[test]
    fn another_projects_allocation_is_refused_with_its_owner() {
        let scope = Scope { project: Some("/srv/x".to_owned()), instance: None };
        for target in [Target::parse("web"), Target::Port(5173)] {
            let failed = resolve(&target, &[web()], &scope, &view()).expect_err("refused");
            assert_eq!(failed.exit, Exit::NotYours);
            let lines = failed.lines();
            assert!(lines.contains("vite (pid 812) in ~/src/shop"), "{lines}");
            assert!(lines.contains(&web().lock_id), "{lines}");
        }
    }

    #[test]
    fn nothing_to_release_is_a_plain_no() {
        let failed = resolve(&Target::Port(1), &[web()], &shop(), &view()).expect_err("none");
        assert_eq!(failed.exit, Exit::No);
    }
}
