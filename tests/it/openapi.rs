//! `/openapi.json` says what the code does: the router's routes, and the wire types as serde
//! writes and reads them.

mod samples;
mod schema;

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;
use styxy::config::Config;

use samples::samples;
use schema::{keys, may_be_null, mismatches, properties, required};

const DOCUMENT: &str = include_str!("../../src/http/openapi.json");

/// Schemas that belong to no type of `api.rs`.
const OTHER_SCHEMAS: [&str; 3] = ["Config", "ErrorCode", "ServiceType"];

fn document() -> Value {
    serde_json::from_str(DOCUMENT).expect("openapi.json is JSON")
}

fn schema_of<'a>(document: &'a Value, name: &str) -> &'a Value {
    let schema = &document["components"]["schemas"][name];
    assert!(schema.is_object(), "openapi.json has no schema {name}");
    schema
}

#[test]
fn the_document_has_the_routes_of_the_router() {
    let document = document();
    let paths = document["paths"].as_object().expect("paths is an object");
    let described: BTreeSet<(String, String)> = paths
        .iter()
        .flat_map(|(path, item)| {
            let methods = item.as_object().expect("a path item is an object").keys();
            methods.map(move |method| (method.to_ascii_uppercase(), path.clone()))
        })
        .collect();
    let served: BTreeSet<(String, String)> = styxy::http::ROUTES
        .iter()
        .map(|(method, path)| ((*method).to_owned(), (*path).to_owned()))
        .collect();
    assert_eq!(described, served, "left: openapi.json, right: styxy::http::ROUTES");
}

#[test]
fn the_document_is_of_this_version() {
    assert_eq!(document()["info"]["version"], env!("CARGO_PKG_VERSION"));
}

#[test]
fn every_path_parameter_is_described() {
    let document = document();
    for (path, item) in document["paths"].as_object().expect("paths is an object") {
        let in_path: BTreeSet<&str> =
            path.split('/').filter_map(|p| p.strip_prefix('{')?.strip_suffix('}')).collect();
        for (method, operation) in item.as_object().expect("a path item is an object") {
            let parameters = operation["parameters"].as_array().map_or(&[][..], Vec::as_slice);
            let described: BTreeSet<&str> = parameters
                .iter()
                .filter(|p| p["in"] == "path")
                .filter_map(|p| p["name"].as_str())
                .collect();
            assert_eq!(described, in_path, "{method} {path}");
        }
    }
}

#[test]
fn every_reference_leads_somewhere() {
    fn walk(document: &Value, value: &Value) {
        if let Some(reference) = value.get("$ref").and_then(Value::as_str) {
            let pointer = reference.strip_prefix('#').expect("references stay in the document");
            assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
        }
        match value {
            Value::Object(map) => map.values().for_each(|v| walk(document, v)),
            Value::Array(list) => list.iter().for_each(|v| walk(document, v)),
            _ => {}
        }
    }
    let document = document();
    walk(&document, &document);
}

/// A new type in `api.rs` needs a schema and a sample below.
#[test]
fn every_type_of_the_wire_has_a_schema_and_a_sample() {
    let types = declared_types(include_str!("../../src/api.rs"));
    let document = document();
    let schemas = document["components"]["schemas"].as_object().expect("schemas is an object");
    let described: BTreeSet<&str> =
        schemas.keys().map(String::as_str).filter(|name| !OTHER_SCHEMAS.contains(name)).collect();
    assert_eq!(described, types, "left: openapi.json, right: src/api.rs");
    let with_sample: BTreeSet<&str> = samples().iter().map(|s| s.name).collect();
    assert_eq!(with_sample, types, "left: the samples of this test, right: src/api.rs");
}

fn declared_types(source: &str) -> BTreeSet<&str> {
    source
        .lines()
        .filter_map(|line| line.strip_prefix("pub struct ").or(line.strip_prefix("pub enum ")))
        .filter_map(|rest| rest.split(|c: char| !c.is_alphanumeric()).next())
        .collect()
}

#[test]
fn every_value_fits_its_schema() {
    let document = document();
    for sample in samples() {
        let schema = schema_of(&document, sample.name);
        for value in [&sample.full, &sample.bare] {
            let wrong = mismatches(&document, schema, value, sample.name);
            assert!(wrong.is_empty(), "{wrong:#?}\nin {value:#}");
        }
    }
}

#[test]
fn property_names_are_the_field_names() {
    let document = document();
    for sample in samples().iter().filter(|s| s.full.is_object()) {
        let described = keys(&schema_of(&document, sample.name)["properties"]);
        assert_eq!(described, keys(&sample.full), "{}", sample.name);
    }
}

/// Absent values are null in an answer, never missing; what may be null is said, and nothing else.
#[test]
fn answers_require_every_field_and_say_which_may_be_null() {
    let document = document();
    for sample in samples().iter().filter(|s| s.full.is_object() && !s.is_request) {
        let schema = schema_of(&document, sample.name);
        assert_eq!(required(schema), keys(&schema["properties"]), "{}", sample.name);
        for (field, property) in properties(schema) {
            let is_null = sample.bare[field].is_null();
            assert_eq!(may_be_null(property), is_null, "{}.{field}", sample.name);
        }
    }
}

/// What a request may leave out or set to null is what the daemon reads without it.
#[test]
fn requests_require_what_the_daemon_requires() {
    let document = document();
    for sample in samples().iter().filter(|s| s.is_request) {
        let schema = schema_of(&document, sample.name);
        for (field, property) in properties(schema) {
            let mut without = sample.full.clone();
            without.as_object_mut().expect("a request is an object").remove(field);
            let is_required = required(schema).contains(field.as_str());
            assert_eq!((sample.read)(without).is_err(), is_required, "{}.{field}", sample.name);
            let mut with_null = sample.full.clone();
            with_null[field] = Value::Null;
            let reads_null = (sample.read)(with_null).is_ok();
            assert_eq!(may_be_null(property), reads_null, "{}.{field}", sample.name);
        }
    }
}

/// A code that nothing makes any more is described in vain, and one that is not described is one
/// that no client can rely on.
#[test]
fn the_described_codes_are_those_that_the_code_makes() {
    let document = document();
    let described: BTreeSet<String> = schema_of(&document, "ErrorCode")["enum"]
        .as_array()
        .expect("the codes are a list")
        .iter()
        .filter_map(|code| Some(code.as_str()?.to_owned()))
        .collect();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let made: BTreeSet<String> = ["error.rs", "http", "coordinator", "registry", "store", "daemon"]
        .iter()
        .flat_map(|part| codes_made_in(&source.join(part)))
        .collect();
    assert_eq!(described, made, "left: openapi.json, right: src");

    // What a client says by itself, with no daemon to refuse it, is on its own page.
    let by_client = ["cli", "client"].iter().flat_map(|part| codes_made_in(&source.join(part)));
    let manual = include_str!("../../man/styxy.1");
    for code in by_client.filter(|code| !described.contains(code)) {
        assert!(manual.contains(&format!(".Li {code}")), "styxy.1 does not know the code {code}");
    }
}

/// The codes that a source file, or those in a directory, make outside of their tests.
fn codes_made_in(place: &Path) -> BTreeSet<String> {
    if place.is_dir() {
        let files =
            std::fs::read_dir(place).expect("a directory").map(|file| file.expect("a file"));
        return files.flat_map(|file| codes_made_in(&file.path())).collect();
    }
    let text = std::fs::read_to_string(place).expect("source code");
    let text = text.split("#[cfg(test)]").next().unwrap_or_default();
    // `Error::code` is one arm a code: `Self::UnknownLock(_) => "unknown_lock",`
    let arms = text
        .lines()
        .filter(|_| place.ends_with("error.rs"))
        .filter_map(|line| line.trim().strip_prefix("Self::")?.split_once("=> \""))
        .filter_map(|(_, code)| code.strip_suffix("\","));
    // The code stands behind the status: `Refusal::new(StatusCode::FORBIDDEN, "forbidden_peer", …`
    let refusals = text.split("Refusal::new(").skip(1).map(|rest| {
        let (_, rest) = rest.split_once(',').expect("a status");
        literal(rest)
            .unwrap_or_else(|| panic!("{}: a code is written where it is made", place.display()))
    });
    let responses = text.split("error::response(").skip(1).filter_map(literal);
    arms.chain(refusals).chain(responses).map(str::to_owned).collect()
}

/// The string that source code begins with.
fn literal(source: &str) -> Option<&str> {
    source.trim_start().strip_prefix('"')?.split('"').next()
}

#[test]
fn the_configuration_fits_its_schema() {
    let document = document();
    let config = Config::built_in().to_json();
    let wrong = mismatches(&document, schema_of(&document, "Config"), &config, "Config");
    assert!(wrong.is_empty(), "{wrong:#?}\nin {config:#}");
}
