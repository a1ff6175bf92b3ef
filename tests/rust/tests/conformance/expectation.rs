//! Compares what was found with what a case expects. The README's chapter
//! 'Expectations' has the list.

use crate::value::{length, list, operator, text};
use serde_json::{Value, json};

/// Fails with where and how `found` is not as `expected`.
pub(crate) fn check(expected: &Value, found: &Value) -> Result<(), String> {
    if let Some((name, argument)) = operator(expected) {
        return check_operator(name, argument, found);
    }
    match (expected, found) {
        (Value::Object(expected), Value::Object(found)) => expected
            .iter()
            .try_for_each(|(key, item)| within(&format!(".{key}"), item, found.get(key).unwrap_or(&Value::Null))),
        (Value::Array(expected), Value::Array(found)) if expected.len() == found.len() => {
            let mut pairs = expected.iter().zip(found).enumerate();
            pairs.try_for_each(|(at, (expected, found))| within(&format!("[{at}]"), expected, found))
        }
        (Value::Number(_), Value::Number(_)) => holds(same_number(expected, found), "", expected, found),
        _ => holds(expected == found, "", expected, found),
    }
}

fn check_operator(name: &str, expected: &Value, found: &Value) -> Result<(), String> {
    let matches = |expected: &Value, found: &Value| check(expected, found).is_ok();
    let compared = || number(found).partial_cmp(&number(expected)).expect("results are finite");
    let is = match name {
        "$len" => return within(" (length)", expected, &json!(length(found))),
        "$and" => return list(expected).iter().try_for_each(|item| check(item, found)),
        "$all" => {
            let mut items = list(found).iter().enumerate();
            return items.try_for_each(|(at, item)| within(&format!("[{at}]"), expected, item));
        }
        "$or" => list(expected).iter().any(|item| matches(item, found)),
        "$not" => !matches(expected, found),
        "$gt" => compared().is_gt(),
        "$gte" => compared().is_ge(),
        "$lt" => compared().is_lt(),
        "$lte" => compared().is_le(),
        "$starts_with" => text(found).starts_with(text(expected)),
        "$ends_with" => text(found).ends_with(text(expected)),
        "$contains" => match found {
            Value::String(found) => found.contains(text(expected)),
            _ => list(found).iter().any(|item| matches(expected, item)),
        },
        "$is" => is_of_type(text(expected), found),
        "$falling" => {
            let key = text(expected);
            list(found).windows(2).all(|pair| number(&pair[0][key]) >= number(&pair[1][key]))
        }
        _ => panic!("there is no operator '{name}'"),
    };
    holds(is, name, expected, found)
}

fn within(place: &str, expected: &Value, found: &Value) -> Result<(), String> {
    check(expected, found).map_err(|fault| format!("{place}{fault}"))
}

fn holds(is: bool, name: &str, expected: &Value, found: &Value) -> Result<(), String> {
    if is {
        Ok(())
    } else {
        Err(format!(": expected {name} {expected}, got {found}"))
    }
}

/// 1 equals 1.0; whole numbers past 2^53 are compared exactly.
fn same_number(a: &Value, b: &Value) -> bool {
    a == b || (a.is_f64() != b.is_f64() && number(a) == number(b))
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("expected a number, got {value}"))
}

fn is_of_type(name: &str, value: &Value) -> bool {
    match name {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_u64() || value.is_i64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "list" => value.is_array(),
        "object" => value.is_object(),
        _ => panic!("there is no type '{name}'"),
    }
}
