//! `styxy check`: whether ports are free, and who has them.

use std::process::ExitCode;

use super::args::Check;
use super::context::{Context, read};
use super::failure::{Exit, Failed};
use super::output::{self, Cell, Table, View};
use super::words;
use crate::api::CheckResponse;
use crate::coordinator::Call;

use clap::builder::styling::AnsiColor;

pub(super) fn run(context: &Context, args: &Check) -> Result<ExitCode, Failed> {
    let mut client = context.connect()?;
    let mut found = Vec::with_capacity(args.ports.len());
    for &port in &args.ports {
        let answer = client.call(&Call::Check(port, args.protocol.into()))?;
        if context.global.json {
            output::print_json(&answer.body)?;
        }
        found.push(read::<CheckResponse>(&answer)?);
    }
    if !context.global.json {
        output::print(&table(&View::current(), &found).render(false))?;
    }
    let all_free = found.iter().all(|port| port.available);
    Ok(ExitCode::from(if all_free { 0 } else { Exit::No.code() }))
}

fn table(view: &View, found: &[CheckResponse]) -> Table<3> {
    let mut table = Table::new(["PORT", "STATE", "HOLDER"]);
    for port in found {
        let state = if port.available {
            Cell::coloured("free", AnsiColor::Green)
        } else {
            Cell::coloured("taken", AnsiColor::Yellow)
        };
        let holder = words::holder(view, port.allocated_to.as_ref(), port.system_usage.as_ref());
        table.push([port.port.to_string().into(), state, holder.unwrap_or_default().into()]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::super::words::tests::{view, web};
    use super::*;

    #[test]
    fn each_port_is_a_line_with_its_holder() {
        let free =
            CheckResponse { port: 80, available: true, allocated_to: None, system_usage: None };
        let taken = CheckResponse {
            port: 5173,
            available: false,
            allocated_to: Some(web()),
            system_usage: None,
        };
        let text = table(&view(), &[free, taken]).render(false);
        assert_eq!(
            anstream::adapter::strip_str(&text).to_string(),
            "80    free\n5173  taken  vite (pid 812) in ~/src/shop, allocated 14 minutes ago as \
             dev/web\n"
        );
    }
}
