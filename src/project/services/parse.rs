//! From the text of a styxy.toml to services.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use toml::de::{DeTable, DeValue};

use super::Service;
use crate::config::reader::{Key, Reader, Value, quoted};
use crate::config::{Config, Diagnostic, nearest};
use crate::text::printable;

const TOP_KEYS: [&str; 1] = ["services"];
const KEYS: [&str; 4] = ["type", "dir", "port", "env"];

/// The type of a service that says none.
const DEFAULT_TYPE: &str = "dev";

/// How long a service's name may be, in characters: as on the wire.
const LONGEST_NAME: usize = 128;

/// How many services a project may name: as many as one request can ask for.
const MOST: usize = 64;

pub(super) fn parse(file: &Path, text: &str, config: &Config) -> (Vec<Service>, Vec<Diagnostic>) {
    let (reader, table) = Reader::new(file, text);
    let mut parser = Parser { reader, config, variables: BTreeMap::new() };
    let mut services = Vec::new();
    for (key, value) in &table {
        match key.get_ref().as_ref() {
            name @ "services" => {
                if let Some(table) = parser.reader.table(name, value, "tables [services.NAME]") {
                    services = parser.services(table);
                }
            }
            _ if parser.reader.is_doubtful(key, value) => {}
            _ => parser.reader.unknown_key(key, &TOP_KEYS, "styxy.toml"),
        }
    }
    (services, parser.reader.into_diagnostics())
}

struct Parser<'t, 'c> {
    reader: Reader<'t>,
    config: &'c Config,
    /// Which service has which variable.
    variables: BTreeMap<String, String>,
}

impl<'t> Parser<'t, '_> {
    fn services(&mut self, table: &DeTable<'t>) -> Vec<Service> {
        // The table is in the order of names; what people see is in the order of the file.
        let mut entries: Vec<_> = table.iter().collect();
        entries.sort_by_key(|(key, _)| key.span().start);
        let mut services = Vec::with_capacity(entries.len());
        for (key, value) in entries {
            if self.reader.is_doubtful(key, value) || !self.is_name(key) {
                continue;
            }
            if services.len() == MOST {
                let message = format!("{MOST} services are the most that a project can have");
                self.reader.error(key.span(), message);
                break;
            }
            let name = key.get_ref();
            if let Some(table) = self.reader.table(name, value, "a table [services.NAME]") {
                services.extend(self.service(key, table));
            }
        }
        services
    }

    /// One service; none where its type or its variable is of no use.
    fn service(&mut self, key: &Key<'t>, table: &DeTable<'t>) -> Option<Service> {
        let mut service = Service::new(key.get_ref(), DEFAULT_TYPE);
        let mut is_right = true;
        let mut variable_at = key.span();
        for (key, value) in table {
            if self.reader.is_doubtful(key, value) {
                continue;
            }
            match key.get_ref().as_ref() {
                name @ "type" => match self.service_type(name, value) {
                    Some(service_type) => service.service_type = service_type,
                    None => is_right = false,
                },
                name @ "dir" => service.dir = self.directory(name, value),
                name @ "port" => service.port = self.reader.port(name, value),
                name @ "env" => match self.variable(name, value) {
                    Some(variable) => (service.variable, variable_at) = (variable, value.span()),
                    None => is_right = false,
                },
                _ => self.reader.unknown_key(key, &KEYS, "a [services.NAME] table"),
            }
        }
        let Service { name, variable, .. } = &service;
        if let Some(other) = self.variables.get(variable) {
            let message = format!(
                "the variable {variable} is {}'s already: give one of them another with env = \"…\"",
                printable(other)
            );
            self.reader.error(variable_at, message);
            return None;
        }
        self.variables.insert(variable.clone(), name.clone());
        is_right.then_some(service)
    }

    /// A service's name is what the wire takes.
    fn is_name(&mut self, key: &Key<'t>) -> bool {
        let name = key.get_ref();
        let wrong = if name.is_empty() {
            "is empty".to_owned()
        } else if name.chars().nth(LONGEST_NAME).is_some() {
            format!("is longer than {LONGEST_NAME} characters")
        } else if printable(name) != *name {
            "has control characters".to_owned()
        } else {
            return true;
        };
        self.reader.error(key.span(), format!("the service's name {} {wrong}", quoted(name)));
        false
    }

    fn service_type(&mut self, name: &str, value: &Value<'t>) -> Option<String> {
        let given = self.reader.string(name, value)?;
        if self.config.services.contains_key(&given) {
            return Some(given);
        }
        let known = self.config.services.keys().map(String::as_str);
        let hint = match nearest(&given, known.clone()) {
            Some(word) => format!("did you mean '{word}'?"),
            None => format!("known are {}", known.collect::<Vec<_>>().join(", ")),
        };
        let message = format!("{name}: {} is no service type; {hint}", quoted(&given));
        self.reader.error(value.span(), message);
        None
    }

    /// A directory below the root; `.` is the root itself.
    fn directory(&mut self, name: &str, value: &Value<'t>) -> Option<PathBuf> {
        let given = self.reader.string(name, value)?;
        let mut directory = PathBuf::new();
        for part in Path::new(&given).components() {
            match part {
                Component::Normal(part) => directory.push(part),
                Component::CurDir => {}
                Component::ParentDir | Component::RootDir | Component::Prefix(_) => {
                    let given = quoted(&given);
                    let message = format!(
                        "{name}: {given} is not below the project's root, such as \"apps/web\""
                    );
                    self.reader.error(value.span(), message);
                    return None;
                }
            }
        }
        Some(directory)
    }

    /// A name that every shell takes (POSIX.1-2017 XBD 3.235), and that is not Styxy's own.
    fn variable(&mut self, name: &str, value: &Value<'t>) -> Option<String> {
        let DeValue::String(given) = value.get_ref() else {
            return self.reader.wrong_type(name, value, r#"a variable's name such as "WEB_PORT""#);
        };
        let is_name = given.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
            && given.bytes().next().is_some_and(|first| !first.is_ascii_digit());
        let wrong = if !is_name {
            "is no variable's name: letters, digits and '_', and no digit first"
        } else if given.starts_with("STYXY_") {
            "is one of Styxy's own variables"
        } else {
            return Some(given.clone().into_owned());
        };
        self.reader.error(value.span(), format!("{name}: {} {wrong}", quoted(given)));
        None
    }
}
