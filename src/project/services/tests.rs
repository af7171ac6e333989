use super::*;

fn parse(text: &str) -> (Services, Vec<String>) {
    let file = Path::new("styxy.toml");
    let (services, diagnostics) = Services::parse(file, text, &Config::built_in());
    (services, diagnostics.iter().map(ToString::to_string).collect())
}

const SHOP: &str = r#"
[services.web]
type = "dev"
dir = "./apps/web/"
port = 5173
env = "SHOP_WEB"

[services.api]
type = "api"

["services"."odd name"]
dir = "."
"#;

#[test]
fn services_are_read_in_the_order_of_the_file() {
    let (services, wrong) = parse(SHOP);
    assert_eq!(wrong, [""; 0]);
    let web = Service {
        name: "web".to_owned(),
        service_type: "dev".to_owned(),
        dir: Some("apps/web".into()),
        port: Some(5173),
        variable: "SHOP_WEB".to_owned(),
    };
    let odd = Service { dir: Some(PathBuf::new()), ..Service::new("odd name", "dev") };
    assert_eq!(odd.variable, "ODD_NAME_PORT");
    assert_eq!(services.0, [web, Service::new("api", "api"), odd]);
}

#[test]
fn a_mistake_is_told_with_its_place_and_the_right_word() {
    let table = [
        (
            "[service.web]",
            "1:2: error: unknown key 'service' in styxy.toml; did you mean 'services'?",
        ),
        (
            "[services.web]\ntyp = \"dev\"",
            "2:1: error: unknown key 'typ' in a [services.NAME] table; did you mean 'type'?",
        ),
        (
            "[services.web]\ntype = \"stroybook\"",
            "2:8: error: type: 'stroybook' is no service type; did you mean 'storybook'?",
        ),
        ("[services.web]\nport = 0", "2:8: error: port: 0 is not a port: ports go from 1 to 65535"),
        (
            "[services.web]\ndir = \"../shop\"",
            "2:7: error: dir: '../shop' is not below the project's root, such as \"apps/web\"",
        ),
        (
            "[services.web]\nenv = \"3D\"",
            "2:7: error: env: '3D' is no variable's name: letters, digits and '_', and no digit first",
        ),
        (
            "[services.web]\nenv = \"STYXY_PORT\"",
            "2:7: error: env: 'STYXY_PORT' is one of Styxy's own variables",
        ),
        (
            "[services.a-b]\n[services.\"a.b\"]",
            "2:11: error: the variable A_B_PORT is a-b's already: give one of them another with \
             env = \"…\"",
        ),
        (
            "[services.web]\n[services.api]\nenv = \"WEB_PORT\"",
            "3:7: error: the variable WEB_PORT is web's already: give one of them another with \
             env = \"…\"",
        ),
        (
            "services.web = 3000",
            "1:16: error: web: expected a table [services.NAME], found an integer",
        ),
        ("[services.\"a\\nb\"]", "1:11: error: the service's name 'a\\nb' has control characters"),
        ("[services.\"\"]", "1:11: error: the service's name '' is empty"),
    ];
    for (text, expected) in table {
        let (_, wrong) = parse(text);
        assert_eq!(wrong, [format!("styxy.toml:{expected}")], "{text}");
    }
}

#[test]
fn a_mistake_costs_no_more_than_it_must() {
    let (services, wrong) = parse(
        "[services.web]\ntype = \"nope\"\n[services.api]\nport = 0\ntype = \"api\"\n[services.db]\n\
         type = \"database\"",
    );
    assert_eq!(wrong.len(), 2, "{wrong:?}");
    assert_eq!(services.0, [Service::new("api", "api"), Service::new("db", "database")]);
    let (services, wrong) = parse("[services.web]\nport = 5173\n[services.api\ntype = \"api\"\n");
    assert_eq!((services.0.len(), wrong.len()), (1, 1), "{wrong:?}");
}

#[test]
fn a_directory_is_its_deepest_services() {
    let (services, _) = parse(
        "[services.root]\ndir = \".\"\n[services.web]\ndir = \"apps/web\"\n[services.book]\n\
         type = \"storybook\"\ndir = \"apps/web\"\n[services.api]\ntype = \"api\"",
    );
    let of = |directory: &str, service_type| {
        services.of_directory(Path::new(directory), service_type).map(|it| it.name.as_str())
    };
    assert_eq!(of("apps/web/src", None), Some("web"), "the first of the file");
    assert_eq!(of("apps/web", Some("storybook")), Some("book"));
    assert_eq!(of("apps/website", None), Some("root"));
    assert_eq!(of("", None), Some("root"));
    assert_eq!(of("apps/web", Some("api")), None, "it names no directory");
}

#[test]
fn a_project_without_the_file_has_no_services() {
    let directory = tempfile::tempdir().expect("a directory");
    let read = || Services::read(directory.path(), &Config::built_in());
    assert_eq!(read(), (Services::default(), Vec::new()));
    std::fs::write(directory.path().join(FILE), SHOP).expect("a file");
    assert_eq!(read().0.all().len(), 3);
    std::fs::write(directory.path().join(FILE), [0xff]).expect("a file");
    assert_eq!(read().1.len(), 1, "not UTF-8");
}
