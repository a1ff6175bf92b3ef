//! Values: what computes one is replaced by what it computes. The README's
//! chapter 'Values' has the list.

use serde_json::{Map, Value, json};

/// The name and argument of an operator, if the value is one.
pub(crate) fn operator(value: &Value) -> Option<(&str, &Value)> {
    let (name, argument) = value.as_object().filter(|map| map.len() == 1)?.iter().next()?;
    name.starts_with('$').then_some((name, argument))
}

/// `value` without anything that still has to be computed. Numbers that JSON
/// can't hold stay `$number`; [`float`] reads them.
///
/// # Panics
/// On a case that makes no sense; the schema can't see all of them.
pub(crate) fn resolve(value: &Value, saved: &Map<String, Value>) -> Value {
    match value {
        Value::Array(items) => items.iter().map(|item| resolve(item, saved)).collect(),
        Value::Object(map) => {
            let resolved = Value::Object(map.iter().map(|(key, item)| (key.clone(), resolve(item, saved))).collect());
            match operator(&resolved).and_then(|(name, argument)| compute(name, argument, saved)) {
                Some(computed) => computed,
                None => resolved,
            }
        }
        plain => plain.clone(),
    }
}

fn compute(name: &str, argument: &Value, saved: &Map<String, Value>) -> Option<Value> {
    Some(match name {
        "$get" => {
            let keys: Vec<_> = text(argument).split(['.', '[', ']']).filter(|key| !key.is_empty()).collect();
            part(saved.get(keys[0]).unwrap_or_else(|| panic!("nothing is saved as '{}'", keys[0])), &keys[1..])
        }
        "$slice" => {
            let items = parts(&argument[0]);
            let at = |value: &Value| match value.as_i64().expect("a place is a whole number") {
                at if at < 0 => items.len().saturating_sub(at.unsigned_abs() as usize),
                at => (at as usize).min(items.len()),
            };
            let (from, to) = (at(&argument[1]), argument.get(2).map_or(items.len(), at));
            joined(&argument[0], items[from..to.max(from)].to_vec())
        }
        "$concat" => joined(&argument[0], list(argument).iter().flat_map(parts).collect()),
        "$repeat" => {
            let n = argument[1].as_u64().expect("a count is a whole number") as usize;
            let part = parts(&argument[0]);
            joined(&argument[0], (0..n).flat_map(|_| part.clone()).collect())
        }
        "$length" => json!(length(argument)),
        "$sum" => json!(list(argument).iter().map(|n| n.as_i64().expect("whole numbers are added")).sum::<i64>()),
        "$number" => match text(argument) {
            "nan" | "inf" | "-inf" => return None,
            digits => json!(digits.parse::<u64>().unwrap_or_else(|error| panic!("'{digits}': {error}"))),
        },
        "$script" => {
            list(argument).iter().enumerate().map(|(place, token)| json!([token, 1_000_000 - 10_000 * place])).collect()
        }
        _ => return None,
    })
}

fn part(value: &Value, keys: &[&str]) -> Value {
    let Some((key, rest)) = keys.split_first() else { return value.clone() };
    match value {
        Value::Array(items) if *key == "*" => items.iter().map(|item| part(item, rest)).collect(),
        Value::Array(items) => {
            let at: i64 = key.parse().unwrap_or_else(|_| panic!("'{key}' is no place in a list"));
            let at = if at < 0 { items.len() - at.unsigned_abs() as usize } else { at as usize };
            part(&items[at], rest)
        }
        map => part(map.get(key).unwrap_or_else(|| panic!("there is no '{key}' in {map}")), rest),
    }
}

/// The characters of a string, or the items of a list.
fn parts(value: &Value) -> Vec<Value> {
    match value {
        Value::String(text) => text.chars().map(|character| json!(character)).collect(),
        other => list(other).to_vec(),
    }
}

/// Parts as what `like` is.
fn joined(like: &Value, parts: Vec<Value>) -> Value {
    if like.is_string() {
        parts.iter().map(text).collect::<String>().into()
    } else {
        parts.into()
    }
}

pub(crate) fn length(value: &Value) -> usize {
    match value {
        Value::String(text) => text.chars().count(),
        other => list(other).len(),
    }
}

pub(crate) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("expected a string, got {value}"))
}

pub(crate) fn list(value: &Value) -> &[Value] {
    value.as_array().unwrap_or_else(|| panic!("expected a list, got {value}"))
}

/// A number, or a `$number` that JSON can't hold.
pub(crate) fn float(value: &Value) -> f64 {
    match operator(value) {
        Some(("$number", digits)) => text(digits).parse().expect("Rust reads nan, inf and -inf"),
        _ => value.as_f64().unwrap_or_else(|| panic!("expected a number, got {value}")),
    }
}
