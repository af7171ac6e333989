//! The units: found, enabled, active.

use super::Finding;
use crate::client::survey::{Found, Survey};
use crate::client::units::Unit;
use crate::config::Config;

/// Also where the service runs: a socket alone cannot be started then.
const RESTART: &str = "styxy daemon restart";

const ENABLE: &str = "systemctl --user enable --now styxy.socket";

/// A line for each unit, or one where there are none.
pub(super) fn check(config: &Config, survey: &Survey) -> Vec<Finding> {
    let units = match &survey.units {
        None => {
            let message = "no systemd user manager runs; a command starts the daemon itself";
            return vec![Finding::ok("units", message)];
        }
        Some(Err(reason)) => {
            return vec![Finding::warn("units", reason.as_str(), "systemctl --user status")];
        }
        Some(Ok(units)) => units,
    };
    if !units.iter().any(Unit::is_found) {
        let message = "systemd has none, so a command starts the daemon in the background";
        let next = format!("styxy daemon install && {ENABLE}");
        return vec![Finding::warn("units", message, next)];
    }
    let mut findings: Vec<Finding> = units.iter().map(|unit| judge(unit, survey)).collect();
    findings.extend(address(config, units));
    findings
}

fn judge(unit: &Unit, survey: &Survey) -> Finding {
    let Unit { name, load, active, result, .. } = unit;
    let next = |command: &str| format!("systemctl --user {command} {name}");
    match load.as_str() {
        "loaded" => {}
        "not-found" => {
            return Finding::fail("units", format!("{name} is missing"), "styxy daemon install");
        }
        "masked" => {
            return Finding::warn("units", format!("{name} is masked"), next("unmask"));
        }
        _ => return Finding::fail("units", format!("{name}: {load}"), next("status")),
    }
    if active == "failed" {
        let message = format!("{name} has failed ({result})");
        let tcp_is_taken = survey
            .places
            .iter()
            .any(|place| place.port.is_some() && matches!(place.found, Found::Stranger(_)));
        return match unit.is_service() {
            true => Finding::fail("units", message, format!("journalctl --user -u {name}")),
            // The unix socket is another unit, and works.
            false if tcp_is_taken && name == "styxy.socket" => {
                let next = format!("free its port, then {RESTART}");
                Finding::warn("units", format!("{message}: its port is taken"), next)
            }
            false => Finding::fail("units", message, RESTART),
        };
    }
    if unit.is_service() {
        return Finding::ok("units", format!("{name} is there and {active}"));
    }
    match (unit.is_enabled(), unit.is_active()) {
        (true, true) => {
            let addresses = unit.listen.join(" and ");
            Finding::ok("units", format!("{name} is enabled and listens on {addresses}"))
        }
        (true, false) => {
            let message = format!("{name} is enabled and {active}");
            Finding::warn("units", message, RESTART)
        }
        (false, true) => {
            let message = format!("{name} listens, but will not after the next login");
            Finding::warn("units", message, next("enable"))
        }
        (false, false) => {
            Finding::warn("units", format!("{name} is neither enabled nor active"), ENABLE)
        }
    }
}

/// Whether systemd listens on TCP where commands and browsers are told to look.
fn address(config: &Config, units: &[Unit]) -> Option<Finding> {
    let listen = config.daemon.listen.to_string();
    let unit = units.iter().find(|unit| unit.name == "styxy.socket" && unit.is_active())?;
    let first = unit.listen.first()?;
    (!unit.listen.contains(&listen)).then(|| {
        Finding::warn(
            "units",
            format!("styxy.socket listens on {first}, and the configuration says {listen}"),
            "systemctl --user edit styxy.socket, or change listen of [daemon]",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::super::Status::{self, Fail, Ok as Fine, Warn};
    use super::*;
    use crate::client::survey::Place;

    fn made(name: &str, load: &str, file: &str, active: &str) -> Unit {
        let listen =
            if name == "styxy.socket" { vec!["127.0.0.1:9876".to_owned()] } else { vec![] };
        Unit {
            name: name.to_owned(),
            load: load.to_owned(),
            file: file.to_owned(),
            active: active.to_owned(),
            result: "resources".to_owned(),
            listen,
            ..Unit::default()
        }
    }

    fn survey(units: Option<Result<Vec<Unit>, String>>, tcp: Found) -> Survey {
        let place = |port, found| Place { address: String::new(), port, is_asked: true, found };
        let places = [place(None, Found::Dormant), place(Some(9876), tcp)];
        Survey { units, places, holder: None }
    }

    fn statuses(units: Option<Result<Vec<Unit>, String>>) -> Vec<Status> {
        let findings = check(&Config::built_in(), &survey(units, Found::Dormant));
        for finding in &findings {
            assert_eq!(finding.suggestion.is_some(), finding.status != Fine, "{finding:?}");
        }
        findings.iter().map(|finding| finding.status).collect()
    }

    #[test]
    fn units_are_found_enabled_and_active_or_it_is_said() {
        let one = |unit| statuses(Some(Ok(vec![unit])));
        let both = |unit| {
            let other = made("styxy-unix.socket", "loaded", "enabled", "active");
            statuses(Some(Ok(vec![unit, other])))
        };
        assert_eq!(statuses(None), [Fine]);
        assert_eq!(statuses(Some(Err("no bus".to_owned()))), [Warn]);
        assert_eq!(one(made("styxy.socket", "not-found", "", "inactive")), [Warn]);
        assert_eq!(both(made("styxy.socket", "not-found", "", "inactive")), [Fail, Fine]);
        assert_eq!(one(made("styxy.socket", "masked", "masked", "inactive")), [Warn]);
        assert_eq!(one(made("styxy.socket", "bad-setting", "enabled", "inactive")), [Fail]);
        assert_eq!(one(made("styxy.socket", "loaded", "enabled", "active")), [Fine]);
        assert_eq!(one(made("styxy.socket", "loaded", "enabled", "inactive")), [Warn]);
        assert_eq!(one(made("styxy.socket", "loaded", "disabled", "active")), [Warn]);
        assert_eq!(one(made("styxy.socket", "loaded", "disabled", "inactive")), [Warn]);
        assert_eq!(one(made("styxy.socket", "loaded", "enabled", "failed")), [Fail]);
        assert_eq!(one(made("styxy.service", "loaded", "static", "inactive")), [Fine]);
        assert_eq!(one(made("styxy.service", "loaded", "static", "failed")), [Fail]);
    }

    #[test]
    fn a_port_that_somebody_else_has_is_not_the_units_fault() {
        let units = vec![made("styxy.socket", "loaded", "enabled", "failed")];
        let survey = survey(Some(Ok(units)), Found::Stranger("karma".to_owned()));
        let findings = check(&Config::built_in(), &survey);
        assert_eq!(findings.iter().map(|one| one.status).collect::<Vec<_>>(), [Warn]);
    }

    #[test]
    fn a_socket_unit_on_another_address_than_the_configuration_is_said() {
        let mut config = Config::built_in();
        config.daemon.listen.set_port(9877);
        let units = vec![made("styxy.socket", "loaded", "enabled", "active")];
        let findings = check(&config, &survey(Some(Ok(units)), Found::Dormant));
        let warned = findings.iter().find(|finding| finding.status == Warn).expect("a warning");
        assert!(warned.message.contains("9876") && warned.message.contains("9877"), "{warned:?}");
    }
}
