//! [`RuntimeMetrics`]: what a runtime and the process have done.

/// Live figures of a [`MullamaRuntime`](crate::MullamaRuntime).
///
/// Tasks are those that [`spawn`](crate::MullamaRuntime::spawn) and
/// [`spawn_blocking`](crate::MullamaRuntime::spawn_blocking) started, and the
/// workers of a [`TaskManager`](crate::TaskManager); `active_tasks` and
/// `completed_tasks` together are all that were started. Generations are the
/// process's, of all models and contexts, wherever they were started.
///
/// ```
/// # fn main() -> Result<(), mullama::MullamaError> {
/// use mullama::MullamaRuntime;
///
/// let runtime = MullamaRuntime::new().worker_threads(1).build()?;
/// runtime.tokio().block_on(async {
///     runtime.spawn(async { 1 + 1 }).await.expect("it neither panics nor is aborted");
///     let metrics = runtime.metrics().await;
///     assert_eq!((metrics.active_tasks, metrics.completed_tasks), (0, 1));
///     assert_eq!(metrics.worker_threads, 1);
/// });
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct RuntimeMetrics {
    /// Tasks that live now: waiting for a thread, running, or suspended.
    pub active_tasks: usize,
    /// Tasks that have ended in any way: returned, panicked, or aborted.
    pub completed_tasks: u64,
    /// Threads that run async tasks.
    pub worker_threads: usize,
    /// Threads for blocking work that exist now. An idle one ends after ten
    /// seconds.
    pub blocking_threads: usize,
    /// Generations that ended with a result; neither cancelled nor failed.
    pub total_generations: u64,
    /// Their mean time from submission to the last token, in milliseconds; 0
    /// when there was none.
    pub avg_generation_ms: f64,
    /// Whole seconds since the runtime was started.
    pub uptime_seconds: u64,
}
