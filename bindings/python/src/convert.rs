//! The core's results as Python objects: the frozen dataclasses of
//! `python/mullama/_types.py`.

use mullama::{
    BackendInfo, DeviceInfo, EngineMetrics, FinishReason, Generation, Histogram, LayerPlacement, ModelInfo, PoolStats,
    RuntimeMetrics, Timings, TokenData, TokenLogprob, TokenLogprobs, Usage, WorkerStatus,
};
use pyo3::{
    call::PyCallArgs,
    prelude::*,
    sync::PyOnceLock,
    types::{PyList, PyType},
};
use std::{collections::BTreeMap, time::Duration};

/// Becomes a Python object on a thread that holds the GIL.
pub(crate) trait ToPython {
    fn to_python(self, py: Python<'_>) -> PyResult<Py<PyAny>>;
}

/// Values that pyo3 converts.
macro_rules! plain {
    ($($type:ty),* $(,)?) => {$(
        impl ToPython for $type {
            fn to_python(self, py: Python<'_>) -> PyResult<Py<PyAny>> {
                self.into_py_any(py)
            }
        }
    )*};
}

use pyo3::IntoPyObjectExt;
plain!((), String, Vec<i32>, Option<f32>, BTreeMap<String, String>);

/// An instance of a class of `mullama._types`, by position. A macro because
/// each class is looked up once and kept in a static of its own.
macro_rules! instance {
    ($py:expr, $class:literal, $fields:expr) => {{
        static CLASS: PyOnceLock<Py<PyType>> = PyOnceLock::new();
        call(CLASS.import($py, "mullama._types", $class)?, $fields)
    }};
}

fn call<'py>(class: &Bound<'py, PyType>, fields: impl PyCallArgs<'py>) -> PyResult<Py<PyAny>> {
    class.call1(fields).map(Bound::unbind)
}

impl<T: ToPython> ToPython for Vec<T> {
    fn to_python(self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let items = self.into_iter().map(|item| item.to_python(py)).collect::<PyResult<Vec<_>>>()?;
        Ok(PyList::new(py, items)?.into_any().unbind())
    }
}

impl ToPython for TokenLogprob {
    fn to_python(self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        instance!(py, "TokenLogprob", (self.token_id, self.text, self.logprob))
    }
}

impl ToPython for TokenLogprobs {
    fn to_python(self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        instance!(py, "TokenLogprobs", (self.token_id, self.logprob, self.top.to_python(py)?))
    }
}

impl ToPython for TokenData {
    fn to_python(self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let (reason, stop_string) = reason(self.finish_reason);
        let top = self.top_logprobs.to_python(py)?;
        let fields = (self.text, self.token_id, self.index, self.logprob, top, self.is_final, reason, stop_string);
        instance!(py, "TokenData", fields)
    }
}

impl ToPython for Usage {
    fn to_python(self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        instance!(py, "Usage", (self.prompt_tokens, self.cached_tokens, self.completion_tokens))
    }
}

impl ToPython for Timings {
    fn to_python(self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let seconds = Duration::as_secs_f64;
        let fields =
            (seconds(&self.queued), seconds(&self.prefill), seconds(&self.decode), seconds(&self.time_to_first_token));
        instance!(py, "Timings", fields)
    }
}

impl ToPython for Generation {
    fn to_python(self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let (reason, stop_string) = reason(Some(self.finish_reason));
        let fields = (
            self.text,
            self.tokens,
            reason,
            stop_string,
            self.usage.to_python(py)?,
            self.timings.to_python(py)?,
            self.seed,
            self.logprobs.map(|logprobs| logprobs.to_python(py)).transpose()?,
        );
        instance!(py, "Generation", fields)
    }
}

impl ToPython for ModelInfo {
    fn to_python(self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let fields = (
            self.name,
            self.architecture,
            self.n_params,
            self.n_vocab,
            self.n_embd,
            self.n_layer,
            self.n_head,
            self.n_ctx_train,
            self.size_bytes,
        );
        instance!(py, "ModelInfo", fields)
    }
}

impl ToPython for Histogram {
    fn to_python(self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let bounds: Vec<_> = self.bounds.iter().map(Duration::as_secs_f64).collect();
        instance!(py, "Histogram", (bounds, self.counts, self.sum.as_secs_f64()))
    }
}

impl ToPython for EngineMetrics {
    fn to_python(self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        // Twelve fields are the most that a tuple of pyo3 holds.
        let counts = (
            self.queued,
            self.active,
            self.completed,
            self.cancelled,
            self.failed,
            self.prompt_tokens,
            self.cached_tokens,
            self.generated_tokens,
            self.drafted_tokens,
            self.accepted_tokens,
            self.steps,
        );
        let counts = counts.into_pyobject(py)?;
        let rest = (
            self.step_time.to_python(py)?,
            self.time_to_first_token.to_python(py)?,
            self.threads,
            self.cache_bytes,
            self.prefix_cache_bytes,
            self.preemptions,
            self.cache_size_bytes,
            self.weights_bytes,
            self.weights_shared,
            self.load_time.as_secs_f64(),
        );
        let fields = counts.as_sequence().concat(rest.into_pyobject(py)?.as_sequence())?.to_tuple()?;
        instance!(py, "EngineMetrics", fields)
    }
}

impl ToPython for PoolStats {
    fn to_python(self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let fields = (self.size, self.available, self.in_use, self.waiting, self.acquired_total, self.wait_ms_avg);
        instance!(py, "PoolStats", fields)
    }
}

impl ToPython for RuntimeMetrics {
    fn to_python(self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let fields = (
            self.active_tasks,
            self.completed_tasks,
            self.worker_threads,
            self.blocking_threads,
            self.total_generations,
            self.avg_generation_ms,
            self.uptime_seconds,
        );
        instance!(py, "RuntimeMetrics", fields)
    }
}

impl ToPython for BackendInfo {
    fn to_python(self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        instance!(py, "BackendInfo", (self.name, self.n_devices, self.variant))
    }
}

impl ToPython for DeviceInfo {
    fn to_python(self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let kind = self.kind.name();
        let fields = (self.name, self.description, self.backend, kind, self.memory_free, self.memory_total);
        instance!(py, "DeviceInfo", fields)
    }
}

impl ToPython for LayerPlacement {
    fn to_python(self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        instance!(py, "LayerPlacement", (self.device, self.n_layers))
    }
}

impl ToPython for WorkerStatus {
    fn to_python(self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let (state, message) = match self {
            Self::Running => ("running", None),
            Self::Completed => ("completed", None),
            Self::Failed(message) => ("failed", Some(message)),
            Self::Panicked(message) => ("panicked", Some(message)),
            Self::Stopped => ("stopped", None),
        };
        instance!(py, "WorkerStatus", (state, message))
    }
}

/// The reason's name, and the stop string if that was the reason.
pub(crate) fn reason(reason: Option<FinishReason>) -> (Option<&'static str>, Option<String>) {
    let name = reason.as_ref().map(FinishReason::name);
    match reason {
        Some(FinishReason::StopString(text)) => (name, Some(text)),
        _ => (name, None),
    }
}
