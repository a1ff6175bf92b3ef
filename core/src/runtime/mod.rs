//! [`MullamaRuntime`]: the Tokio runtime that runs mullama's tasks. Node and
//! Python dispatch onto the shared one, so a process that uses both, or many
//! models, has one set of worker threads.
//!
//! The engine does not need it: its threads are its own, and its futures run
//! on any executor.

use crate::{MullamaError, process};
use std::{
    future::Future,
    sync::{Mutex, OnceLock, PoisonError},
};
use tokio::{runtime, task::JoinHandle};

/// Worker threads of the shared runtime. They only pass messages between the
/// engines and the host's event loop; more would take cores from decoding.
const SHARED_WORKERS: usize = 1;

/// A Tokio runtime for mullama's tasks.
pub struct MullamaRuntime {
    tokio: runtime::Runtime,
}

impl MullamaRuntime {
    /// The one runtime of the process, started at the first call. It lives
    /// until the process ends.
    ///
    /// # Errors
    /// `Io` when the threads can't be started; `Unsupported` in a forked
    /// child.
    pub fn shared() -> Result<&'static Self, MullamaError> {
        static SHARED: OnceLock<MullamaRuntime> = OnceLock::new();
        static STARTING: Mutex<()> = Mutex::new(());
        process::claim()?;
        if let Some(runtime) = SHARED.get() {
            return Ok(runtime);
        }
        // One start at a time; one that fails may be tried again.
        let _starting = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
        if SHARED.get().is_none() {
            let _ = SHARED.set(Self::start()?);
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
