//! The native side of `MullamaRuntime`, and the settings of the runtime that
//! the process shares.

use crate::{errors, operation::Operation, options, owned::Owned};
use mullama::{MullamaError, MullamaRuntime};
use pyo3::{prelude::*, types::PyDict};
use std::sync::Arc;

/// The one runtime of the process. Made at first use and not on import, so
/// that a process which only imported mullama may still be forked.
pub(crate) fn runtime() -> Result<&'static Arc<MullamaRuntime>, MullamaError> {
    let runtime = MullamaRuntime::shared()?;
    // An error only says that the crate was told before.
    let _ = pyo3_async_runtimes::tokio::init_with_runtime(runtime.tokio());
    Ok(runtime)
}

/// Sets how the shared runtime will be made.
#[pyfunction]
pub(crate) fn configure_runtime(options: &Bound<'_, PyDict>) -> PyResult<()> {
    let builder = options::runtime_options(options)?;
    MullamaRuntime::configure_shared(builder).map_err(|error| errors::to_py(options.py(), error))
}

/// The shared runtime.
#[pyclass(frozen, module = "mullama._mullama")]
pub(crate) struct Runtime(Owned<&'static Arc<MullamaRuntime>>);

#[pymethods]
impl Runtime {
    /// Starts the runtime if nothing has used it before.
    #[new]
    fn new(py: Python<'_>) -> PyResult<Self> {
        runtime().map(|runtime| Self(Owned::new(runtime))).map_err(|error| errors::to_py(py, error))
    }

    fn metrics(&self, py: Python<'_>) -> PyResult<Operation> {
        let runtime = *self.0.get(py)?;
        Ok(Operation::uncounted(move |_| async move { Ok(runtime.metrics().await) }))
    }

    fn metrics_text(&self, py: Python<'_>) -> PyResult<Operation> {
        let runtime = *self.0.get(py)?;
        Ok(Operation::uncounted(move |_| async move { Ok(runtime.metrics_text().await) }))
    }

    fn is_running(&self, py: Python<'_>) -> PyResult<bool> {
        Ok(self.0.get(py)?.is_running())
    }

    /// The part of a `repr` after the class's name. Works in a forked child.
    fn description(&self) -> &'static str {
        match self.0.peek() {
            None => "of the parent process",
            Some(runtime) if runtime.is_running() => "running",
            Some(_) => "shut down",
        }
    }
}
