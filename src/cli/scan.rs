//! `styxy scan`: which ports are in use, and by whom.

use std::process::ExitCode;

use super::args::Scan;
use super::context::Context;
use super::failure::Failed;
use super::output::{self, Table, View};
use super::words;
use crate::api::{PortInUse, Protocol, ScanResponse};
use crate::coordinator::{Call, place_of, user_of_port};

pub(super) fn run(context: &Context, args: &Scan) -> Result<ExitCode, Failed> {
    let (start, end) = args.range;
    let answer = context.ask(&Call::Scan(start, end))?;
    context.answer(&answer, |scan: ScanResponse| {
        if scan.ports_in_use.is_empty() {
            context.say(&format!("styxy: no port of {} is in use", scan.scan_range));
        }
        let with_headers = !scan.ports_in_use.is_empty() && output::stdout_is_terminal();
        table(&View::current(), &scan.ports_in_use).render(with_headers)
    })?;
    Ok(ExitCode::SUCCESS)
}

fn table(view: &View, in_use: &[PortInUse]) -> Table<5> {
    let mut table = Table::new(["PORT", "PROTOCOL", "HELD BY", "PLACE", "ALLOCATED TO"]);
    for PortInUse { port, allocated_to, system_usage } in in_use {
        let protocol = system_usage.as_ref().map(|usage| usage.protocol);
        let protocol = protocol.or_else(|| allocated_to.as_ref().map(|it| it.protocol));
        let holder = match (system_usage, allocated_to) {
            (Some(usage), _) => user_of_port(usage),
            (None, Some(allocation)) => words::keeper(view, allocation),
            (None, None) => "-".to_owned(),
        };
        let place = allocated_to.as_ref().and_then(|it| it.project_path.as_deref());
        let place = place.or_else(|| place_of(system_usage.as_ref()?));
        let allocation = allocated_to
            .as_ref()
            .map(|it| format!("{} ({})", words::service_of(it), it.state.as_str()));
        table.push([
            port.to_string().into(),
            protocol.map_or("-", Protocol::as_str).into(),
            holder.into(),
            place.map_or_else(|| "-".to_owned(), |place| view.path(place)).into(),
            allocation.unwrap_or_else(|| "-".to_owned()).into(),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::super::words::tests::{usage, view, web};
    use super::*;
    use crate::api::{Allocation, AllocationState};

    #[test]
    fn each_port_is_a_line_with_who_uses_it_and_whose_it_is() {
        let reserved = Allocation {
            port: 3000,
            protocol: Protocol::Both,
            state: AllocationState::Reserved,
            listener: None,
            ..web()
        };
        let in_use = [
            PortInUse { port: 3000, allocated_to: Some(reserved), system_usage: None },
            PortInUse { port: 9000, allocated_to: None, system_usage: Some(usage()) },
        ];
        let text = table(&view(), &in_use).render(true);
        assert_eq!(
            anstream::adapter::strip_str(&text).to_string(),
            "PORT  PROTOCOL  HELD BY                                     PLACE       ALLOCATED TO\n\
             3000  both      pid 800                                     ~/src/shop  dev/web (reserved)\n\
             9000  tcp       a process of another user (uid 4294967288)  -           -\n"
        );
    }
}
