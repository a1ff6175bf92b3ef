//! [`TaskManager`]: named workers on a runtime, a queue of generations that
//! some of them serve, and samples of the runtime's figures.
//!
//! The manager keeps what its runtime's tasks share, but not the runtime; its
//! workers keep nothing of the manager but a weak reference. So neither keeps
//! the other alive, and the runtime's shutdown stops the workers at once.

mod collector;
mod queue;
mod roster;
mod worker;

pub use queue::GenerationTask;
pub use worker::{WorkerOutput, WorkerStatus};

use super::{MullamaRuntime, OnStop, RuntimeMetrics, State, spawn};
use crate::{AsyncModel, MullamaError, StreamConfig, process};
use collector::History;
use queue::Queue;
use roster::Workers;
use std::{
    collections::HashMap,
    future::{Future, poll_fn},
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    task::Poll,
    time::Duration,
};
use tokio::{runtime, sync::watch};
use tokio_util::sync::CancellationToken;

/// Runs named workers on a [`MullamaRuntime`] and tells how they are.
///
/// Cheap to clone. It does not keep the runtime alive; when that ends, the
/// workers are stopped and calls give `Closed`. The drop of the last clone
/// stops the workers too.
///
/// ```
/// # fn main() -> Result<(), mullama::MullamaError> {
/// use mullama::{MullamaRuntime, TaskManager, WorkerStatus};
/// use std::sync::Arc;
///
/// let runtime = Arc::new(MullamaRuntime::new().worker_threads(1).build()?);
/// let manager = TaskManager::new(&runtime);
/// manager.spawn_worker("endless", std::future::pending::<()>())?;
/// # pollster::block_on(async {
/// manager.stop_all().await?;
/// assert_eq!(manager.worker_status()["endless"], WorkerStatus::Stopped);
/// # Ok(())
/// # })
/// # }
/// ```
#[derive(Clone)]
pub struct TaskManager {
    shared: Arc<Shared>,
}

/// What the clones of a manager and its workers share.
struct Shared {
    runtime: Arc<State>,
    tokio: runtime::Handle,
    queue: Arc<Queue>,
    history: Arc<History>,
    workers: Mutex<Workers>,
    /// Changes with every worker that ends.
    ended: watch::Sender<()>,
    /// Stops the workers with the runtime.
    on_stop: OnceLock<OnStop>,
}

impl TaskManager {
    /// Time between two samples of [`TaskManager::spawn_metrics_collector`].
    pub const METRICS_INTERVAL: Duration = Duration::from_secs(1);

    /// Samples that [`TaskManager::spawn_metrics_collector`] keeps: an hour's.
    pub const METRICS_CAPACITY: usize = 3600;

    /// A manager without workers on this runtime.
    ///
    /// ```
    /// # fn main() -> Result<(), mullama::MullamaError> {
    /// use mullama::{MullamaRuntime, TaskManager};
    /// let manager = TaskManager::new(MullamaRuntime::shared()?);
    /// assert!(manager.worker_status().is_empty());
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn new(runtime: &Arc<MullamaRuntime>) -> Self {
        let (state, tokio) = runtime.parts();
        let shared = Arc::new(Shared {
            runtime: state.clone(),
            tokio: tokio.clone(),
            queue: Arc::default(),
            history: Arc::new(History::new()),
            workers: Mutex::default(),
            ended: watch::Sender::new(()),
            on_stop: OnceLock::new(),
        });
        let weak = Arc::downgrade(&shared);
        let on_stop = state.on_stop(move || {
            if let Some(shared) = weak.upgrade() {
                shared.stop_workers(None);
                shared.queue.clear(&runtime_closed());
            }
        });
        let _ = shared.on_stop.set(on_stop);
        Self { shared }
    }

    /// Starts a worker that serves the queue of [`TaskManager::submit`], one
    /// task at a time; several share it. Its name, which is returned, is
    /// `generation-` and the lowest number that no running worker has.
    ///
    /// # Errors
    /// `Closed` when the runtime has ended; `Unsupported` in a forked child.
    ///
    /// ```
    /// # fn main() -> Result<(), mullama::MullamaError> {
    /// # let runtime = std::sync::Arc::new(mullama::MullamaRuntime::new().worker_threads(1).build()?);
    /// let manager = mullama::TaskManager::new(&runtime);
    /// assert_eq!(manager.spawn_generation_worker()?, "generation-0");
    /// assert_eq!(manager.spawn_generation_worker()?, "generation-1");
    /// # Ok(())
    /// # }
    /// ```
    pub fn spawn_generation_worker(&self) -> Result<String, MullamaError> {
        let free_name = |workers: &Workers| {
            let mut names = (0..).map(|n: u64| format!("generation-{n}"));
            names.find(|name| !workers.is_taken(name)).ok_or_else(|| taken("generation"))
        };
        self.start(free_name, self.shared.queue.clone().serve())
    }

    /// Puts a generation into the queue. It begins when a generation worker
    /// comes to it; without one it waits. The configuration's timeout counts
    /// from then.
    ///
    /// # Errors
    /// `InvalidInput` (the configuration), `QueueFull` when 4096 tasks wait,
    /// `Closed` when the runtime or the model has ended, `Unsupported` in a
    /// forked child.
    ///
    /// ```no_run
    /// # async fn example(manager: &mullama::TaskManager, model: &mullama::AsyncModel) -> Result<(), mullama::MullamaError> {
    /// use mullama::StreamConfig;
    /// manager.spawn_generation_worker()?;
    /// let task = manager.submit(model, "Once upon a time", StreamConfig::new().max_tokens(40))?;
    /// println!("{}", task.await?.text);
    /// # Ok(())
    /// # }
    /// ```
    pub fn submit(
        &self,
        model: &AsyncModel,
        prompt: &str,
        config: StreamConfig,
    ) -> Result<GenerationTask, MullamaError> {
        self.check()?;
        config.validate(model.n_vocab())?;
        if !model.is_ready() {
            return Err(MullamaError::model_closed());
        }
        let task = self.shared.queue.push(model.clone(), prompt.to_owned(), config)?;
        if !self.shared.runtime.is_running() {
            // It may have ended after the queue was cleared.
            self.shared.queue.clear(&runtime_closed());
        }
        Ok(task)
    }

    /// Starts the worker `metrics`, which samples the runtime's figures every
    /// second and keeps the last hour. It prints nothing.
    ///
    /// # Errors
    /// As [`TaskManager::spawn_metrics_collector_with`].
    pub fn spawn_metrics_collector(&self) -> Result<String, MullamaError> {
        self.spawn_metrics_collector_with(Self::METRICS_INTERVAL, Self::METRICS_CAPACITY)
    }

    /// Starts the worker `metrics`, which samples the runtime's figures now
    /// and after each interval and keeps at most `capacity` samples: the
    /// newest. It uses the shared runtime's clock, so it needs no
    /// `enable_time`.
    ///
    /// # Errors
    /// `InvalidInput` when the interval or the capacity is zero, or a
    /// collector runs already (field `name`); `Closed` when the runtime has
    /// ended; `Unsupported` in a forked child.
    ///
    /// ```
    /// # fn main() -> Result<(), mullama::MullamaError> {
    /// # let runtime = std::sync::Arc::new(mullama::MullamaRuntime::new().worker_threads(1).build()?);
    /// use std::time::Duration;
    /// let manager = mullama::TaskManager::new(&runtime);
    /// let mut newest = manager.watch_metrics();
    /// manager.spawn_metrics_collector_with(Duration::from_millis(100), 600)?;
    /// # pollster::block_on(async {
    /// newest.changed().await.expect("the manager lives");
    /// assert_eq!(manager.metrics_history()[0].worker_threads, 1);
    /// # });
    /// # Ok(())
    /// # }
    /// ```
    pub fn spawn_metrics_collector_with(&self, interval: Duration, capacity: usize) -> Result<String, MullamaError> {
        if interval.is_zero() {
            return Err(MullamaError::invalid("interval", "0", "use more than zero"));
        }
        if capacity == 0 {
            return Err(MullamaError::invalid("capacity", "0", "use 1 or more"));
        }
        let work =
            collector::collect(Arc::downgrade(&self.shared.runtime), self.shared.history.clone(), interval, capacity);
        self.start(named("metrics"), work)
    }

    /// The samples of the metrics collector, oldest first. They stay when it
    /// ends, and the next one adds to them.
    #[must_use]
    pub fn metrics_history(&self) -> Vec<RuntimeMetrics> {
        if process::is_forked_child() { Vec::new() } else { self.shared.history.read() }
    }

    /// The newest sample, to be waited for. All zero before the first.
    #[must_use]
    pub fn watch_metrics(&self) -> watch::Receiver<RuntimeMetrics> {
        self.shared.history.watch()
    }

    /// Runs a future as a worker of this name. Its output is nothing or a
    /// `Result<(), E>`; a panic is caught. When it is stopped, it is dropped at
    /// its next await.
    ///
    /// A worker that has ended stays in [`TaskManager::worker_status`] until
    /// its name is used again.
    ///
    /// # Errors
    /// `InvalidInput` (field `name`) when the name is empty or a running worker
    /// has it; `Closed` when the runtime has ended; `Unsupported` in a forked
    /// child.
    ///
    /// ```
    /// # fn main() -> Result<(), mullama::MullamaError> {
    /// # let runtime = std::sync::Arc::new(mullama::MullamaRuntime::new().worker_threads(1).build()?);
    /// let manager = mullama::TaskManager::new(&runtime);
    /// manager.spawn_worker("careful", async { Err::<(), _>("disk full") })?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn spawn_worker<F>(&self, name: &str, future: F) -> Result<(), MullamaError>
    where
        F: Future + Send + 'static,
        F::Output: WorkerOutput,
    {
        if name.is_empty() {
            return Err(MullamaError::invalid("name", name, "give at least one character"));
        }
        self.start(named(name), future).map(drop)
    }

    /// Stops all workers, waits for their ends, and reports the first failure
    /// since the last report. Generations under way and in the queue end as
    /// `Cancelled`. Workers can be started again afterwards.
    ///
    /// May be called again, at the same time too. A worker that calls it stops
    /// all others and goes on itself. Dropping the future leaves the workers
    /// to end by themselves.
    ///
    /// # Errors
    /// `OperationFailed` with the worker's name and its error or panic, once;
    /// `Unsupported` in a forked child.
    ///
    /// ```
    /// # fn main() -> Result<(), mullama::MullamaError> {
    /// # let runtime = std::sync::Arc::new(mullama::MullamaRuntime::new().worker_threads(1).build()?);
    /// let manager = mullama::TaskManager::new(&runtime);
    /// manager.spawn_worker("a", std::future::pending::<()>())?;
    /// # pollster::block_on(manager.stop_all())
    /// # }
    /// ```
    pub async fn stop_all(&self) -> Result<(), MullamaError> {
        process::check()?;
        let shared = &self.shared;
        // Before anything is stopped, so that no end is missed.
        let mut ended = shared.ended.subscribe();
        let stopped = shared.stop_workers(worker::current(shared));
        shared.queue.clear(&MullamaError::Cancelled);
        // A worker that never comes to an await outlives its runtime.
        let mut runtime_down = pin!(shared.runtime.wait_until_down());
        loop {
            ended.borrow_and_update();
            if shared.lock().have_ended(&stopped) {
                break;
            }
            let mut change = pin!(ended.changed());
            let is_down = poll_fn(|context| {
                if runtime_down.as_mut().poll(context).is_ready() {
                    return Poll::Ready(true);
                }
                change.as_mut().poll(context).map(|_| false)
            });
            if is_down.await {
                break;
            }
        }
        let failure = shared.lock().take_failure();
        failure.map_or(Ok(()), |failure| Err(MullamaError::OperationFailed(failure)))
    }

    /// How each worker is, by name; those that have ended too.
    #[must_use]
    pub fn worker_status(&self) -> HashMap<String, WorkerStatus> {
        if process::is_forked_child() {
            return HashMap::new();
        }
        self.shared.lock().statuses()
    }

    /// Starts a worker under the name that `name` chooses.
    fn start<F>(
        &self,
        name: impl FnOnce(&Workers) -> Result<String, MullamaError>,
        work: F,
    ) -> Result<String, MullamaError>
    where
        F: Future + Send + 'static,
        F::Output: WorkerOutput,
    {
        self.check()?;
        // The lock ends here: a runtime that ends meanwhile drops the future,
        // which takes it.
        let (id, name, stop) = {
            let mut workers = self.shared.lock();
            let name = name(&workers)?;
            let (id, stop) = workers.enter(&name);
            (id, name, stop)
        };
        let supervised = worker::supervise(Arc::downgrade(&self.shared), id, stop, work);
        drop(spawn(&self.shared.runtime, &self.shared.tokio, supervised));
        Ok(name)
    }

    fn check(&self) -> Result<(), MullamaError> {
        process::check()?;
        if self.shared.runtime.is_running() { Ok(()) } else { Err(runtime_closed()) }
    }
}

impl std::fmt::Debug for TaskManager {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TaskManager").field("workers", &self.worker_status()).finish_non_exhaustive()
    }
}

impl Shared {
    /// Asks all running workers but `except` to stop; gives those it asked.
    fn stop_workers(&self, except: Option<u64>) -> Vec<u64> {
        let (ids, stops): (Vec<_>, Vec<_>) = self.lock().running(except).unzip();
        // Without the lock, which what a token wakes may take.
        stops.iter().for_each(CancellationToken::cancel);
        ids
    }

    /// A worker has ended so.
    fn ended(&self, id: u64, status: WorkerStatus) {
        let failure = self.lock().ended(id, status);
        if let Some(failure) = failure {
            tracing::warn!("{failure}");
        }
        self.ended.send_replace(());
    }

    /// Nothing that can panic runs under the lock, so a poisoned one is whole.
    fn lock(&self) -> MutexGuard<'_, Workers> {
        self.workers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if !process::is_forked_child() {
            self.stop_workers(None);
            self.queue.clear(&MullamaError::Cancelled);
        }
    }
}

/// This very name, if it is free.
fn named(name: &str) -> impl FnOnce(&Workers) -> Result<String, MullamaError> {
    move |workers| if workers.is_taken(name) { Err(taken(name)) } else { Ok(name.to_owned()) }
}

fn taken(name: &str) -> MullamaError {
    MullamaError::invalid("name", name, "a running worker has this name; choose another")
}

fn runtime_closed() -> MullamaError {
    MullamaError::Closed("the runtime".to_owned())
}
