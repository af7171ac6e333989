use super::*;

/// What debian and others have in ip_local_port_range.
const EPHEMERAL: RangeInclusive<u16> = 32768..=60999;

fn read(text: &str) -> (Config, Vec<String>) {
    let (config, diagnostics) = parse(Path::new("c.toml"), text, Some(&EPHEMERAL));
    (config, diagnostics.iter().map(ToString::to_string).collect())
}

/// Reads text in which all is well.
fn read_well(text: &str) -> Config {
    let (config, diagnostics) = read(text);
    assert!(diagnostics.is_empty(), "{diagnostics:#?}");
    config
}

/// Asserts that each line of `expected`, as `LINE:COLUMN: … words`, is what was found, in order.
#[track_caller]
fn assert_found(text: &str, expected: &[(&str, &str)]) -> Config {
    let (config, found) = read(text);
    let matches = found.len() == expected.len()
        && found.iter().zip(expected).all(|(found, (place, words))| {
            found.starts_with(&format!("c.toml:{place}: ")) && found.contains(words)
        });
    assert!(matches, "{text}\nexpected {expected:#?}\nfound {found:#?}");
    config
}

#[test]
fn nothing_said_is_built_in() {
    assert_eq!(read_well(""), Config::built_in());
    assert_eq!(read_well("# nothing\r\n[daemon]\r\n[service.dev]\r\n"), Config::built_in());
}

#[test]
fn every_key_is_read() {
    let config = read_well(
        r#"
        [daemon]
        listen = "[::1]:4321"
        idle_exit = "50ms"
        reap_interval = "1m 30s"
        default_lease = "2h"
        avoid = [5000, "6000-6005", " 7000 - 7001 "]
        overflow = [0x4e20, 21_000]

        [service.frontend]
        description = "Web pages"
        preferred_ports = [5173, 1, 65535]
        port_range = [5173, 5173]
        "#,
    );
    let daemon = Daemon {
        listen: "[::1]:4321".parse().expect("an address"),
        idle_exit: Some(Duration::from_millis(50)),
        reap_interval: Duration::from_secs(90),
        default_lease: Duration::from_secs(7200),
        avoid: vec![5000..=5000, 6000..=6005, 7000..=7001],
        overflow: 20000..=21000,
    };
    assert_eq!(config.daemon, daemon);
    let frontend = ServiceType {
        description: "Web pages".to_owned(),
        preferred_ports: vec![5173, 1, 65535],
        port_range: Some(5173..=5173),
    };
    assert_eq!(config.services["frontend"], frontend);
    assert_eq!(config.services.len(), Config::built_in().services.len() + 1);
}

#[test]
fn example_of_the_manual_is_right() {
    let manual = include_str!("../../../man/styxy.toml.5");
    let (_, examples) = manual.split_once(".Sh EXAMPLES").expect("the manual has examples");
    let example = examples.split(".Bd -literal -offset indent\n").nth(1).expect("a file");
    let (example, _) = example.split_once(".Ed").expect("the file ends");
    let config = read_well(example);
    assert_eq!(config.daemon.idle_exit, None);
    assert_eq!(config.services["e2e"].port_range, Some(9300..=9399));
}

#[test]
fn units_of_the_manual_are_known() {
    for unit in ["ms", "s", "m", "h", "d", "w", "sec", "min", "hours", "days", "weeks"] {
        read_well(&format!("daemon.default_lease = '2{unit}'"));
    }
    let config = read_well("daemon.default_lease = '1h 30m'");
    assert_eq!(config.daemon.default_lease, Duration::from_secs(5400));
}

#[test]
fn idle_exit_never() {
    assert_eq!(read_well("daemon.idle_exit = 'never'").daemon.idle_exit, None);
}

#[test]
fn file_overrides_only_the_keys_it_gives() {
    let config = read_well("[service.dev]\npreferred_ports = [4321]\n[service.docs]\n");
    let mut expected = Config::built_in();
    expected.services.get_mut("dev").expect("built in").preferred_ports = vec![4321];
    assert_eq!(config, expected);
}

#[test]
fn service_without_a_range_is_added() {
    assert_eq!(read_well("[service.e2e_2-x]").services["e2e_2-x"], ServiceType::default());
}

#[test]
fn unknown_keys_are_named_with_their_neighbour() {
    assert_found(
        "[deamon]\n[daemon]\nidle_exits = 1\n  colour = 2\n[services.dev]\n[service.dev]\nport-range = []\n",
        &[
            ("1:2", "unknown key 'deamon' in the configuration; did you mean 'daemon'?"),
            ("3:1", "'idle_exits' in [daemon]; did you mean 'idle_exit'?"),
            ("4:3", "'colour' in [daemon]; known are listen, idle_exit"),
            ("5:2", "did you mean 'service'?"),
            ("7:1", "did you mean 'port_range'?"),
        ],
    );
}

#[test]
fn what_is_wrong_is_left_out_and_the_rest_used() {
    let config = assert_found(
        "[daemon]\nlisten = 9876\nreap_interval = '20s'\n[service.dev]\nport_range = 'é'\npreferred_ports = [1, 0, 70000, 'x', 2]\ndescription = true\n",
        &[
            (
                "2:10",
                "listen: expected an address and a port such as \"127.0.0.1:9876\", found an integer",
            ),
            (
                "5:14",
                "port_range: expected a first and a last port such as [8000, 8099], found a string",
            ),
            ("6:23", "0 is not a port: ports go from 1 to 65535"),
            ("6:26", "70000 is not a port"),
            ("6:33", "preferred_ports: expected a port such as 8000, found a string"),
            ("7:15", "description: expected a string, found a boolean"),
        ],
    );
    let mut expected = Config::built_in();
    expected.daemon.reap_interval = Duration::from_secs(20);
    expected.services.get_mut("dev").expect("built in").preferred_ports = vec![1, 2];
    assert_eq!(config, expected);
}

#[test]
fn ranges_go_forwards_and_have_two_ends() {
    let config = assert_found(
        "[service]\na.port_range = [2, 1]\nb.port_range = []\nc.port_range = [1, 2, 3]\nd.port_range = [0, 65536]\n",
        &[
            ("2:16", "2 to 1 is backwards"),
            ("3:16", "found 0 values"),
            ("4:16", "found 3 values"),
            ("5:17", "0 is not a port"),
            ("5:20", "65536 is not a port"),
        ],
    );
    assert_eq!(config.services["a"].port_range, None);
    let wrong = ["1-", "-1", "2-1", "0-5", "1-65536", "+1-2", "1-2-3", "x", "", "7", "é-2"];
    for range in wrong {
        let config = assert_found(
            &format!("[daemon]\navoid = [1, \"{range}\", 3]\n"),
            &[("2:13", "avoid: ")],
        );
        assert_eq!(config.daemon.avoid, [1..=1, 3..=3], "{range}");
    }
}

#[test]
fn listen_is_a_loopback_address_with_a_port() {
    for (listen, words) in [
        ("0.0.0.0:9876", "not a loopback address"),
        ("192.168.1.2:9876", "not a loopback address"),
        ("[::]:9876", "not a loopback address"),
        ("127.0.0.1:0", "names no port"),
        ("127.0.0.1", "is not an address and a port"),
        ("localhost:9876", "is not an address and a port"),
        ("127.0.0.1:65536", "is not an address and a port"),
    ] {
        let config = assert_found(&format!("[daemon]\nlisten = '{listen}'"), &[("2:10", words)]);
        assert_eq!(config, Config::built_in(), "{listen}");
    }
}

#[test]
fn durations_have_a_unit_and_bounds() {
    for (key, duration, words) in [
        ("idle_exit", "49ms", "too short: it has to be at least 50ms"),
        ("idle_exit", "10", "not a duration: time unit needed"),
        ("idle_exit", "", "not a duration"),
        ("idle_exit", "soon", "not a duration"),
        ("idle_exit", "500 years", "too long"),
        ("reap_interval", "0s", "too short"),
        ("reap_interval", "never", "not a duration"),
        ("default_lease", "0s", "too short"),
        ("default_lease", "999us", "too short"),
        ("default_lease", "99999999999999999999s", "not a duration"),
    ] {
        let place = format!("2:{}", key.len() + 4);
        let config = assert_found(&format!("[daemon]\n{key} = '{duration}'"), &[(&place, words)]);
        assert_eq!(config, Config::built_in(), "{duration}");
    }
}

#[test]
fn service_names_need_no_quoting() {
    let long = "x".repeat(65);
    let config = assert_found(
        &format!(
            "service = {{ \"\" = {{}}, \"a b\" = {{}}, \"é\" = {{}}, {long} = {{}}, ok = {{}}, no = 1 }}"
        ),
        &[
            ("1:13", "'' can't name a service type"),
            ("1:22", "'a b' can't"),
            ("1:34", "'é' can't"),
            ("1:44", "…' can't"),
            ("1:130", "no: expected a table [service.NAME], found an integer"),
        ],
    );
    assert_eq!(config.services["ok"], ServiceType::default());
    assert_eq!(config.services.len(), Config::built_in().services.len() + 1);
}

#[test]
fn ephemeral_ports_are_a_warning() {
    let text = "[daemon]\noverflow = [30000, 32768]\n[service.x]\nport_range = [60999, 61000]\n[service.y]\nport_range = [61000, 62000]\n";
    let config = assert_found(
        text,
        &[
            ("2:12", "warning: overflow: 30000-32768 overlaps 32768-60999"),
            ("4:14", "warning: port_range: 60999-61000 overlaps"),
        ],
    );
    assert_eq!(config.daemon.overflow, 30000..=32768);
    assert_eq!(config.services["x"].port_range, Some(60999..=61000));
    let (unknown_kernel, diagnostics) = parse(Path::new("c.toml"), text, None);
    assert_eq!((unknown_kernel, diagnostics), (config, Vec::new()));
}

#[test]
fn tables_are_tables() {
    assert_found(
        "daemon = 1\nservice = ['dev']\n",
        &[
            ("1:10", "expected a table [daemon], found an integer"),
            ("2:11", "expected tables [service.NAME], found an array"),
        ],
    );
}

#[test]
fn messages_carry_no_control_characters() {
    let (_, found) = read("[daemon]\n\"\\u001b[2J\" = 1\nlisten = \"\\u0007\"\n");
    assert_eq!(found.len(), 2);
    assert!(!found.concat().contains(char::is_control), "{found:?}");
}

#[test]
fn columns_count_characters() {
    assert_found("\u{feff}x = 1\n", &[("1:1", "'x'")]);
    assert_found(
        "daemon = { idle_exit = \"1h\", \"ключ\" = 1, x = 2 }",
        &[("1:30", "'ключ'"), ("1:42", "'x'")],
    );
}

#[test]
fn syntax_error_leaves_out_what_follows_it_in_its_table() {
    let config = assert_found(
        "[daemon]\nreap_interval = '20s'\nidle_exit = 10m\ndefault_lease = '1h'\n\n[service.dev]\npreferred_ports = [4321]\n",
        &[("3:13", "not TOML: ")],
    );
    let mut expected = Config::built_in();
    expected.daemon.reap_interval = Duration::from_secs(20);
    expected.services.get_mut("dev").expect("built in").preferred_ports = vec![4321];
    assert_eq!(config, expected);
}

#[test]
fn keys_after_a_broken_header_go_to_no_other_table() {
    let config = assert_found(
        "[service.dev]\ndescription = 'mine'\n[service.x\nport_range = [1, 2]\npreferred_ports = [9]\n[service.ui]\npreferred_ports = [7]\n",
        &[("3:11", "not TOML: unclosed table")],
    );
    let mut expected = Config::built_in();
    expected.services.get_mut("dev").expect("built in").description = "mine".to_owned();
    expected.services.get_mut("ui").expect("built in").preferred_ports = vec![7];
    assert_eq!(config, expected);
}

#[test]
fn unclosed_value_is_left_out() {
    for text in [
        "[daemon]\noverflow = [1, 2\n",
        "[daemon]\noverflow = [1, 2\n\n\n",
        "[daemon]\noverflow = [1, 2",
        "[daemon]\nlisten = \"127.0.0.1:1\n",
        "[daemon]\nlisten = '''127.0.0.1:1\n",
        "[service.x",
        "[daemon]\nlisten =",
        "[daemon]\nlisten",
    ] {
        let (config, found) = read(text);
        assert_eq!(config, Config::built_in(), "{text}");
        assert_eq!(found.len(), 1, "{text}: {found:#?}");
        assert!(found[0].contains(": error: not TOML: "), "{found:#?}");
    }
}

#[test]
fn what_is_said_twice_counts_once() {
    let config = assert_found(
        "[daemon]\nidle_exit = '1h'\nidle_exit = '2h'\n",
        &[("3:1", "not TOML: duplicate key")],
    );
    assert_eq!(config.daemon.idle_exit, Some(Duration::from_secs(3600)));
}

#[test]
fn file_that_is_something_else_is_not_used() {
    let text = format!("daemon.idle_exit = '1h'\n{}", "[not toml\n".repeat(5_000));
    let (config, found) = read(&text);
    assert_eq!(config, Config::built_in());
    assert!((2..50).contains(&found.len()), "{} messages", found.len());
}

#[test]
fn mistakes_without_end_are_counted() {
    let text = format!("daemon.avoid = [7, {}]", "0, ".repeat(20_000));
    let (config, found) = read(&text);
    assert_eq!(config.daemon.avoid, [7..=7]);
    assert_eq!(found.len(), 101);
    assert!(found[100].ends_with("error: 19900 more mistakes are not listed"), "{}", found[100]);
}

proptest::proptest! {
    #[test]
    fn no_text_ends_the_reading(text in "[a-z\\[\\]{}=\"'\\.,\\-#0-9 \né\u{7f}]{0,60}", cut in 0_usize..400) {
        let whole = Config::built_in().to_toml();
        read(&text);
        let (_, found) = read(&format!("{}{text}\n{}", &whole[..cut], &whole[cut..]));
        for line in found {
            proptest::prop_assert!(!line.contains(":0:"), "{}", line);
        }
    }
}
