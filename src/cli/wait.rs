//! `styxy wait`: until an allocation's own program listens.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use super::args::Wait;
use super::context::{Context, Scope, instance_here, read, to_json};
use super::failure::{Exit, Failed};
use super::feed::{Feed, News};
use super::output::{self, View, url};
use super::release::Target;
use super::words;
use crate::api::{
    Allocation, AllocationState, AllocationsResponse, CheckResponse, Protocol, Released,
};
use crate::coordinator::{Call, user_of_port};

pub(super) fn run(context: &Context, args: &Wait) -> Result<ExitCode, Failed> {
    // A time beyond what the clock can say is no limit.
    let deadline = Instant::now().checked_add(args.timeout);
    let scope = Scope::here(instance_here().as_deref());
    let mut awaited: Vec<_> = args.targets.iter().map(|text| Awaited::new(text)).collect();
    let mut feed = Feed::open(context)?;
    look(&mut feed, &mut awaited, &scope)?;
    let silent = awaited.iter().filter(|one| one.ready.is_none());
    let silent: Vec<_> = silent.map(|one| one.text.as_str()).collect();
    if !silent.is_empty() {
        context.say(&format!("styxy: waiting for {}", silent.join(", ")));
    }
    while awaited.iter().any(|one| one.ready.is_none()) {
        for one in &mut awaited {
            one.tell_elsewhere(context);
        }
        let left = deadline.map(|end| end.saturating_duration_since(Instant::now()));
        match feed.next(left)? {
            News::Event(name, data) => {
                for one in &mut awaited {
                    one.hear(&name, &data, &scope)?;
                }
            }
            News::Anything => look(&mut feed, &mut awaited, &scope)?,
            News::Alive => {}
            News::Nothing => return Err(too_late(&mut feed, &awaited, args.timeout, &scope)),
        }
        if deadline.is_some_and(|end| end <= Instant::now())
            && awaited.iter().any(|one| one.ready.is_none())
        {
            return Err(too_late(&mut feed, &awaited, args.timeout, &scope));
        }
    }
    let ready: Vec<Allocation> = awaited.into_iter().filter_map(|one| one.ready).collect();
    if context.global.json {
        output::print_json(&to_json(&AllocationsResponse { allocations: ready })?)?;
    } else {
        let lines = ready.iter().map(|allocation| url(allocation.port) + "\n");
        output::print(&lines.collect::<String>())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What makes a program listen on its port.
const HAND_OVER: &str = "make it take its port from PORT, or write {port} in its arguments";

/// Takes in what there is now.
fn look(feed: &mut Feed<'_>, awaited: &mut [Awaited], scope: &Scope) -> Result<(), Failed> {
    let list: AllocationsResponse = read(&feed.call(&Call::Allocations)?)?;
    awaited.iter_mut().try_for_each(|one| one.see(&list.allocations, scope))
}

/// One of those that are waited for.
#[derive(Debug)]
struct Awaited {
    target: Target,
    /// As it was typed.
    text: String,
    /// The allocations that it means, as they were heard of last.
    known: Vec<Allocation>,
    /// The one whose own program listens.
    ready: Option<Allocation>,
    /// It was said that it listens elsewhere.
    is_told: bool,
}

impl Awaited {
    fn new(text: &str) -> Self {
        let (target, text) = (Target::parse(text), text.to_owned());
        Self { target, text, known: Vec::new(), ready: None, is_told: false }
    }

    /// A name means what this project or instance has; a port or lock id means just one anywhere.
    fn means(&self, allocation: &Allocation, scope: &Scope) -> bool {
        let is_name = matches!(self.target, Target::Name(_));
        self.target.names(allocation) && (!is_name || scope.has(allocation))
    }

    /// Takes in a list of all allocations.
    fn see(&mut self, all: &[Allocation], scope: &Scope) -> Result<(), Failed> {
        if self.ready.is_some() {
            return Ok(());
        }
        let there: Vec<_> = all.iter().filter(|it| self.means(it, scope)).cloned().collect();
        let has_ended = there.is_empty() && !self.known.is_empty();
        self.known = there;
        self.ready = self.known.iter().find(|it| it.state == AllocationState::Listening).cloned();
        if has_ended { Err(self.ended(None)) } else { Ok(()) }
    }

    /// Takes in an event. Those of later versions are not understood, and not needed.
    fn hear(&mut self, name: &str, data: &str, scope: &Scope) -> Result<(), Failed> {
        let Ok(allocation) = serde_json::from_str::<Allocation>(data) else { return Ok(()) };
        if self.ready.is_some() || !self.means(&allocation, scope) {
            return Ok(());
        }
        let before = self.known.len();
        self.known.retain(|it| it.lock_id != allocation.lock_id);
        if name == "released" {
            let has_ended = self.known.is_empty() && before > 0;
            let reason = serde_json::from_str::<Released>(data).ok().map(|it| it.reason);
            return if has_ended { Err(self.ended(reason.as_deref())) } else { Ok(()) };
        }
        if allocation.state == AllocationState::Listening {
            self.ready = Some(allocation.clone());
        }
        self.known.push(allocation);
        Ok(())
    }

    /// Says once that its program listens, but elsewhere: waiting may be in vain.
    fn tell_elsewhere(&mut self, context: &Context) {
        if !self.is_told
            && self.ready.is_none()
            && let Some(elsewhere) = self.known.iter().find_map(words::elsewhere)
        {
            context.say(&format!("styxy: {}: {elsewhere}: {HAND_OVER}", self.text));
            self.is_told = true;
        }
    }

    fn ended(&self, reason: Option<&str>) -> Failed {
        let reason = reason.map(|reason| format!(": {}", reason.replace('_', " ")));
        let fact = format!("{} ended before it listened{}", self.text, reason.unwrap_or_default());
        Failed::new(Exit::No, fact).next("styxy list    shows what is allocated")
    }
}

/// Who does not listen, and who does instead.
fn too_late(feed: &mut Feed<'_>, awaited: &[Awaited], timeout: Duration, scope: &Scope) -> Failed {
    let view = View::current();
    let Some(late) = awaited.iter().find(|one| one.ready.is_none()) else {
        return Failed::new(Exit::No, "nothing listens");
    };
    let after = humantime::format_duration(timeout);
    let failed = Failed::new(Exit::No, format!("{} does not listen after {after}", late.text));
    let conflict = late.known.iter().find(|it| it.state == AllocationState::Conflict);
    if let Some(allocation) = conflict {
        let who = words::keeper(&view, allocation);
        let port = allocation.port;
        return failed
            .holder(format!("{who} listens on port {port} instead: another program"))
            .next(format!("styxy check {port}"));
    }
    let Some(allocation) = late.known.first() else {
        return absent(feed, late, failed, &view, scope);
    };
    let port = allocation.port;
    if let Some(elsewhere) = words::elsewhere(allocation) {
        return failed.holder(elsewhere).next(HAND_OVER);
    }
    let who = words::keeper(&view, allocation);
    failed
        .holder(format!("port {port} is kept by {who}, and its program does not listen there"))
        .next(format!("styxy wait {} --timeout 2m", late.text))
}

/// Nothing of what was meant is allocated.
fn absent(
    feed: &mut Feed<'_>,
    late: &Awaited,
    failed: Failed,
    view: &View,
    scope: &Scope,
) -> Failed {
    if let Target::Port(port) = late.target
        && let Ok(answer) = feed.call(&Call::Check(port, Protocol::Both))
        && let Ok(CheckResponse { system_usage: Some(usage), .. }) = read(&answer)
    {
        let who = user_of_port(&usage);
        return failed
            .holder(format!("{who} listens there, and the port is not allocated"))
            .next(format!("styxy check {port}"));
    }
    let place = match (&late.target, &scope.project) {
        (Target::Name(_), Some(project)) => format!(" in {}", view.path(project)),
        _ => String::new(),
    };
    failed
        .holder(format!("it is not allocated{place}"))
        .next("styxy list    shows what is allocated")
}

#[cfg(test)]
mod tests {
    use super::super::words::tests::web;
    use super::*;

    fn shop() -> Scope {
        Scope { project: web().project_path, instance: None }
    }

    fn json(value: &impl serde::Serialize) -> String {
        serde_json::to_string(value).expect("wire types are JSON")
    }

    #[test]
    fn the_own_listener_of_what_is_meant_ends_the_wait() {
        let reserved = Allocation { state: AllocationState::Reserved, ..web() };
        let elsewhere = Allocation { project_path: Some("/srv".to_owned()), ..web() };
        let conflict = Allocation { state: AllocationState::Conflict, ..web() };
        let mut name = Awaited::new("web");
        let mut port = Awaited::new("5173");
        for (event, allocation) in
            [("allocated", &reserved), ("conflict", &conflict), ("listening", &elsewhere)]
        {
            name.hear(event, &json(allocation), &shop()).expect("nothing ended");
            assert_eq!(name.ready, None, "{event}");
        }
        port.hear("listening", &json(&elsewhere), &shop()).expect("nothing ended");
        assert_eq!(port.ready, Some(elsewhere), "a port is one on the whole machine");
        name.hear("listening", &json(&web()), &shop()).expect("nothing ended");
        assert_eq!(name.ready, Some(web()));
    }

    #[test]
    fn the_end_of_the_last_one_ends_the_wait() {
        let reserved = |lock_id: &str| Allocation {
            lock_id: lock_id.to_owned(),
            state: AllocationState::Reserved,
            ..web()
        };
        let released = |lock_id| {
            let reason = "owner_died".to_owned();
            json(&Released { allocation: reserved(lock_id), reason })
        };
        let mut name = Awaited::new("web");
        name.hear("released", &released("0"), &shop()).expect("it was not known");
        name.see(&[reserved("1"), reserved("2")], &shop()).expect("nothing ended");
        name.hear("released", &released("1"), &shop()).expect("one is left");
        let ended = name.hear("released", &released("2"), &shop()).expect_err("the last one");
        assert_eq!(ended.exit, Exit::No);
        assert!(ended.lines().contains("owner died"), "{}", ended.lines());

        name.known = vec![reserved("1")];
        assert!(name.see(&[], &shop()).is_err(), "it ended while nobody told");
    }
}
