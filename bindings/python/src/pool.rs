//! The native side of both `ModelPool` classes. A lease is a `Model`
//! (`model.rs`) that can be given back.

use crate::{
    arguments::{self, integer},
    begun::begin,
    convert::ToPython,
    errors,
    model::{Model, with_progress},
    operation::Operation,
    options,
    owned::Owned,
};
use mullama::{ModelPool as Pool, PooledModel};
use pyo3::{IntoPyObjectExt, prelude::*, types::PyDict};
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};
use tokio::sync::Mutex;

/// Leases of one model.
#[pyclass(frozen, module = "mullama._mullama")]
pub(crate) struct ModelPool(Owned<Inner>);

struct Inner {
    pool: Pool,
    /// The core serves those who wait in their order; this keeps it on the way
    /// to them, whichever of the runtime's tasks runs first.
    queue: Arc<Mutex<()>>,
    /// Those who wait, until they go on with their lease. Who comes while there
    /// are any goes after them, also where a lease is free.
    n_waiting: Arc<AtomicUsize>,
}

impl ToPython for Pool {
    fn to_python(self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let inner = Inner { pool: self, queue: Arc::default(), n_waiting: Arc::default() };
        Ok(Py::new(py, ModelPool(Owned::new(inner)))?.into_any())
    }
}

impl ToPython for PooledModel {
    fn to_python(self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        Ok(Py::new(py, Model::leased(self))?.into_any())
    }
}

/// Loads a model for a pool of that size; with `progress`, the share that is
/// done is sent on the way.
#[pyfunction]
pub(crate) fn create_pool(
    path: &Bound<'_, PyAny>,
    size: &Bound<'_, PyAny>,
    options: &Bound<'_, PyDict>,
    progress: bool,
) -> PyResult<Operation> {
    let path = arguments::path(path)?;
    let size = integer("size", size)?;
    let options = options::model_options(options)?;
    Ok(Operation::with_sink(move |sink| async move {
        Pool::with_options(path, with_progress(options, progress.then_some(sink)), size).await
    }))
}

#[pymethods]
impl ModelPool {
    /// A lease if one is free and nobody waits for it, else the operation that
    /// waits. That one has its place in the queue from its start on.
    fn acquire(&self, timeout_ms: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        let py = timeout_ms.py();
        let inner = self.0.get(py)?;
        let limit = if timeout_ms.is_none() {
            None
        } else {
            Some(Duration::from_millis(integer("timeout_ms", timeout_ms)?))
        };
        if inner.n_waiting.load(SeqCst) == 0
            && let Some(lease) = inner.pool.try_acquire().map_err(|error| errors::to_py(py, error))?
        {
            return lease.to_python(py);
        }
        let pool = inner.pool.clone();
        let waiter = Waiter::new(inner.n_waiting.clone());
        let wait = move || {
            begin(async move {
                match limit {
                    Some(limit) => pool.acquire_timeout(limit).await,
                    None => pool.acquire().await,
                }
            })
            .finish()
        };
        Operation::in_order(inner.queue.clone(), waiter, wait).into_py_any(py)
    }

    fn try_acquire(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        let lease = self.0.get(py)?.pool.try_acquire().map_err(|error| errors::to_py(py, error))?;
        lease.map(|lease| lease.to_python(py)).transpose()
    }

    fn stats(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        self.0.get(py)?.pool.stats().to_python(py)
    }

    fn resize(&self, size: &Bound<'_, PyAny>) -> PyResult<Operation> {
        let pool = self.0.get(size.py())?.pool.clone();
        let size = integer("size", size)?;
        Ok(Operation::new(async move { pool.resize(size).await }))
    }

    fn close(&self, py: Python<'_>) -> PyResult<Operation> {
        let pool = self.0.get(py)?.pool.clone();
        Ok(Operation::new(async move {
            pool.close().await;
            Ok(())
        }))
    }

    /// The part of a `repr` after the class's name. Works in a forked child.
    fn description(&self) -> String {
        let Some(Inner { pool, .. }) = self.0.peek() else { return "of the parent process".to_owned() };
        let stats = pool.stats();
        format!("size={}, available={}, waiting={}", stats.size, stats.available, stats.waiting)
    }
}

/// One of those who wait.
struct Waiter(Arc<AtomicUsize>);

impl Waiter {
    fn new(n_waiting: Arc<AtomicUsize>) -> Self {
        n_waiting.fetch_add(1, SeqCst);
        Self(n_waiting)
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}
