//! The native module `mullama._mullama` behind the Python package `mullama`.
//!
//! It converts arguments, makes one call into the core and converts the
//! result; the public classes are Python (`python/mullama`). Defaults and
//! validation are the core's alone.
//!
//! Threads: every function here runs on a Python thread that holds the GIL.
//! Futures run on `MullamaRuntime::shared()`, and what runs there touches no
//! Python object: results cross over as messages (`sink.rs`) which the event
//! loop's own thread (`mailbox.rs`) or the waiting thread (`operation.rs`)
//! turns into Python objects.
//!
//! `pyo3-async-runtimes` finds the running loop, carries it across threads and
//! is told which runtime to use. Its `future_into_py` is deliberately not
//! used: it attaches to the interpreter from a thread of its own for each
//! result, which aborts the process when the interpreter is finalizing
//! (Python before 3.14), prints a traceback when the loop was closed
//! meanwhile, and wakes the loop once a future instead of once for all that
//! is ready.

#![deny(unsafe_code)]

mod arguments;
mod batch;
mod begun;
mod context;
mod convert;
mod devices;
mod errors;
mod gate;
mod mailbox;
mod model;
mod operation;
mod options;
mod owned;
mod pool;
mod runtime;
mod sink;
mod stream;
mod submit;
mod tasks;
mod worker;

use crate::runtime::runtime;
use mullama::MullamaError;
use pyo3::{exceptions::PyImportError, prelude::*};

/// Ends all native work; `atexit` calls it, before the interpreter finalizes.
#[pyfunction]
fn shutdown(py: Python<'_>) {
    if owned::was_forked() {
        return;
    }
    py.detach(|| {
        gate::EXIT.close();
        mullama::close_all();
    });
}

/// One instance of every error, in the order of their codes; for tests.
#[pyfunction]
fn error_examples(py: Python<'_>) -> Vec<(&'static str, Py<PyAny>)> {
    MullamaError::examples()
        .into_iter()
        .map(|error| (error.code(), errors::to_py(py, error).into_value(py).into_any()))
        .collect()
}

/// Refuses a processor that would end the process with SIGILL, before
/// anything of llama.cpp runs.
///
/// # Errors
/// `ImportError`, caused by `UnsupportedError`.
fn check_cpu(py: Python<'_>) -> PyResult<()> {
    mullama::check_cpu().map_err(|cause| {
        let error = PyImportError::new_err(cause.to_string());
        error.set_cause(py, Some(errors::to_py(py, cause)));
        error
    })
}

#[pymodule]
fn _mullama(module: &Bound<'_, PyModule>) -> PyResult<()> {
    check_cpu(module.py())?;
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add_class::<batch::Batch>()?;
    module.add_class::<context::Context>()?;
    module.add_class::<mailbox::Mailbox>()?;
    module.add_class::<model::Model>()?;
    module.add_class::<operation::Operation>()?;
    module.add_class::<pool::ModelPool>()?;
    module.add_class::<runtime::Runtime>()?;
    module.add_class::<stream::TokenStream>()?;
    module.add_class::<tasks::GenerationTask>()?;
    module.add_class::<tasks::TaskManager>()?;
    module.add_class::<worker::Worker>()?;
    module.add_function(wrap_pyfunction!(model::load, module)?)?;
    module.add_function(wrap_pyfunction!(context::create_context, module)?)?;
    module.add_function(wrap_pyfunction!(pool::create_pool, module)?)?;
    module.add_function(wrap_pyfunction!(runtime::configure_runtime, module)?)?;
    module.add_function(wrap_pyfunction!(devices::backends, module)?)?;
    module.add_function(wrap_pyfunction!(devices::devices, module)?)?;
    module.add_function(wrap_pyfunction!(shutdown, module)?)?;
    module.add_function(wrap_pyfunction!(error_examples, module)?)
}
