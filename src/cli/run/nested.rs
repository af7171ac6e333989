//! A `run` inside a `run`: `styxy run -- npm run dev`, whose script says `styxy run -- vite`.

use super::args::Run;
use super::context::read;
use crate::api::{Allocation, AllocationState, AllocationsResponse};
use crate::client::Client;
use crate::coordinator::Call;

/// The allocation that an outer `run` of the same service has made for this one, if it did.
///
/// Where that cannot be found out, this is a `run` like any other.
pub(super) fn inherited(
    client: &mut Client,
    args: &Run,
    project: Option<&str>,
) -> Option<Allocation> {
    let lock_id = std::env::var("STYXY_LOCK_ID").ok().filter(|id| !id.is_empty())?;
    let port: u16 = std::env::var("STYXY_PORT").ok()?.parse().ok()?;
    let list: AllocationsResponse = read(&client.call(&Call::Allocations).ok()?).ok()?;
    let outer = list.allocations.into_iter().find(|one| one.lock_id == lock_id)?;
    (outer.port == port && is_same_service(&outer, args, project)).then_some(outer)
}

/// Whether the outer allocation is what this `run` asks for, and still waits for its server. A
/// terminal inside a server that was started with `run` inherits the same variables, but there the
/// port is in use.
fn is_same_service(outer: &Allocation, args: &Run, project: Option<&str>) -> bool {
    let same_service = match (&outer.service_name, &args.name) {
        (Some(outer), Some(name)) => outer == name,
        (None, None) => args.service.as_ref().is_none_or(|wanted| *wanted == outer.service_type),
        _ => false,
    };
    same_service
        && !args.another
        && outer.state == AllocationState::Reserved
        && outer.project_path.as_deref() == project
        && args.port.is_none_or(|port| port == outer.port)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::args::{Cli, Command};
    use super::super::words::tests::web;
    use super::*;

    #[test]
    fn a_run_inside_a_run_of_the_same_service_inherits() {
        let same = |line: &[&str], outer: &Allocation| {
            let line = [&["styxy", "run"], line, &["true"]].concat();
            let cli = Cli::try_parse_from(line).expect("it parses");
            let Command::Run(args) = cli.command else { panic!("{:?}", cli.command) };
            is_same_service(outer, &args, Some("/home/ada/src/shop"))
        };
        let named = Allocation { state: AllocationState::Reserved, listener: None, ..web() };
        let unnamed = Allocation { service_name: None, ..named.clone() };
        let table: [(&[&str], &Allocation, bool); 9] = [
            (&["-n", "web"], &named, true),
            (&["-n", "api"], &named, false),
            (&[], &named, false),
            (&[], &unnamed, true),
            (&["-s", "dev"], &unnamed, true),
            (&["-s", "api"], &unnamed, false),
            (&["-n", "web"], &unnamed, false),
            (&["-n", "web", "-p", "5173"], &named, true),
            (&["-n", "web", "-p", "4000"], &named, false),
        ];
        for (line, outer, expected) in table {
            assert_eq!(same(line, outer), expected, "{line:?}");
        }
        assert!(!same(&["-n", "web", "--another"], &named), "a second one is asked for");
        assert!(!same(&["-n", "web"], &web()), "its server listens already");
        let elsewhere = Allocation { project_path: Some("/srv".to_owned()), ..named };
        assert!(!same(&["-n", "web"], &elsewhere), "it is another project's");
    }
}
