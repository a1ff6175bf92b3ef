//! The one place where a [`MullamaError`] becomes a JavaScript error.
//!
//! napi's errors carry a status and a text, so the text is JSON with the code
//! and the fields of the variant; `../lib/errors.js` turns it into a
//! `MullamaError`. A text that is not JSON comes from napi or from a panic and
//! becomes `internal` there.

use mullama::MullamaError;
use serde_json::{Map, Value, json};

/// An error of the core's.
pub(crate) fn to_js(error: &MullamaError) -> napi::Error {
    refused(&in_javascript_spelling(error))
}

/// An error about an argument, named as the caller named it.
pub(crate) fn refused(error: &MullamaError) -> napi::Error {
    napi::Error::from_reason(payload(error).to_string())
}

fn payload(error: &MullamaError) -> Value {
    let mut fields = match error {
        MullamaError::ModelNotFound { path } => object(json!({ "path": path })),
        MullamaError::InvalidModel { path, reason } | MullamaError::ModelLoad { path, reason } => {
            object(json!({ "path": path, "reason": reason }))
        }
        MullamaError::PromptTooLong { tokens, limit } => object(json!({ "tokens": tokens, "limit": limit })),
        MullamaError::InvalidInput { field, value, reason } => {
            object(json!({ "field": field, "value": value, "reason": reason }))
        }
        MullamaError::Timeout { partial, after_ms } => object(json!({ "partial": partial, "afterMs": after_ms })),
        MullamaError::QueueFull { limit } => object(json!({ "limit": limit })),
        MullamaError::Io { kind, .. } => object(json!({ "kind": kind.to_string() })),
        _ => Map::new(),
    };
    fields.insert("code".to_owned(), error.code().into());
    fields.insert("message".to_owned(), error.to_string().into());
    Value::Object(fields)
}

/// The core names fields in Rust's spelling (`top_p`); JavaScript callers gave
/// `topP`, and times under names that tell their unit.
fn in_javascript_spelling(error: &MullamaError) -> MullamaError {
    match error {
        MullamaError::InvalidInput { field, value, reason } => {
            MullamaError::InvalidInput { field: camel_case(field), value: value.clone(), reason: reason.clone() }
        }
        other => other.clone(),
    }
}

fn camel_case(name: &str) -> String {
    if name == "interval" {
        return "intervalMs".to_owned();
    }
    let mut parts = name.split('_');
    let mut camel = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let mut letters = part.chars();
        camel.extend(letters.next().map(|first| first.to_ascii_uppercase()));
        camel.push_str(letters.as_str());
    }
    camel
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}
