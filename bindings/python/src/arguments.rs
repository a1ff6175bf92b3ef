//! Single Python values as Rust ones. Only what no Rust type can hold is
//! refused here, with `InvalidInputError`.

use crate::errors::invalid;
use mullama::TokenId;
use pyo3::{
    PyTypeInfo,
    prelude::*,
    types::{PyBool, PyInt, PyString},
};
use std::path::PathBuf;

/// A text argument: a `str` without lone surrogates.
pub(crate) fn text(field: &str, value: &Bound<'_, PyAny>) -> PyResult<String> {
    let py = value.py();
    let text = value.cast::<PyString>().map_err(|_| invalid(py, field, value, "use a str"))?;
    text.to_str().map(str::to_owned).map_err(|_| {
        // Not the value: it can't be shown.
        let kind = PyString::new(py, "a str with lone surrogates");
        invalid(py, field, kind.as_any(), "use text that can be encoded as UTF-8")
    })
}

/// A `str` or an `os.PathLike`.
pub(crate) fn path(value: &Bound<'_, PyAny>) -> PyResult<PathBuf> {
    value.extract().map_err(|_| invalid(value.py(), "path", value, "use a str or an os.PathLike"))
}

pub(crate) fn token_ids(value: &Bound<'_, PyAny>) -> PyResult<Vec<TokenId>> {
    integers("tokens", value, "use a sequence of token ids")
}

/// Several whole numbers; `wanted` is the reason for what is no sequence.
pub(crate) fn integers<'py, T>(field: &str, value: &Bound<'py, PyAny>, wanted: &str) -> PyResult<Vec<T>>
where
    T: for<'a> FromPyObject<'a, 'py> + Bounds,
{
    let items = value.try_iter().map_err(|_| invalid(value.py(), field, value, wanted))?;
    items.map(|item| integer(field, &item?)).collect()
}

/// The native side of an object of the package.
pub(crate) fn native<'py, T: PyTypeInfo>(object: &Bound<'py, PyAny>) -> Option<Bound<'py, T>> {
    let native = object.getattr(pyo3::intern!(object.py(), "_native")).ok()?;
    native.cast_into().ok()
}

pub(crate) fn boolean(field: &str, value: &Bound<'_, PyAny>) -> PyResult<bool> {
    let flag = value.cast::<PyBool>().map_err(|_| invalid(value.py(), field, value, "use True or False"))?;
    Ok(flag.is_true())
}

/// A whole number that fits `T`. `bool` is refused although Python counts it
/// as an `int`; other integer types (numpy's) are taken by `__index__`.
pub(crate) fn integer<'py, T>(field: &str, value: &Bound<'py, PyAny>) -> PyResult<T>
where
    T: for<'a> FromPyObject<'a, 'py> + Bounds,
{
    let is_integer = !value.is_instance_of::<PyBool>()
        && (value.is_instance_of::<PyInt>() || value.hasattr(pyo3::intern!(value.py(), "__index__"))?);
    if !is_integer {
        return Err(invalid(value.py(), field, value, "use a whole number"));
    }
    value.extract().map_err(|_| {
        let reason = format!("use a whole number from {} to {}", T::LEAST, T::MOST);
        invalid(value.py(), field, value, reason)
    })
}

/// The least and the most that an integer type holds.
pub(crate) trait Bounds {
    const LEAST: i128;
    const MOST: i128;
}

macro_rules! bounds {
    ($($type:ty),*) => {$(
        impl Bounds for $type {
            const LEAST: i128 = Self::MIN as i128;
            const MOST: i128 = Self::MAX as i128;
        }
    )*};
}
bounds!(i32, u64, usize);

/// A number as `f32`. What only `f64` holds is refused: it would turn into
/// infinity, which is not what the caller wrote.
pub(crate) fn float(field: &str, value: &Bound<'_, PyAny>) -> PyResult<f32> {
    let py = value.py();
    let refused = |reason: &str| Err(invalid(py, field, value, reason));
    if value.is_instance_of::<PyBool>() || value.is_instance_of::<PyString>() {
        return refused("use a number");
    }
    let Ok(wide) = value.extract::<f64>() else { return refused("use a number") };
    #[expect(clippy::cast_possible_truncation, reason = "checked in the next line")]
    let narrow = wide as f32;
    if wide.is_finite() && narrow.is_infinite() {
        refused("use a smaller number")
    } else {
        Ok(narrow)
    }
}
