//! The native side of the classes `Model` and `PooledModel` of `mullama` and
//! `mullama.sync`.

use crate::{
    arguments::{self, boolean, native, text, token_ids},
    convert::ToPython,
    errors::invalid,
    operation::Operation,
    options,
    owned::Owned,
    runtime,
    sink::{Message, Sink},
    stream::TokenStream,
    submit::submit,
};
use mullama::{AsyncModel, Generation, ModelOptions, MullamaError, PooledModel, StreamConfig};
use pyo3::{prelude::*, types::PyDict};
use std::{
    ops::Deref,
    sync::{Arc, Mutex, PoisonError},
};

/// A loaded model, perhaps one on lease from a pool.
#[pyclass(frozen, module = "mullama._mullama")]
pub(crate) struct Model(Owned<Inner>);

struct Inner {
    /// The core refuses what is done with the model of an ended lease.
    model: AsyncModel,
    /// Dropping it ends the lease. `None` also where there never was one.
    lease: Mutex<Option<PooledModel>>,
}

impl ToPython for AsyncModel {
    fn to_python(self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let inner = Inner { model: self, lease: Mutex::new(None) };
        Ok(Py::new(py, Model(Owned::new(inner)))?.into_any())
    }
}

/// Loads a model; with `progress`, the share that is done is sent on the way.
#[pyfunction]
pub(crate) fn load(path: &Bound<'_, PyAny>, options: &Bound<'_, PyDict>, progress: bool) -> PyResult<Operation> {
    let path = arguments::path(path)?;
    let options = options::model_options(options)?;
    Ok(Operation::with_sink(move |sink| async move {
        AsyncModel::load_with(path, with_progress(options, progress.then_some(sink))).await
    }))
}

/// The options of a load that sends its progress there.
pub(crate) fn with_progress(mut options: ModelOptions, progress: Option<Sink>) -> ModelOptions {
    options.progress = progress.map(|sink| {
        Arc::new(move |share| {
            sink.send(Message::Progress(share));
            true
        }) as _
    });
    options
}

async fn generate(model: AsyncModel, prompt: String, config: StreamConfig) -> Result<Generation, MullamaError> {
    submit(prompt.len(), async move { model.generate_with(&prompt, config).await }).await
}

/// Work that is done on the thread that asks for it, which must be neither
/// the event loop's nor the runtime's only worker.
fn blocking<T: ToPython + Send + 'static>(
    work: impl FnOnce() -> Result<T, MullamaError> + Send + 'static,
) -> Operation {
    Operation::new(async move {
        runtime()?.spawn_blocking(work).await.map_err(|error| MullamaError::Internal(error.to_string()))?
    })
}

#[pymethods]
impl Model {
    /// Gives the text alone.
    fn generate(&self, prompt: &Bound<'_, PyAny>, options: &Bound<'_, PyDict>) -> PyResult<Operation> {
        let model = self.model(prompt.py())?;
        let prompt = text("prompt", prompt)?;
        let config = options::stream_config(options)?;
        Ok(Operation::new(async move { Ok(generate(model, prompt, config).await?.text) }))
    }

    fn generate_with(&self, prompt: &Bound<'_, PyAny>, options: &Bound<'_, PyDict>) -> PyResult<Operation> {
        let model = self.model(prompt.py())?;
        let prompt = text("prompt", prompt)?;
        let config = options::stream_config(options)?;
        Ok(Operation::new(generate(model, prompt, config)))
    }

    /// Starts nothing; the first `pull` does.
    fn generate_stream(&self, prompt: &Bound<'_, PyAny>, options: &Bound<'_, PyDict>) -> PyResult<TokenStream> {
        let model = self.model(prompt.py())?;
        let prompt = text("prompt", prompt)?;
        let config = options::stream_config(options)?;
        let length = prompt.len();
        let call = async move { model.generate_stream(&prompt, config).await };
        Ok(TokenStream::new(submit(length, call)))
    }

    fn tokenize(
        &self,
        text: &Bound<'_, PyAny>,
        add_bos: &Bound<'_, PyAny>,
        parse_special: &Bound<'_, PyAny>,
    ) -> PyResult<Operation> {
        let model = self.model(text.py())?;
        let text = arguments::text("text", text)?;
        let add_bos = boolean("add_bos", add_bos)?;
        let parse_special = boolean("parse_special", parse_special)?;
        Ok(blocking(move || model.tokenize(&text, add_bos, parse_special)))
    }

    fn detokenize(&self, tokens: &Bound<'_, PyAny>) -> PyResult<Operation> {
        let model = self.model(tokens.py())?;
        let tokens = token_ids(tokens)?;
        Ok(blocking(move || model.detokenize(&tokens)))
    }

    fn info(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        self.0.get(py)?.model.model_info().to_python(py)
    }

    fn metadata(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        self.0.get(py)?.model.metadata().clone().to_python(py)
    }

    fn is_ready(&self, py: Python<'_>) -> PyResult<bool> {
        Ok(self.0.get(py)?.model.is_ready())
    }

    fn metrics(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        self.0.get(py)?.model.metrics().to_python(py)
    }

    fn placement(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        self.0.get(py)?.model.placement().to_python(py)
    }

    /// Ends the lease, if it is one that has not ended yet.
    fn release(&self, py: Python<'_>) -> PyResult<()> {
        self.0.get(py)?.take_lease();
        Ok(())
    }

    fn close(&self, py: Python<'_>) -> PyResult<Operation> {
        let model = self.model(py)?;
        Ok(Operation::new(async move {
            model.close().await;
            Ok(())
        }))
    }

    /// The part of a `repr` after the class's name. Works in a forked child.
    fn description(&self) -> String {
        let Some(Inner { model, .. }) = self.0.peek() else { return "of the parent process".to_owned() };
        let info = model.model_info();
        let state = if model.is_ready() { "ready" } else { "closed" };
        format!("'{}' ({}, {} parameters), {state}", info.name, info.architecture, info.n_params)
    }
}

impl Model {
    pub(crate) fn leased(lease: PooledModel) -> Self {
        Self(Owned::new(Inner { model: lease.deref().clone(), lease: Mutex::new(Some(lease)) }))
    }

    /// The model that Python gave as the argument `model`.
    pub(crate) fn argument(value: &Bound<'_, PyAny>) -> PyResult<AsyncModel> {
        let model = native::<Self>(value).ok_or_else(|| invalid(value.py(), "model", value, "use a Model"))?;
        model.get().model(value.py())
    }

    fn model(&self, py: Python<'_>) -> PyResult<AsyncModel> {
        Ok(self.0.get(py)?.model.clone())
    }
}

impl Inner {
    fn take_lease(&self) -> Option<PooledModel> {
        self.lease.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}
