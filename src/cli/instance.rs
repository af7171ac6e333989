//! `styxy instance`: registered clients.

use std::process::ExitCode;

use serde_json::Value;

use super::args::{Instance, Register};
use super::context::Context;
use super::failure::Failed;
use super::output::{self, Table, View, printable};
use crate::api;
use crate::coordinator::Call;

pub(super) fn run(context: &Context, args: Instance) -> Result<ExitCode, Failed> {
    match args {
        Instance::Register(args) => register(context, args),
        Instance::Heartbeat(args) => {
            let call = Call::Heartbeat(api::HeartbeatRequest { instance_id: args.id });
            let answer = context.ask(&call)?;
            context.answer(&answer, |_: api::HeartbeatResponse| String::new())
        }
        Instance::List => {
            let answer = context.ask(&Call::Instances)?;
            context.answer(&answer, |list: api::InstancesResponse| {
                if list.instances.is_empty() {
                    context.say("styxy: no instance is registered");
                }
                let headers = !list.instances.is_empty() && output::stdout_is_terminal();
                table(&View::current(), &list.instances).render(headers)
            })
        }
        Instance::Remove(args) => {
            let answer = context.ask(&Call::RemoveInstance(args.id))?;
            context.answer(&answer, |removed: api::RemoveInstanceResponse| {
                format!("{}\n", printable(&removed.message))
            })
        }
    }?;
    Ok(ExitCode::SUCCESS)
}

fn register(context: &Context, args: Register) -> Result<(), Failed> {
    let directory = std::env::current_dir().ok();
    let metadata = args.metadata.into_iter().map(|(key, value)| (key, Value::from(value)));
    let request = api::RegisterRequest {
        instance_id: args.id.filter(|id| !id.is_empty()),
        working_directory: directory.and_then(|path| path.into_os_string().into_string().ok()),
        process_id: args.pid,
        metadata: Some(metadata.collect()),
    };
    let answer = context.ask(&Call::Register(request))?;
    context.answer(&answer, |registered: api::RegisterResponse| {
        if args.pid.is_none() {
            let seconds = registered.heartbeat_seconds;
            context.say(&format!("styxy: a heartbeat is due every {seconds} seconds"));
        }
        format!("{}\n", printable(&registered.instance_id))
    })
}

fn table(view: &View, instances: &[api::Instance]) -> Table<6> {
    let mut table =
        Table::new(["INSTANCE", "PROCESS", "DIRECTORY", "PORTS", "LAST SEEN", "METADATA"]);
    for instance in instances {
        let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        let process = instance.process_id.map(|pid| format!("pid {pid}"));
        let directory = instance.working_directory.as_deref().map(|path| view.path(path));
        table.push([
            printable(&instance.instance_id).into(),
            or_none(process).into(),
            or_none(directory).into(),
            instance.active_allocations.len().to_string().into(),
            view.age(&instance.last_heartbeat).into(),
            metadata(instance).into(),
        ]);
    }
    table
}

/// What the client wanted to be shown beside its id: `branch=main, editor=vim`.
fn metadata(instance: &api::Instance) -> String {
    let pair = |(key, value): (&String, &Value)| match value.as_str() {
        Some(text) => format!("{key}={text}"),
        None => format!("{key}={value}"),
    };
    let pairs: Vec<String> = instance.metadata.iter().map(pair).collect();
    printable(&pairs.join(", ")).into_owned()
}

#[cfg(test)]
mod tests {
    use super::super::words::tests::view;
    use super::*;

    #[test]
    fn an_instance_is_a_row() {
        let instance = api::Instance {
            instance_id: "editor_a".to_owned(),
            working_directory: Some("/home/ada/src".to_owned()),
            process_id: None,
            registered_at: "2026-01-17T18:00:00.000Z".to_owned(),
            last_heartbeat: "2026-01-17T18:40:40.000Z".to_owned(),
            active_allocations: vec!["a".to_owned(), "b".to_owned()],
            metadata: serde_json::Map::from_iter([
                ("branch".to_owned(), Value::from("main\x1b")),
                ("tasks".to_owned(), Value::from(2)),
            ]),
        };
        assert_eq!(
            table(&view(), &[instance]).render(false),
            "editor_a  -  ~/src  2  12s  branch=main\\u{1b}, tasks=2\n"
        );
    }
}
