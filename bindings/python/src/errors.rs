//! The one place where the core's errors become Python exceptions. The
//! classes are Python (`python/mullama/errors.py`), so that type checkers see
//! them.

use crate::sink::Outcome;
use mullama::MullamaError as E;
use pyo3::{prelude::*, type_object::PyTypeInfo, types::PyDict};

/// Rust names for the Python classes.
mod classes {
    macro_rules! import {
        ($($name:ident),* $(,)?) => {$( pyo3::import_exception!(mullama.errors, $name); )*};
    }
    import! {
        MullamaError, ModelNotFoundError, InvalidModelError, ModelLoadError, ContextError, PromptTooLongError,
        InvalidInputError, TokenizationError, GenerationError, CancelledError, TimeoutError, QueueFullError,
        ClosedError, StateError, IoError, UnsupportedError, OutOfMemoryError, OperationFailedError, InternalError,
    }
}

/// The exception for an error, with the error's fields as attributes.
pub(crate) fn to_py(py: Python<'_>, error: E) -> PyErr {
    exception(py, error).unwrap_or_else(|failure| failure)
}

fn exception(py: Python<'_>, error: E) -> PyResult<PyErr> {
    let message = error.to_string();
    let code = error.code();
    let fields = PyDict::new(py);
    match error {
        E::ModelNotFound { path } => {
            fields.set_item("path", path)?;
            new::<classes::ModelNotFoundError>(message, &fields)
        }
        E::InvalidModel { path, reason } => {
            fields.set_item("path", path)?;
            fields.set_item("reason", reason)?;
            new::<classes::InvalidModelError>(message, &fields)
        }
        E::ModelLoad { path, reason } => {
            fields.set_item("path", path)?;
            fields.set_item("reason", reason)?;
            new::<classes::ModelLoadError>(message, &fields)
        }
        E::Context(_) => new::<classes::ContextError>(message, &fields),
        E::PromptTooLong { tokens, limit } => {
            fields.set_item("tokens", tokens)?;
            fields.set_item("limit", limit)?;
            new::<classes::PromptTooLongError>(message, &fields)
        }
        E::InvalidInput { field, value, reason } => {
            fields.set_item("field", field)?;
            fields.set_item("value", value)?;
            fields.set_item("reason", reason)?;
            new::<classes::InvalidInputError>(message, &fields)
        }
        E::Tokenization(_) => new::<classes::TokenizationError>(message, &fields),
        E::Generation(_) => new::<classes::GenerationError>(message, &fields),
        E::Cancelled => new::<classes::CancelledError>(message, &fields),
        E::Timeout { partial, after_ms } => {
            fields.set_item("partial", partial)?;
            fields.set_item("after_ms", after_ms)?;
            new::<classes::TimeoutError>(message, &fields)
        }
        E::QueueFull { limit } => {
            fields.set_item("limit", limit)?;
            new::<classes::QueueFullError>(message, &fields)
        }
        E::Closed(_) => new::<classes::ClosedError>(message, &fields),
        E::State(_) => new::<classes::StateError>(message, &fields),
        E::Io { kind, .. } => {
            fields.set_item("kind", kind.to_string())?;
            new::<classes::IoError>(message, &fields)
        }
        E::Unsupported(_) => new::<classes::UnsupportedError>(message, &fields),
        E::OutOfMemory(_) => new::<classes::OutOfMemoryError>(message, &fields),
        E::OperationFailed(_) => new::<classes::OperationFailedError>(message, &fields),
        E::Internal(_) => new::<classes::InternalError>(message, &fields),
        // The enum is not exhaustive. A test walks all variants and fails on
        // one that comes here.
        _ => {
            let error = new::<classes::MullamaError>(message, &fields)?;
            error.value(py).setattr("code", code)?;
            Ok(error)
        }
    }
}

fn new<T: PyTypeInfo>(message: String, fields: &Bound<'_, PyDict>) -> PyResult<PyErr> {
    let class = fields.py().get_type::<T>();
    Ok(PyErr::from_value(class.call((message,), Some(fields))?))
}

/// The Python value of an outcome, or its exception.
pub(crate) fn finish(py: Python<'_>, outcome: Outcome) -> PyResult<Py<PyAny>> {
    match outcome {
        Ok(value) => value(py),
        Err(error) => Err(to_py(py, error)),
    }
}

/// `InvalidInputError` for an argument that does not fit the core's types.
pub(crate) fn invalid(py: Python<'_>, field: &str, value: &Bound<'_, PyAny>, reason: impl Into<String>) -> PyErr {
    let error = E::InvalidInput { field: field.to_owned(), value: shown(value), reason: reason.into() };
    to_py(py, error)
}

/// The value as the caller would write it, cut where it is long.
fn shown(value: &Bound<'_, PyAny>) -> String {
    const LONGEST: usize = 100;
    let text = match value.str() {
        Ok(text) => text.to_string_lossy().into_owned(),
        Err(_) => format!("an object of {}", value.get_type()),
    };
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

pub(crate) fn internal(py: Python<'_>, message: &str) -> PyErr {
    to_py(py, E::Internal(message.to_owned()))
}
