//! The native side of `mullama.Context` and `mullama.sync.Context`.
//!
//! The core's context is used by one call at a time. A call takes its place in
//! the queue for it on the thread that makes the call, so calls run in the
//! order in which they were made, whichever of the runtime's workers takes
//! them up first.

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
    future::{Future, poll_fn},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::Poll,
};
use tokio::sync::{Mutex, OwnedMutexGuard, watch};

/// A private context of a model.
#[pyclass(frozen, module = "mullama._mullama")]
pub(crate) struct Context(Owned<Arc<Calls>>);

struct Calls {
    /// Held by the call that runs. Tokio's mutex is fair: it is the queue.
    context: Arc<Mutex<AsyncContext>>,
    /// Set by `close`: calls that run or wait end at once, so that it need not
    /// wait for them.
    closed: watch::Sender<bool>,
    /// As it was when nobody held the context last.
    n_past: AtomicUsize,
}

impl ToPython for AsyncContext {
    fn to_python(self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let calls = Calls {
            context: Arc::new(Mutex::new(self)),
            closed: watch::Sender::new(false),
            n_past: AtomicUsize::new(0),
        };
        Ok(Py::new(py, Context(Owned::new(Arc::new(calls))))?.into_any())
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
    /// Takes its place among the calls at once.
    fn generate_stream(&self, tokens: &Bound<'_, PyAny>, options: &Bound<'_, PyDict>) -> PyResult<TokenStream> {
        let py = tokens.py();
        let calls = self.0.get(py)?;
        let tokens = token_ids(tokens)?;
        let config = options::stream_config(options)?;
        let call = calls.call(move |mut context| async move { context.generate_stream_with(&tokens, config).await });
        TokenStream::opened(py, call)
    }

    fn process_batch(&self, batches: &Bound<'_, PyAny>) -> PyResult<Operation> {
        let rows = rows(batches)?;
        self.operation(batches.py(), move |mut context| async move { context.process_batch(rows).await })
    }

    fn save_state(&self, path: &Bound<'_, PyAny>) -> PyResult<Operation> {
        let file = arguments::path(path)?;
        self.operation(path.py(), move |context| async move { context.save_state(file).await })
    }

    fn load_state(&self, path: &Bound<'_, PyAny>) -> PyResult<Operation> {
        let file = arguments::path(path)?;
        self.operation(path.py(), move |mut context| async move { context.load_state(file).await })
    }

    fn clear(&self, py: Python<'_>) -> PyResult<Operation> {
        self.operation(py, move |mut context| async move { context.clear().await })
    }

    fn truncate(&self, n: &Bound<'_, PyAny>) -> PyResult<Operation> {
        let length = integer("n", n)?;
        self.operation(n.py(), move |mut context| async move { context.truncate(length).await })
    }

    fn n_past(&self, py: Python<'_>) -> PyResult<usize> {
        Ok(self.0.get(py)?.n_past())
    }

    fn close(&self, py: Python<'_>) -> PyResult<Operation> {
        let calls = self.0.get(py)?.clone();
        Ok(Operation::new(async move {
            calls.closed.send_replace(true);
            calls.context.lock().await.close().await;
            Ok(())
        }))
    }

    /// The part of a `repr` after the class's name. Works in a forked child.
    fn description(&self) -> String {
        match self.0.peek() {
            None => "of the parent process".to_owned(),
            Some(calls) if *calls.closed.borrow() => "closed".to_owned(),
            Some(calls) => format!("{} tokens", calls.n_past()),
        }
    }
}

impl Context {
    fn operation<T, F>(
        &self,
        py: Python<'_>,
        work: impl FnOnce(OwnedMutexGuard<AsyncContext>) -> F + Send + 'static,
    ) -> PyResult<Operation>
    where
        T: ToPython + Send + 'static,
        F: Future<Output = Result<T, MullamaError>> + Send + 'static,
    {
        let calls = self.0.get(py)?.clone();
        Ok(Operation::begun_by(move || calls.call(work)))
    }
}

impl Calls {
    /// A call, which has its place in the queue from now on.
    fn call<T, W, F>(&self, work: W) -> impl Future<Output = Result<T, MullamaError>> + Send + use<T, W, F>
    where
        T: Send + 'static,
        W: FnOnce(OwnedMutexGuard<AsyncContext>) -> F + Send + 'static,
        F: Future<Output = Result<T, MullamaError>> + Send + 'static,
    {
        let place = begin(self.context.clone().lock_owned());
        let mut closed = self.closed.subscribe();
        async move {
            let mut closed = pin!(closed.wait_for(|closed| *closed));
            let mut call = pin!(async { work(place.finish().await).await });
            poll_fn(|context| match call.as_mut().poll(context) {
                Poll::Pending => {
                    closed.as_mut().poll(context).map(|_| Err(MullamaError::Closed("the context".to_owned())))
                }
                done => done,
            })
            .await
        }
    }

    fn n_past(&self) -> usize {
        if let Ok(context) = self.context.try_lock() {
            self.n_past.store(context.n_past(), Relaxed);
        }
        self.n_past.load(Relaxed)
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
