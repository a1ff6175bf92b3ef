//! `mullama.backends` and `mullama.devices`.

use crate::{convert::ToPython, errors};
use pyo3::prelude::*;

/// What llama.cpp was built with.
#[pyfunction]
pub(crate) fn backends(py: Python<'_>) -> PyResult<Py<PyAny>> {
    // Drivers are looked for at the first call, which takes a while.
    py.detach(mullama::backends).map_err(|error| errors::to_py(py, error))?.to_python(py)
}

/// What was found to compute with.
#[pyfunction]
pub(crate) fn devices(py: Python<'_>) -> PyResult<Py<PyAny>> {
    py.detach(mullama::devices).map_err(|error| errors::to_py(py, error))?.to_python(py)
}
