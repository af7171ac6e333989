//! styxy.toml(5) has every key of both files, and the built-in service types.

use std::collections::BTreeSet;

use crate::support::Home;

const PAGE: &str = include_str!("../../../man/styxy.toml.5");
const CONFIG: &str = include_str!("../../../src/config/parse.rs");
const SERVICES: &str = include_str!("../../../src/project/services/parse.rs");

/// The words of a constant list in a source file.
fn constant(source: &'static str, name: &str) -> BTreeSet<&'static str> {
    let start = source.find(&format!("const {name}: ")).expect("the constant");
    let list = source[start..].split_once('=').expect("its value").1;
    let list = list.split_once(';').expect("its end").0;
    list.split('"').skip(1).step_by(2).collect()
}

/// The lines of the page below a heading.
fn section(heading: &str) -> impl Iterator<Item = &'static str> {
    let heading = format!(".Ss {heading}");
    let lines = PAGE.lines().skip_while(move |line| *line != heading).skip(1);
    lines.take_while(|line| !line.starts_with(".Ss ") && !line.starts_with(".Sh "))
}

/// What the section's list describes.
fn described(heading: &str) -> BTreeSet<&'static str> {
    section(heading).filter_map(|line| line.strip_prefix(".It ")?.split(' ').nth(1)).collect()
}

#[test]
fn the_keys_of_both_files_are_those_of_the_page() {
    for (source, name, heading) in [
        (CONFIG, "DAEMON_KEYS", "The daemon table"),
        (CONFIG, "SERVICE_KEYS", "The service tables"),
        (SERVICES, "KEYS", "A project's services"),
    ] {
        let keys = constant(source, name);
        assert!(!keys.is_empty());
        assert_eq!(described(heading), keys, "left: styxy.toml.5, right: {name}");
    }
}

#[test]
fn the_built_in_service_types_are_those_of_the_page() {
    let home = Home::new();
    home.forget_configuration();
    let config = home.styxy(&["config", "show", "--json"]).ok().json();
    let ports = |list: &serde_json::Value, separator| {
        let list = list.as_array().expect("a list").iter();
        list.map(ToString::to_string).collect::<Vec<_>>().join(separator)
    };
    let services = config["service"].as_object().expect("types").iter();
    let real: BTreeSet<String> = services
        .map(|(name, service)| {
            let preferred = ports(&service["preferred_ports"], ", ");
            format!("{name}|{preferred}|{}", ports(&service["port_range"], "-"))
        })
        .collect();
    let rows = section("Built-in service types").filter_map(|line| line.strip_prefix(".It "));
    let said = rows.filter(|row| !row.starts_with("Em ")).map(|row| {
        let row = row.replace("\\(en", "-");
        let cells: Vec<&str> = row.split("Ta").map(str::trim).collect();
        cells.join("|")
    });
    assert_eq!(said.collect::<BTreeSet<_>>(), real, "left: styxy.toml.5, right: config show");
}

#[test]
fn the_example_of_the_packages_has_no_fault() {
    let home = Home::new();
    let example = include_str!("../../../packaging/config.toml");
    std::fs::write(home.config_file(), example).expect("a file");
    let said = home.styxy(&["config", "check"]).ok();
    assert!(!said.whole().contains("warning"), "{}", said.whole());
}
