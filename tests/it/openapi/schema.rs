//! As much of JSON Schema 2020-12 as `openapi.json` uses.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

/// What in `value` is not as `schema` says, each with the way to it.
///
/// A property that the schema does not name is wrong too, and so is a keyword that this function
/// does not know: nothing passes unread.
pub(crate) fn mismatches(document: &Value, schema: &Value, value: &Value, at: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    for (keyword, rule) in schema.as_object().expect("a schema is an object") {
        let fits = match keyword.as_str() {
            "description" | "default" | "required" => true,
            "$ref" => {
                let pointer =
                    rule.as_str().and_then(|r| r.strip_prefix('#')).expect("a local $ref");
                let target = document.pointer(pointer).expect("it leads somewhere");
                wrong.extend(mismatches(document, target, value, at));
                true
            }
            "anyOf" => list(rule).iter().any(|s| mismatches(document, s, value, at).is_empty()),
            "type" => is_of_type(rule, value),
            "const" => rule == value,
            "enum" => list(rule).contains(value),
            "format" => value.as_str().is_none_or(|text| has_format(rule, text)),
            "minimum" => value.as_f64().is_none_or(|n| rule.as_f64().is_some_and(|min| n >= min)),
            "maximum" => value.as_f64().is_none_or(|n| rule.as_f64().is_some_and(|max| n <= max)),
            "minItems" => value.as_array().is_none_or(|a| Some(a.len() as u64) >= rule.as_u64()),
            "maxItems" => value.as_array().is_none_or(|a| Some(a.len() as u64) <= rule.as_u64()),
            "items" => {
                for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                    wrong.extend(mismatches(document, rule, item, &format!("{at}[{index}]")));
                }
                true
            }
            "properties" | "additionalProperties" => {
                wrong.extend(wrong_properties(document, schema, value, at));
                true
            }
            _ => false,
        };
        if !fits {
            wrong.push(format!("{at}: {value} against {keyword}: {rule}"));
        }
    }
    wrong
}

fn wrong_properties(document: &Value, schema: &Value, value: &Value, at: &str) -> Vec<String> {
    let Some(object) = value.as_object() else { return Vec::new() };
    let missing = required(schema).into_iter().filter(|name| !object.contains_key(*name));
    let mut wrong: Vec<String> = missing.map(|name| format!("{at}.{name} is missing")).collect();
    for (name, value) in object {
        let rule = schema["properties"].get(name).or_else(|| schema.get("additionalProperties"));
        match rule {
            Some(rule) => {
                wrong.extend(mismatches(document, rule, value, &format!("{at}.{name}")));
            }
            None => wrong.push(format!("{at}.{name} is not in the schema")),
        }
    }
    wrong
}

fn is_of_type(rule: &Value, value: &Value) -> bool {
    let is = |name: &Value| match name.as_str().expect("a type is a word") {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_u64() || value.is_i64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("{other} is no type of JSON Schema"),
    };
    rule.as_array().map_or_else(|| is(rule), |types| types.iter().any(is))
}

fn has_format(rule: &Value, text: &str) -> bool {
    match rule.as_str() {
        Some("uuid") => uuid::Uuid::parse_str(text).is_ok(),
        Some("date-time") => humantime::parse_rfc3339(text).is_ok(),
        _ => false,
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().expect("a list")
}

pub(crate) fn keys(value: &Value) -> BTreeSet<&str> {
    value.as_object().expect("an object").keys().map(String::as_str).collect()
}

pub(crate) fn properties(schema: &Value) -> &Map<String, Value> {
    schema["properties"].as_object().expect("an object schema has properties")
}

pub(crate) fn required(schema: &Value) -> BTreeSet<&str> {
    schema.get("required").map(list).unwrap_or_default().iter().filter_map(Value::as_str).collect()
}

pub(crate) fn may_be_null(property: &Value) -> bool {
    let null = json!("null");
    property["type"] == null
        || property["type"].as_array().is_some_and(|types| types.contains(&null))
        || property["anyOf"].as_array().is_some_and(|any| any.iter().any(may_be_null))
}
