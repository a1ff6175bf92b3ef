//! The native side of `mullama.Context` and `mullama.sync.Context`.
//!
//! A call is begun on the thread that makes it, so calls run in the order in
//! which they were made, whichever of the runtime's workers goes on with them.

use crate::{
    arguments::{self, integer, native, token_ids},
    batch::Batch,
    begun::begin,
    convert::ToPython,
    errors::invalid,
    model::Model,
    operation::Operation,
    options,
    owned::Owned,
    stream::TokenStream,
};
use mullama::{AsyncContext, MullamaError};
use pyo3::{prelude::*, types::PyDict};
use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

/// A private context of a model.
#[pyclass(frozen, module = "mullama._mullama")]
pub(crate) struct Context {
    context: Owned<AsyncContext>,
    /// Whether `close` was called.
    closed: AtomicBool,
}

impl ToPython for AsyncContext {
    fn to_python(self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let context = Context { context: Owned::new(self), closed: AtomicBool::new(false) };
        Ok(Py::new(py, context)?.into_any())
    }
}

/// Makes a context of the model.
#[pyfunction]
pub(crate) fn create_context(model: &Bound<'_, PyAny>, options: &Bound<'_, PyDict>) -> PyResult<Operation> {
    let model = Model::argument(model)?;
    let options = options::context_options(options)?;
    Ok(Operation::new(AsyncContext::with_options(Arc::new(model), options)))
}

#[pymethods]
impl Context {
    /// Makes its call at once.
    fn generate_stream(&self, tokens: &Bound<'_, PyAny>, options: &Bound<'_, PyDict>) -> PyResult<TokenStream> {
        let py = tokens.py();
        let mut context = self.context.get(py)?.share();
        let tokens = token_ids(tokens)?;
        let config = options::stream_config(options)?;
        let call = async move { context.generate_stream_with(&tokens, config).await };
        TokenStream::opened(py, begin(call).finish())
    }

    fn process_batch(&self, batches: &Bound<'_, PyAny>) -> PyResult<Operation> {
        let rows = rows(batches)?;
        self.call(batches.py(), move |mut context| async move { context.process_batch(rows).await })
    }

    fn save_state(&self, path: &Bound<'_, PyAny>) -> PyResult<Operation> {
        let file = arguments::path(path)?;
        self.call(path.py(), move |context| async move { context.save_state(file).await })
    }

    fn load_state(&self, path: &Bound<'_, PyAny>) -> PyResult<Operation> {
        let file = arguments::path(path)?;
        self.call(path.py(), move |mut context| async move { context.load_state(file).await })
    }

    fn clear(&self, py: Python<'_>) -> PyResult<Operation> {
        self.call(py, move |mut context| async move { context.clear().await })
    }

    fn truncate(&self, n: &Bound<'_, PyAny>) -> PyResult<Operation> {
        let length = integer("n", n)?;
        self.call(n.py(), move |mut context| async move { context.truncate(length).await })
    }

    fn n_past(&self, py: Python<'_>) -> PyResult<usize> {
        Ok(self.context.get(py)?.n_past())
    }

    fn close(&self, py: Python<'_>) -> PyResult<Operation> {
        let context = self.context.get(py)?.share();
        self.closed.store(true, Relaxed);
        Ok(Operation::new(async move {
            context.close().await;
            Ok(())
        }))
    }

    /// The part of a `repr` after the class's name. Works in a forked child.
    fn description(&self) -> String {
        match self.context.peek() {
            None => "of the parent process".to_owned(),
            Some(_) if self.closed.load(Relaxed) => "closed".to_owned(),
            Some(context) => format!("{} tokens", context.n_past()),
        }
    }
}

impl Context {
    /// A call that is made when the operation starts.
    fn call<T, F>(&self, py: Python<'_>, call: impl FnOnce(AsyncContext) -> F + Send + 'static) -> PyResult<Operation>
    where
        T: ToPython + Send + 'static,
        F: Future<Output = Result<T, MullamaError>> + Send + 'static,
    {
        let context = self.context.get(py)?.share();
        Ok(Operation::begun_by(move || begin(call(context)).finish()))
    }
}

fn rows(batches: &Bound<'_, PyAny>) -> PyResult<Vec<mullama::Batch>> {
    let refused = |value: &Bound<'_, PyAny>| invalid(value.py(), "batches", value, "use a sequence of Batch");
    let items = batches.try_iter().map_err(|_| refused(batches))?;
    items
        .map(|item| {
            let item = item?;
            Ok(native::<Batch>(&item).ok_or_else(|| refused(&item))?.get().copied())
        })
        .collect()
}
