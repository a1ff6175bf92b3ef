//! [`MullamaRuntimeBuilder`]: the settings of a runtime, their limits, and the
//! start of its threads.

use super::{MullamaRuntime, Owned, State, could_not_start};
use crate::{MullamaError, config::available_threads, process};
use std::{io, sync::RwLock, thread, time::Duration};
use tokio::runtime;

/// More threads than any machine can use; a number beyond is a mistake.
const MOST_WORKERS: usize = 1024;
const MOST_BLOCKING: usize = 16_384;

/// What the tokenizer needs for a prompt, with a margin, and a size of which a
/// process can have many.
const STACK_SIZES: std::ops::RangeInclusive<usize> = 128 * 1024..=1024 * 1024 * 1024;

const DEFAULT_BLOCKING: usize = 512;
const DEFAULT_SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(10);

/// The settings of a [`MullamaRuntime`]. Setters check nothing;
/// [`MullamaRuntimeBuilder::build`] does.
///
/// ```
/// # fn main() -> Result<(), mullama::MullamaError> {
/// let runtime = mullama::MullamaRuntime::new()
///     .worker_threads(4)
///     .max_blocking_threads(8)
///     .thread_stack_size(4 * 1024 * 1024)
///     .thread_name("mullama-worker")
///     .enable_io()
///     .enable_time()
///     .build()?;
/// # drop(runtime);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct MullamaRuntimeBuilder {
    // `None` is the default, which differs between the shared runtime and
    // others.
    worker_threads: Option<usize>,
    max_blocking_threads: Option<usize>,
    thread_stack_size: Option<usize>,
    thread_name: Option<String>,
    shutdown_timeout: Option<Duration>,
    enable_io: bool,
    enable_time: bool,
}

impl MullamaRuntimeBuilder {
    /// Threads that run async tasks: 1 to 1024. Default: the processors that
    /// the process may use; 1 for the shared runtime.
    pub fn worker_threads(mut self, n: usize) -> Self {
        self.worker_threads = Some(n);
        self
    }

    /// Most threads for blocking work at once: 1 to 16384. Default 512.
    pub fn max_blocking_threads(mut self, n: usize) -> Self {
        self.max_blocking_threads = Some(n);
        self
    }

    /// Bytes of stack of each thread: 128 KiB to 1 GiB. Default 2 MiB.
    pub fn thread_stack_size(mut self, bytes: usize) -> Self {
        self.thread_stack_size = Some(bytes);
        self
    }

    /// Name of the threads; not empty and without NUL characters. Linux shows
    /// the first 15 bytes. Default `mullama-worker`, and `mullama-runtime` for
    /// the shared runtime.
    pub fn thread_name(mut self, name: &str) -> Self {
        self.thread_name = Some(name.to_owned());
        self
    }

    /// Lets tasks use Tokio's sockets. Off by default; without it they panic
    /// there. mullama itself never needs it.
    pub fn enable_io(mut self) -> Self {
        self.enable_io = true;
        self
    }

    /// Lets tasks use Tokio's timers. Off by default; without it
    /// `tokio::time::sleep` panics in a task. mullama's own timeouts and
    /// intervals work either way: they use the shared runtime's clock.
    pub fn enable_time(mut self) -> Self {
        self.enable_time = true;
        self
    }

    /// [`enable_io`](Self::enable_io) and [`enable_time`](Self::enable_time).
    pub fn enable_all(self) -> Self {
        self.enable_io().enable_time()
    }

    /// How long [`MullamaRuntime::shutdown`] waits for tasks. Default 10
    /// seconds; zero aborts them at once.
    pub fn shutdown_timeout(mut self, limit: Duration) -> Self {
        self.shutdown_timeout = Some(limit);
        self
    }

    /// Starts the runtime.
    ///
    /// # Errors
    /// `InvalidInput`, naming the first setting that is out of range; `Io` when
    /// the system refuses so many threads with such stacks; `Unsupported` in a
    /// forked child.
    ///
    /// ```
    /// use mullama::{MullamaError, MullamaRuntime};
    /// let refused = MullamaRuntime::new().worker_threads(0).build();
    /// assert!(matches!(refused, Err(MullamaError::InvalidInput { field, .. }) if field == "worker_threads"));
    /// ```
    pub fn build(self) -> Result<MullamaRuntime, MullamaError> {
        let n_workers = self.worker_threads.unwrap_or_else(|| available_threads().min(MOST_WORKERS));
        self.start(n_workers, "mullama-worker", false)
    }

    /// Starts the runtime of the process. Time is on, for [`super::timer`].
    pub(super) fn build_shared(self) -> Result<MullamaRuntime, MullamaError> {
        let n_workers = self.worker_threads.unwrap_or(1);
        self.enable_time().start(n_workers, "mullama-runtime", true)
    }

    /// # Errors
    /// `InvalidInput`, naming the first setting that is out of range.
    pub(super) fn validate(&self) -> Result<(), MullamaError> {
        let in_range = |field: &str, value: Option<usize>, least: usize, most: usize| match value {
            Some(value) if !(least..=most).contains(&value) => {
                Err(MullamaError::invalid(field, value, format!("use {least} to {most}")))
            }
            _ => Ok(()),
        };
        in_range("worker_threads", self.worker_threads, 1, MOST_WORKERS)?;
        in_range("max_blocking_threads", self.max_blocking_threads, 1, MOST_BLOCKING)?;
        in_range("thread_stack_size", self.thread_stack_size, *STACK_SIZES.start(), *STACK_SIZES.end())?;
        match self.thread_name.as_deref() {
            Some("") => Err(MullamaError::invalid("thread_name", "", "give at least one character")),
            Some(name) if name.contains('\0') => {
                Err(MullamaError::invalid("thread_name", name.escape_default(), "leave out NUL characters"))
            }
            _ => Ok(()),
        }
    }

    fn start(self, n_workers: usize, default_name: &str, permanent: bool) -> Result<MullamaRuntime, MullamaError> {
        self.validate()?;
        process::claim()?;
        try_threads(n_workers + 1, self.thread_stack_size).map_err(|error| {
            could_not_start(&format!("{n_workers} worker threads; ask for fewer, or for smaller stacks"), &error)
        })?;
        let state = State::new(n_workers, permanent);
        let mut builder = runtime::Builder::new_multi_thread();
        builder
            .worker_threads(n_workers)
            .max_blocking_threads(self.max_blocking_threads.unwrap_or(DEFAULT_BLOCKING))
            .thread_name(self.thread_name.as_deref().unwrap_or(default_name))
            .on_thread_start({
                let state = state.clone();
                move || state.thread_started()
            })
            .on_thread_stop({
                let state = state.clone();
                move || state.thread_stopped()
            });
        if let Some(bytes) = self.thread_stack_size {
            builder.thread_stack_size(bytes);
        }
        if self.enable_io {
            builder.enable_io();
        }
        if self.enable_time {
            builder.enable_time();
        }
        let tokio = builder.build().map_err(|error| could_not_start("the runtime", &error))?;
        state.wait_for_workers();
        Ok(MullamaRuntime {
            tokio: Owned::new(tokio, state),
            shutdown_timeout: self.shutdown_timeout.unwrap_or(DEFAULT_SHUTDOWN_TIMEOUT),
        })
    }
}

/// Whether the system gives `n` threads at once. Tokio starts its own
/// afterwards and would panic without them.
fn try_threads(n: usize, stack_size: Option<usize>) -> io::Result<()> {
    // All live until the last has been started, or one could not be.
    let gate = RwLock::new(());
    thread::scope(|scope| {
        let _closed = gate.write();
        for _ in 0..n {
            let mut builder = thread::Builder::new().name("mullama-try".to_owned());
            if let Some(bytes) = stack_size {
                builder = builder.stack_size(bytes);
            }
            builder.spawn_scoped(scope, || drop(gate.read()))?;
        }
        Ok(())
    })
}
