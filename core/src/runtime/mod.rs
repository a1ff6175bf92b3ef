//! [`MullamaRuntime`]: the Tokio runtime that runs mullama's tasks. Node and
//! Python dispatch onto the shared one, so a process that uses both, or many
//! models, has one set of worker threads.
//!
//! The engine does not need it: its threads are its own, and its futures run
//! on any executor.
//!
//! [`state`] is what outlives the Tokio runtime: the counts, and the hooks by
//! which a shutdown reaches generations and task managers.

mod blocking;
mod builder;
mod exposition;
mod metrics;
mod shared;
mod state;
mod tasks;
pub(crate) mod timer;

pub use builder::MullamaRuntimeBuilder;
pub use metrics::RuntimeMetrics;
pub(crate) use state::{OnStop, State, current};
pub use tasks::{GenerationTask, TaskManager, WorkerOutput, WorkerStatus};

use crate::{MullamaError, engine::Latch, process};
use blocking::Blocking;
use std::{
    future::{Future, pending},
    ops::Deref,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{runtime, task::JoinHandle};

tokio::task_local! {
    /// The runtime whose counts the current task is in.
    static OWNER: Arc<State>;
}

/// A Tokio runtime for mullama's tasks, with live figures and a shutdown that
/// keeps to its limit.
///
/// It may be dropped anywhere, in async code too: tasks are then aborted at
/// their next await and nothing is waited for. [`MullamaRuntime::shutdown`]
/// ends it gracefully. Share it in an [`Arc`]; who shuts it down must be its
/// only owner (`Arc::into_inner`).
///
/// ```
/// # fn main() -> Result<(), mullama::MullamaError> {
/// use mullama::MullamaRuntime;
///
/// let runtime = MullamaRuntime::new().worker_threads(2).enable_all().build()?;
/// let task = runtime.spawn(async { "done" });
/// # pollster::block_on(async {
/// assert_eq!(task.await.expect("it neither panics nor is aborted"), "done");
/// runtime.shutdown().await
/// # })
/// # }
/// ```
pub struct MullamaRuntime {
    tokio: Owned,
    shutdown_timeout: Duration,
}

impl MullamaRuntime {
    /// A builder with the default settings.
    ///
    /// ```
    /// # fn main() -> Result<(), mullama::MullamaError> {
    /// let runtime = mullama::MullamaRuntime::new().worker_threads(1).build()?;
    /// assert!(runtime.is_running());
    /// # Ok(())
    /// # }
    /// ```
    #[allow(clippy::new_ret_no_self, reason = "the specification's name")]
    pub fn new() -> MullamaRuntimeBuilder {
        MullamaRuntimeBuilder::default()
    }

    /// Runs a future on the runtime's worker threads. Dropping the handle does
    /// not stop it; `abort()` does.
    ///
    /// In a forked child, where the threads are missing, nothing is run and
    /// the handle gives a cancelled `JoinError`, as it does for tasks that a
    /// shutdown aborts.
    ///
    /// ```
    /// # fn main() -> Result<(), mullama::MullamaError> {
    /// # let runtime = mullama::MullamaRuntime::new().worker_threads(1).build()?;
    /// let task = runtime.spawn(async { 6 * 7 });
    /// # pollster::block_on(async {
    /// assert_eq!(task.await.expect("it neither panics nor is aborted"), 42);
    /// # });
    /// # Ok(())
    /// # }
    /// ```
    pub fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        spawn(&self.tokio.state, self.tokio.handle(), future)
    }

    /// Runs blocking work on a thread of its own, of which there are at most
    /// `max_blocking_threads`; more work waits. Work that has begun can't be
    /// aborted. In a forked child as [`MullamaRuntime::spawn`].
    ///
    /// ```
    /// # fn main() -> Result<(), mullama::MullamaError> {
    /// # let runtime = mullama::MullamaRuntime::new().worker_threads(1).build()?;
    /// let task = runtime.spawn_blocking(|| std::fs::read_to_string("Cargo.toml"));
    /// # pollster::block_on(async {
    /// assert!(task.await.expect("it neither panics nor is aborted").is_ok());
    /// # });
    /// # Ok(())
    /// # }
    /// ```
    pub fn spawn_blocking<F, R>(&self, work: F) -> JoinHandle<R>
    where
        F: FnOnce() -> R + Send + 'static,
        R: Send + 'static,
    {
        let state = &self.tokio.state;
        let Some(counted) = state.admit() else { return refused() };
        let owner = state.clone();
        self.tokio.blocking.spawn(&self.tokio, move || {
            let _counted = counted;
            OWNER.sync_scope(owner, work)
        })
    }

    /// A future that counts as a task of this runtime from now until it ends,
    /// whoever polls it. For the bindings, whose tasks do more than the call:
    /// they settle a promise, by which time the call is counted as ended.
    /// `None` when the runtime is ending.
    #[doc(hidden)]
    pub fn counted<F: Future>(&self, future: F) -> impl Future<Output = Option<F::Output>> + use<F> {
        let state = self.tokio.state.clone();
        let counted = state.admit();
        async move {
            let counted = counted?;
            let output = OWNER.scope(state, future).await;
            drop(counted);
            Some(output)
        }
    }

    /// Live figures of the runtime, and the process's generations. Nothing is
    /// waited for.
    ///
    /// ```
    /// # fn main() -> Result<(), mullama::MullamaError> {
    /// # let runtime = mullama::MullamaRuntime::new().worker_threads(1).build()?;
    /// # pollster::block_on(async {
    /// let metrics = runtime.metrics().await;
    /// assert_eq!(metrics.active_tasks, 0);
    /// # });
    /// # Ok(())
    /// # }
    /// ```
    pub async fn metrics(&self) -> RuntimeMetrics {
        self.tokio.state.metrics()
    }

    /// The figures of this runtime and of every loaded model of the process,
    /// in the Prometheus text format (version 0.0.4, `text/plain;
    /// version=0.0.4`). Times are in seconds, sizes in bytes. A model's
    /// figures have the labels `model`, its name, and `engine`, a number that
    /// tells two loads of one file apart.
    ///
    /// ```
    /// # fn main() -> Result<(), mullama::MullamaError> {
    /// # let runtime = mullama::MullamaRuntime::new().worker_threads(1).build()?;
    /// # pollster::block_on(async {
    /// let text = runtime.metrics_text().await;
    /// assert!(text.contains("\nmullama_runtime_worker_threads 1\n"));
    /// # });
    /// # Ok(())
    /// # }
    /// ```
    pub async fn metrics_text(&self) -> String {
        exposition::encode(self.tokio.state.metrics())
    }

    /// Ends the runtime gracefully. It admits nothing more, cancels the
    /// generations that were started on its threads (`generate` gives
    /// `Cancelled`, a stream ends with the reason `Cancelled`), stops the
    /// workers of its task managers, and waits for tasks until
    /// `shutdown_timeout` has passed; then it aborts those that are left and
    /// does not wait for blocking work that still runs.
    ///
    /// May be awaited on any executor. A task of the runtime itself may await
    /// it too: the others are waited for first, and the task may then go on
    /// until it ends or the limit passes. Dropping the future changes nothing:
    /// the shutdown goes on by itself.
    ///
    /// # Errors
    /// `Unsupported` in a forked child, whose parent owns the threads; `Io`
    /// when no thread can be started to wait on, in which case everything is
    /// aborted at once. Tasks that had to be aborted are no error; their
    /// handles tell, and the log counts them.
    ///
    /// ```
    /// # fn main() -> Result<(), mullama::MullamaError> {
    /// use mullama::MullamaRuntime;
    /// use std::{future::pending, time::Duration};
    ///
    /// let runtime = MullamaRuntime::new().worker_threads(1).shutdown_timeout(Duration::from_millis(1)).build()?;
    /// let endless = runtime.spawn(pending::<()>());
    /// # pollster::block_on(async {
    /// runtime.shutdown().await?;
    /// assert!(endless.await.expect_err("it never returns").is_cancelled());
    /// # Ok(())
    /// # })
    /// # }
    /// ```
    pub async fn shutdown(self) -> Result<(), MullamaError> {
        process::check()?;
        let Self { tokio, shutdown_timeout } = self;
        let deadline = Instant::now().checked_add(shutdown_timeout);
        let state = tokio.state.clone();
        let n_own = usize::from(OWNER.try_with(|owner| Arc::ptr_eq(owner, &state)).unwrap_or(false));
        state.stop();
        let done = Arc::new(Latch::new());
        // A thread of its own, since this future may be polled by anything,
        // and since the runtime's own threads are what ends.
        let set_done = done.clone();
        std::thread::Builder::new()
            .name("mullama-stop".to_owned())
            .spawn(move || tokio.shut_down(n_own, deadline, &set_done))
            .map_err(|error| could_not_start("a thread to shut down on", &error))?;
        done.wait().await;
        Ok(())
    }

    /// Whether tasks are admitted and run: always until a shutdown, but not in
    /// a forked child, where the threads are missing.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.tokio.state.is_running()
    }

    /// How long a shutdown waits for tasks.
    #[must_use]
    pub fn shutdown_timeout(&self) -> Duration {
        self.shutdown_timeout
    }

    /// The Tokio runtime underneath, for `enter` and `block_on`. Tasks that
    /// are spawned on it directly are aborted by a shutdown without being
    /// waited for, and are not counted.
    ///
    /// ```
    /// # fn main() -> Result<(), mullama::MullamaError> {
    /// # let runtime = mullama::MullamaRuntime::new().worker_threads(1).build()?;
    /// assert_eq!(runtime.tokio().block_on(async { 42 }), 42);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn tokio(&self) -> &runtime::Runtime {
        &self.tokio
    }

    /// For what lives beside the runtime without keeping it alive.
    fn parts(&self) -> (&Arc<State>, &runtime::Handle) {
        (&self.tokio.state, self.tokio.handle())
    }
}

impl std::fmt::Debug for MullamaRuntime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MullamaRuntime").field("is_running", &self.is_running()).finish_non_exhaustive()
    }
}

/// As [`MullamaRuntime::spawn`], for those that have only its parts.
fn spawn<F>(state: &Arc<State>, tokio: &runtime::Handle, future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    let Some(counted) = state.admit() else { return refused() };
    tokio.spawn(OWNER.scope(state.clone(), async move {
        let _counted = counted;
        future.await
    }))
}

/// The handle of a task that was not admitted: awaiting it gives a cancelled
/// `JoinError`. Made by a runtime of its own that ends at once, since the real
/// one may be down, or its locks held by threads that a fork left behind.
fn refused<T: Send + 'static>() -> JoinHandle<T> {
    let nowhere = runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime without drivers and threads asks nothing of the system");
    let task = nowhere.spawn(pending());
    nowhere.shutdown_background();
    task
}

fn could_not_start(what: &str, error: &std::io::Error) -> MullamaError {
    MullamaError::Io { kind: error.kind(), message: format!("could not start {what}: {error}") }
}

/// How long the tasks of a dropped runtime may take to come to an await before
/// those who wait for its end are told.
const ABORT_LIMIT: Duration = Duration::from_secs(1);

/// The Tokio runtime, which may be dropped anywhere: Tokio's own would panic
/// in async code.
struct Owned {
    /// `None` only while it is being dropped.
    tokio: Option<runtime::Runtime>,
    state: Arc<State>,
    blocking: Arc<Blocking>,
}

impl Owned {
    fn new(tokio: runtime::Runtime, state: Arc<State>) -> Self {
        Self { tokio: Some(tokio), state, blocking: Arc::default() }
    }

    /// The end of a graceful shutdown, on a thread of its own. `done` is set
    /// when all is over; if the shutdown was called by one of the tasks
    /// (`n_own`), already when only that one is left.
    fn shut_down(mut self, n_own: usize, deadline: Option<Instant>, done: &Latch<()>) {
        self.state.wait_for_tasks(n_own, deadline);
        if n_own > 0 {
            done.set(());
        }
        let n_left = self.state.wait_for_tasks(0, deadline);
        if n_left > 0 {
            tracing::warn!(tasks = n_left, "the shutdown's limit has passed; what has not ended is aborted");
        }
        self.blocking.abort_waiting();
        if let Some(tokio) = self.tokio.take() {
            let left = |deadline: Instant| deadline.saturating_duration_since(Instant::now());
            tokio.shutdown_timeout(deadline.map_or(Duration::MAX, left));
        }
        self.state.went_down();
        done.set(());
    }
}

impl Deref for Owned {
    type Target = runtime::Runtime;

    fn deref(&self) -> &runtime::Runtime {
        self.tokio.as_ref().expect("it is there until it is dropped")
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        let Some(tokio) = self.tokio.take() else { return };
        if process::is_forked_child() {
            // The parent's threads are not this process's to end.
            std::mem::forget(tokio);
            return;
        }
        self.state.stop();
        self.blocking.abort_waiting();
        let mut ending = Ending { tokio: Some(tokio), state: self.state.clone() };
        let end = move || {
            if let Some(tokio) = ending.tokio.take() {
                tokio.shutdown_timeout(ABORT_LIMIT);
            }
        };
        // Without a thread nothing is waited for.
        drop(std::thread::Builder::new().name("mullama-stop".to_owned()).spawn(end));
    }
}

/// A dropped runtime until its tasks are gone, as far as they come to an await.
struct Ending {
    tokio: Option<runtime::Runtime>,
    state: Arc<State>,
}

impl Drop for Ending {
    fn drop(&mut self) {
        if let Some(tokio) = self.tokio.take() {
            tokio.shutdown_background();
        }
        self.state.went_down();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_admitted_is_dropped_and_gives_a_cancelled_error() {
        let runtime = MullamaRuntime::new().worker_threads(1).build().unwrap();
        let kept = Arc::new(());
        let task = |kept: Arc<()>| async move { drop(kept) };
        runtime.tokio.state.stop();
        assert!(!runtime.is_running());
        let check = async || {
            let (for_task, for_work) = (kept.clone(), kept.clone());
            assert!(runtime.spawn(task(for_task)).await.unwrap_err().is_cancelled());
            assert!(runtime.spawn_blocking(move || drop(for_work)).await.unwrap_err().is_cancelled());
            assert_eq!(Arc::strong_count(&kept), 1);
        };
        pollster::block_on(check());
        // In a runtime's context, where Tokio's own may not be dropped.
        let host = MullamaRuntime::new().worker_threads(1).build().unwrap();
        host.tokio().block_on(check());
        assert_eq!(pollster::block_on(runtime.metrics()).completed_tasks, 0);
    }
}
