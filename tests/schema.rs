//! Tests of the JSON schemas in docs/schema/. The checker here knows the keywords that they use:
//! type, properties, required, items, enum, minimum, maximum, additionalProperties, and $ref within
//! a file. Any other keyword is an error.

use serde_json::Value;

use crate::project::repository;

#[track_caller]
pub fn check(value: &Value, name: &str) {
    let problems = problems(value, name);
    assert!(problems.is_empty(), "{name}.schema.json:\n{}", problems.join("\n"));
}

pub fn problems(value: &Value, name: &str) -> Vec<String> {
    let path = repository().join("docs/schema").join(format!("{name}.schema.json"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let schema: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let mut problems = Vec::new();
    validate(value, &schema, &schema, "$", &mut problems);
    problems
}

fn is(value: &Value, kind: &str) -> bool {
    match kind {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        other => panic!("no type {other}"),
    }
}

fn validate(value: &Value, schema: &Value, root: &Value, at: &str, problems: &mut Vec<String>) {
    for (keyword, rule) in schema.as_object().unwrap() {
        match keyword.as_str() {
            "$schema" | "$id" | "title" | "description" | "$defs" => (),
            "$ref" => {
                let pointer = rule.as_str().unwrap().strip_prefix('#').unwrap();
                validate(
                    value,
                    root.pointer(pointer).unwrap_or_else(|| panic!("{pointer} is not defined")),
                    root,
                    at,
                    problems,
                );
            }
            "type" => {
                let kinds: Vec<&str> = match rule {
                    Value::Array(kinds) => kinds.iter().map(|kind| kind.as_str().unwrap()).collect(),
                    kind => vec![kind.as_str().unwrap()],
                };
                if !kinds.iter().any(|kind| is(value, kind)) {
                    problems.push(format!("{at}: {value:.60} is not {kinds:?}"));
                }
            }
            "enum" => {
                if !rule.as_array().unwrap().contains(value) {
                    problems.push(format!("{at}: {value} is none of {rule}"));
                }
            }
            "minimum" | "maximum" => {
                let beyond = |v: f64, limit: f64| if keyword == "minimum" { v < limit } else { v > limit };
                if value.as_f64().is_some_and(|v| beyond(v, rule.as_f64().unwrap())) {
                    problems.push(format!("{at}: {value} is beyond the {keyword} {rule}"));
                }
            }
            "required" => {
                for key in rule.as_array().unwrap() {
                    if value.is_object() && value.get(key.as_str().unwrap()).is_none() {
                        problems.push(format!("{at}: {key} is missing"));
                    }
                }
            }
            "properties" => {
                for (key, rule) in rule.as_object().unwrap() {
                    if let Some(inner) = value.get(key) {
                        validate(inner, rule, root, &format!("{at}.{key}"), problems);
                    }
                }
            }
            "additionalProperties" => {
                let known = schema["properties"].as_object();
                for (key, inner) in value.as_object().into_iter().flatten() {
                    if known.is_some_and(|known| known.contains_key(key)) {
                        continue;
                    }
                    match rule {
                        Value::Bool(true) => (),
                        Value::Bool(false) => problems.push(format!("{at}: {key} is not known")),
                        rule => validate(inner, rule, root, &format!("{at}.{key}"), problems),
                    }
                }
            }
            "items" => {
                for (i, inner) in value.as_array().into_iter().flatten().enumerate() {
                    validate(inner, rule, root, &format!("{at}[{i}]"), problems);
                }
            }
            other => panic!("{at}: the keyword {other} is not understood"),
        }
    }
}
