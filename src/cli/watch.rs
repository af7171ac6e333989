//! `styxy watch`: what happens, a line each.

use std::process::ExitCode;
use std::time::SystemTime;

use serde_json::Value;

use super::context::Context;
use super::failure::{Exit, Failed};
use super::feed::{Feed, News};
use super::output::{self, View, printable};
use super::words;
use crate::api::{Allocation, InstanceLost, Moved};

pub(super) fn run(context: &Context) -> Result<ExitCode, Failed> {
    let mut feed = Feed::look_on(context)?;
    if feed.is_live() {
        context.say("styxy: watching, Ctrl-C ends it");
    }
    loop {
        if !feed.is_live() {
            let failed =
                Failed::new(Exit::Unreachable, "without a daemon nobody tells what happens");
            return Err(failed.next("styxy daemon start"));
        }
        let line = match feed.next(None)? {
            News::Event(name, data) if context.global.json => {
                let name = Value::from(name);
                format!("{{\"event\":{name},\"data\":{data}}}\n")
            }
            News::Event(name, data) => {
                let view = View::current();
                let time = humantime::format_rfc3339_seconds(SystemTime::now());
                format!("{time} {}\n", sentence(&view, &name, &data))
            }
            News::Anything => {
                context.say("styxy: some events were missed");
                continue;
            }
            News::Alive | News::Nothing => continue,
        };
        if !output::print_on(&line)? {
            return Ok(ExitCode::SUCCESS);
        }
    }
}

/// An event in words. One of a later version is shown as it came.
fn sentence(view: &View, name: &str, data: &str) -> String {
    words_of(view, name, data)
        .unwrap_or_else(|_| format!("{} {}", printable(name), printable(data)))
}

fn words_of(view: &View, name: &str, data: &str) -> serde_json::Result<String> {
    let words = match name {
        "moved" => {
            let moved: Moved = serde_json::from_str(data)?;
            let service = words::service(&moved.service_type, moved.service_name.as_deref());
            let project = view.path(&moved.project_path);
            format!("{} {service} in {project}, was {}", moved.to, moved.from)
        }
        "instance_lost" => {
            let lost: InstanceLost = serde_json::from_str(data)?;
            printable(&lost.instance_id).into_owned()
        }
        _ => {
            let value: Value = serde_json::from_str(data)?;
            let reason = value["reason"].as_str().map(|reason| reason.replace('_', " "));
            of_allocation(view, name, &serde_json::from_value(value)?, reason.as_deref())
        }
    };
    Ok(format!("{name:<13} {words}"))
}

fn of_allocation(view: &View, name: &str, allocation: &Allocation, reason: Option<&str>) -> String {
    let mut words = format!("{} {}", allocation.port, words::service_of(allocation));
    if let Some(project) = &allocation.project_path {
        words.push_str(" in ");
        words.push_str(&view.path(project));
    }
    match (name, reason) {
        (_, Some(reason)) => words + ": " + &printable(reason),
        ("listening" | "conflict", None) => {
            format!("{words}: {} on {}", words::keeper(view, allocation), address(allocation))
        }
        _ => match words::elsewhere(allocation) {
            Some(elsewhere) => format!("{words}: {elsewhere}"),
            None => format!("{words}: held by {}", words::keeper(view, allocation)),
        },
    }
}

fn address(allocation: &Allocation) -> String {
    let listener = allocation.listener.as_ref();
    listener.map_or_else(
        || format!("port {}", allocation.port),
        |listener| printable(&listener.local_address).into_owned(),
    )
}

#[cfg(test)]
mod tests {
    use super::super::words::tests::{view, web};
    use super::*;
    use crate::api::Released;

    fn json(value: &impl serde::Serialize) -> String {
        serde_json::to_string(value).expect("wire types are JSON")
    }

    #[test]
    fn each_event_is_a_line_that_says_whom_it_is_about() {
        let say = |name: &str, data: String| sentence(&view(), name, &data);
        assert_eq!(
            say("listening", json(&web())),
            "listening     5173 dev/web in ~/src/shop: vite (pid 812) on [::]:5173"
        );
        let allocation = Allocation { listener: None, ..web() };
        assert_eq!(
            say("allocated", json(&allocation)),
            "allocated     5173 dev/web in ~/src/shop: held by pid 800"
        );
        let released = Released { allocation, reason: "owner_died".to_owned() };
        assert_eq!(
            say("released", json(&released)),
            "released      5173 dev/web in ~/src/shop: owner died"
        );
        let lost = InstanceLost { instance_id: "editor_a".to_owned() };
        assert_eq!(say("instance_lost", json(&lost)), "instance_lost editor_a");
        let moved = Moved {
            project_path: "/home/ada/src/shop".to_owned(),
            service_type: "dev".to_owned(),
            service_name: Some("web".to_owned()),
            from: 1,
            to: 2,
        };
        assert_eq!(say("moved", json(&moved)), "moved         2 dev/web in ~/src/shop, was 1");
        assert_eq!(say("of_a_later_version", "[7]".to_owned()), "of_a_later_version [7]");
    }
}
