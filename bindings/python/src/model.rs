//! The native side of `mullama.Model` and `mullama.sync.Model`.

use crate::{
    convert::ToPython,
    operation::Operation,
    options,
    owned::Owned,
    runtime,
    sink::{Message, Sink},
    stream::TokenStream,
    submit::submit,
};
use mullama::{AsyncModel, Generation, ModelOptions, MullamaError, StreamConfig};
use pyo3::{prelude::*, types::PyDict};
use std::{path::PathBuf, sync::Arc};

/// A loaded model.
#[pyclass(frozen, module = "mullama._mullama")]
pub(crate) struct Model(Owned<AsyncModel>);

impl ToPython for AsyncModel {
    fn to_python(self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        Ok(Py::new(py, Model(Owned::new(self)))?.into_any())
    }
}

/// Loads a model; with `progress`, the share that is done is sent on the way.
#[pyfunction]
pub(crate) fn load(path: &Bound<'_, PyAny>, options: &Bound<'_, PyDict>, progress: bool) -> PyResult<Operation> {
    let path = options::path(path)?;
    let options = options::model_options(options)?;
    Ok(Operation::with_sink(move |sink| load_with(path, options, progress.then_some(sink))))
}

async fn load_with(
    path: PathBuf,
    mut options: ModelOptions,
    progress: Option<Sink>,
) -> Result<AsyncModel, MullamaError> {
    options.progress = progress.map(|sink| {
        Arc::new(move |share| {
            sink.send(Message::Progress(share));
            true
        }) as _
    });
    AsyncModel::load_with(path, options).await
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
        let prompt = options::text("prompt", prompt)?;
        let config = options::stream_config(options)?;
        Ok(Operation::new(async move { Ok(generate(model, prompt, config).await?.text) }))
    }

    fn generate_with(&self, prompt: &Bound<'_, PyAny>, options: &Bound<'_, PyDict>) -> PyResult<Operation> {
        let model = self.model(prompt.py())?;
        let prompt = options::text("prompt", prompt)?;
        let config = options::stream_config(options)?;
        Ok(Operation::new(generate(model, prompt, config)))
    }

    /// Starts nothing; the first `pull` does.
    fn generate_stream(&self, prompt: &Bound<'_, PyAny>, options: &Bound<'_, PyDict>) -> PyResult<TokenStream> {
        let model = self.model(prompt.py())?;
        let prompt = options::text("prompt", prompt)?;
        let config = options::stream_config(options)?;
        Ok(TokenStream::new(model, prompt, config))
    }

    fn tokenize(
        &self,
        text: &Bound<'_, PyAny>,
        add_bos: &Bound<'_, PyAny>,
        parse_special: &Bound<'_, PyAny>,
    ) -> PyResult<Operation> {
        let model = self.model(text.py())?;
        let text = options::text("text", text)?;
        let add_bos = options::boolean("add_bos", add_bos)?;
        let parse_special = options::boolean("parse_special", parse_special)?;
        Ok(blocking(move || model.tokenize(&text, add_bos, parse_special)))
    }

    fn detokenize(&self, tokens: &Bound<'_, PyAny>) -> PyResult<Operation> {
        let model = self.model(tokens.py())?;
        let tokens = options::token_ids(tokens)?;
        Ok(blocking(move || model.detokenize(&tokens)))
    }

    fn info(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        self.0.get(py)?.model_info().to_python(py)
    }

    fn metadata(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        self.0.get(py)?.metadata().clone().to_python(py)
    }

    fn is_ready(&self, py: Python<'_>) -> PyResult<bool> {
        Ok(self.0.get(py)?.is_ready())
    }

    fn metrics(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        self.0.get(py)?.metrics().to_python(py)
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
        let Some(model) = self.0.peek() else { return "of the parent process".to_owned() };
        let info = model.model_info();
        let state = if model.is_ready() { "ready" } else { "closed" };
        format!("'{}' ({}, {} parameters), {state}", info.name, info.architecture, info.n_params)
    }
}

impl Model {
    fn model(&self, py: Python<'_>) -> PyResult<AsyncModel> {
        self.0.get(py).cloned()
    }
}
