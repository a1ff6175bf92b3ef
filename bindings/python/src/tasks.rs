//! The native side of both `TaskManager` classes and both `GenerationTask`
//! classes.

use crate::{
    arguments::{integer, text},
    convert::ToPython,
    errors::{invalid, to_py},
    model::Model,
    operation::Operation,
    options,
    owned::Owned,
    runtime,
    sink::Message,
    worker::{Work, Worker, worker},
};
use mullama::{Generation, MullamaError};
use pyo3::{prelude::*, types::PyDict};
use std::{
    collections::HashMap,
    future::{Future, poll_fn},
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering::AcqRel},
    },
    time::Duration,
};
use tokio::sync::watch;

/// Workers and the queue that they serve.
#[pyclass(frozen, module = "mullama._mullama")]
pub(crate) struct TaskManager(Owned<Arc<Manager>>);

struct Manager {
    core: mullama::TaskManager,
    /// The work of custom workers that may not have ended yet.
    works: Mutex<Vec<Work>>,
}

#[pymethods]
impl TaskManager {
    /// On the shared runtime, which it starts if nothing has used it before.
    #[new]
    fn new(py: Python<'_>) -> PyResult<Self> {
        let runtime = runtime().map_err(|error| to_py(py, error))?;
        let manager = Manager { core: mullama::TaskManager::new(runtime), works: Mutex::default() };
        Ok(Self(Owned::new(Arc::new(manager))))
    }

    fn spawn_generation_worker(&self, py: Python<'_>) -> PyResult<String> {
        self.core(py)?.spawn_generation_worker().map_err(|error| to_py(py, error))
    }

    fn submit(
        &self,
        model: &Bound<'_, PyAny>,
        prompt: &Bound<'_, PyAny>,
        options: &Bound<'_, PyDict>,
    ) -> PyResult<GenerationTask> {
        let py = model.py();
        let core = self.core(py)?;
        let model = Model::argument(model)?;
        let prompt = text("prompt", prompt)?;
        let config = options::stream_config(options)?;
        let task = core.submit(&model, &prompt, config).map_err(|error| to_py(py, error))?;
        GenerationTask::new(py, task)
    }

    fn spawn_metrics_collector(&self, interval_ms: &Bound<'_, PyAny>, capacity: &Bound<'_, PyAny>) -> PyResult<String> {
        let py = interval_ms.py();
        let core = self.core(py)?;
        let mut interval = Duration::from_secs(1);
        let mut samples = 3600;
        if !interval_ms.is_none() {
            interval = Duration::from_millis(integer("interval_ms", interval_ms)?);
        }
        if !capacity.is_none() {
            samples = integer("capacity", capacity)?;
        }
        core.spawn_metrics_collector_with(interval, samples).map_err(|error| to_py(py, error))
    }

    fn metrics_history(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        self.core(py)?.metrics_history().to_python(py)
    }

    /// Enters a worker whose work Python does, by that function.
    fn spawn_worker(&self, name: &Bound<'_, PyAny>, function: &Bound<'_, PyAny>) -> PyResult<Worker> {
        let py = name.py();
        let manager = self.0.get(py)?;
        let name = text("name", name)?;
        if !function.is_callable() {
            return Err(invalid(py, "function", function, "use a function"));
        }
        let (worker, work, future) = worker(name.clone());
        manager.core.spawn_worker(&name, future).map_err(|error| to_py(py, error))?;
        let mut works = manager.works();
        works.retain(|work| !work.has_ended());
        works.push(work);
        Ok(worker)
    }

    /// Waits also for the work of custom workers, but not for that of `caller`,
    /// which asks for it. Progress of 1 says that all workers count as stopped,
    /// and custom ones have to be told.
    #[pyo3(signature = (caller=None))]
    fn stop_all(&self, py: Python<'_>, caller: Option<&Bound<'_, Worker>>) -> PyResult<Operation> {
        let manager = self.0.get(py)?.clone();
        let mut works = manager.works().clone();
        // The core knows of what has ended.
        works.retain(|work| !work.has_ended() && !caller.is_some_and(|caller| work.is_of(caller.get())));
        Ok(Operation::uncounted(move |sink| async move {
            let mut result = manager.core.stop_all().await;
            sink.send(Message::Progress(1.0));
            for mut work in works {
                let failure = work.failure().await;
                result = result.and(failure.map_or(Ok(()), Err));
            }
            result
        }))
    }

    fn worker_status(&self, py: Python<'_>) -> PyResult<HashMap<String, Py<PyAny>>> {
        let status = self.core(py)?.worker_status();
        status.into_iter().map(|(name, status)| Ok((name, status.to_python(py)?))).collect()
    }

    /// The part of a `repr` after the class's name. Works in a forked child.
    fn description(&self) -> String {
        let Some(manager) = self.0.peek() else { return "of the parent process".to_owned() };
        let status = manager.core.worker_status();
        let running = status.values().filter(|status| matches!(status, mullama::WorkerStatus::Running)).count();
        format!("{running} of {} workers running", status.len())
    }
}

impl TaskManager {
    fn core(&self, py: Python<'_>) -> PyResult<&mullama::TaskManager> {
        self.0.get(py).map(|manager| &manager.core)
    }
}

impl Manager {
    fn works(&self) -> MutexGuard<'_, Vec<Work>> {
        self.works.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A submitted generation. Dropping it cancels the generation.
#[pyclass(frozen, module = "mullama._mullama")]
pub(crate) struct GenerationTask(Owned<Arc<Submitted>>);

struct Submitted {
    id: u64,
    /// Polled by one task of the runtime, for all who wait.
    core: Arc<Mutex<mullama::GenerationTask>>,
    result: watch::Receiver<Option<Result<Generation, MullamaError>>>,
    /// Those who wait for it and whose end is its end.
    waiting: AtomicUsize,
}

impl GenerationTask {
    fn new(py: Python<'_>, core: mullama::GenerationTask) -> PyResult<Self> {
        let id = core.id();
        let core = Arc::new(Mutex::new(core));
        let (sender, result) = watch::channel(None);
        let polled = core.clone();
        let runtime = runtime().map_err(|error| to_py(py, error))?;
        runtime.tokio().spawn(async move {
            let end = poll_fn(|context| Pin::new(&mut *lock(&polled)).poll(context)).await;
            sender.send_replace(Some(end));
        });
        Ok(Self(Owned::new(Arc::new(Submitted { id, core, result, waiting: AtomicUsize::new(0) }))))
    }
}

#[pymethods]
impl GenerationTask {
    #[getter]
    fn id(&self, py: Python<'_>) -> PyResult<u64> {
        Ok(self.0.get(py)?.id)
    }

    fn cancel(&self) {
        if let Some(task) = self.0.peek() {
            task.cancel();
        }
    }

    /// Waits for the result. When the last one who waits gives up before it is
    /// there, the generation is cancelled.
    fn wait(&self, py: Python<'_>) -> PyResult<Operation> {
        let task = self.0.get(py)?.clone();
        Ok(Operation::uncounted(move |_| {
            task.waiting.fetch_add(1, AcqRel);
            let waiter = Waiter(task);
            async move { waiter.0.result().await }
        }))
    }

    /// Waits for the result for so many seconds, or without a limit. Giving up
    /// cancels nothing.
    fn wait_for(&self, seconds: &Bound<'_, PyAny>) -> PyResult<Operation> {
        let py = seconds.py();
        let task = self.0.get(py)?.clone();
        if seconds.is_none() {
            return Ok(Operation::uncounted(move |_| async move { task.result().await }));
        }
        let limit = seconds.extract().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        let limit = limit.ok_or_else(|| invalid(py, "timeout", seconds, "use a number of seconds, 0 or more"))?;
        Ok(Operation::uncounted(move |_| async move {
            let late = || MullamaError::Timeout {
                partial: String::new(),
                after_ms: u64::try_from(limit.as_millis()).unwrap_or(u64::MAX),
            };
            tokio::time::timeout(limit, task.result()).await.unwrap_or_else(|_| Err(late()))
        }))
    }

    /// The part of a `repr` after the class's name. Works in a forked child.
    fn description(&self) -> String {
        let Some(task) = self.0.peek() else { return "of the parent process".to_owned() };
        let state = match &*task.result.borrow() {
            None => "pending",
            Some(Ok(_)) => "done",
            Some(Err(MullamaError::Cancelled)) => "cancelled",
            Some(Err(_)) => "failed",
        };
        format!("{}, {state}", task.id)
    }
}

impl Drop for GenerationTask {
    fn drop(&mut self) {
        self.cancel();
    }
}

impl Submitted {
    fn cancel(&self) {
        lock(&self.core).cancel();
    }

    async fn result(&self) -> Result<Generation, MullamaError> {
        let mut result = self.result.clone();
        match result.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(end)) => end.clone(),
            // The runtime was shut down.
            _ => Err(MullamaError::Closed("the runtime".to_owned())),
        }
    }
}

/// One who waits for a submitted generation.
struct Waiter(Arc<Submitted>);

impl Drop for Waiter {
    fn drop(&mut self) {
        if self.0.waiting.fetch_sub(1, AcqRel) == 1 && self.0.result.borrow().is_none() {
            self.0.cancel();
        }
    }
}

fn lock(core: &Mutex<mullama::GenerationTask>) -> MutexGuard<'_, mullama::GenerationTask> {
    core.lock().unwrap_or_else(PoisonError::into_inner)
}
