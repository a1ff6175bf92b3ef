//! [`MullamaRuntime`]: the Tokio runtime that runs mullama's tasks. Node and
//! Python dispatch onto the shared one, so a process that uses both, or many
//! models, has one set of worker threads.
//!
//! The engine does not need it: its threads are its own, and its futures run
//! on any executor.

mod builder;
mod tasks;

pub use builder::MullamaRuntimeBuilder;
pub use tasks::{GenerationTask, TaskManager, WorkerOutput, WorkerStatus};

use crate::{MullamaError, process};
use std::{
    future::Future,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};
use tokio::{runtime, task::JoinHandle};

/// Worker threads of the shared runtime. They only pass messages between the
/// engines and the host's event loop; more would take cores from decoding.
const SHARED_WORKERS: usize = 1;

/// A Tokio runtime for mullama's tasks.
pub struct MullamaRuntime {
    tokio: runtime::Runtime,
}

/// Figures of a runtime.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[allow(missing_docs)]
pub struct RuntimeMetrics {
    pub active_tasks: usize,
    pub completed_tasks: u64,
    pub worker_threads: usize,
    pub blocking_threads: usize,
    pub total_generations: u64,
    pub avg_generation_ms: f64,
    pub uptime_seconds: u64,
}

#[allow(missing_docs, unused_variables, clippy::new_ret_no_self)]
impl MullamaRuntime {
    pub fn new() -> MullamaRuntimeBuilder {
        MullamaRuntimeBuilder::default()
    }
    pub fn configure_shared(builder: MullamaRuntimeBuilder) -> Result<(), MullamaError> {
        Err(crate::context::skeleton())
    }
    pub async fn metrics(&self) -> RuntimeMetrics {
        RuntimeMetrics::default()
    }
    pub async fn metrics_text(&self) -> String {
        String::new()
    }
    pub async fn shutdown(self) -> Result<(), MullamaError> {
        Err(crate::context::skeleton())
    }
    pub fn is_running(&self) -> bool {
        true
    }
    /// The one runtime of the process, started at the first call. It lives
    /// until the process ends.
    ///
    /// # Errors
    /// `Io` when the threads can't be started; `Unsupported` in a forked
    /// child.
    pub fn shared() -> Result<&'static Arc<Self>, MullamaError> {
        static SHARED: OnceLock<Arc<MullamaRuntime>> = OnceLock::new();
        static STARTING: Mutex<()> = Mutex::new(());
        process::claim()?;
        if let Some(runtime) = SHARED.get() {
            return Ok(runtime);
        }
        // One start at a time; one that fails may be tried again.
        let _starting = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
        if SHARED.get().is_none() {
            let _ = SHARED.set(Arc::new(Self::start()?));
        }
        SHARED.get().ok_or_else(|| MullamaError::Internal("the runtime was not kept".to_owned()))
    }

    fn start() -> Result<Self, MullamaError> {
        let tokio = runtime::Builder::new_multi_thread()
            .worker_threads(SHARED_WORKERS)
            .thread_name("mullama-runtime")
            .enable_time()
            .build()
            .map_err(|error| MullamaError::Io {
                kind: error.kind(),
                message: format!("could not start the runtime: {error}"),
            })?;
        Ok(Self { tokio })
    }

    /// The Tokio runtime underneath.
    #[must_use]
    pub fn tokio(&self) -> &runtime::Runtime {
        &self.tokio
    }

    /// Runs a future on the runtime's threads.
    pub fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.tokio.spawn(future)
    }

    /// Runs blocking work on a thread of its own.
    pub fn spawn_blocking<F, R>(&self, work: F) -> JoinHandle<R>
    where
        F: FnOnce() -> R + Send + 'static,
        R: Send + 'static,
    {
        self.tokio.spawn_blocking(work)
    }
}

impl std::fmt::Debug for MullamaRuntime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MullamaRuntime").finish_non_exhaustive()
    }
}
