//! `TaskManager`: its queue of generations, its workers, its samples, and its
//! ends.

mod end;
mod queue;
mod workers;

use futures_util::{FutureExt, future::join_all};
use mullama::{GenerationTask, ModelOptions, MullamaError, MullamaRuntime, StreamConfig, TaskManager, WorkerStatus};
use mullama_tests::{Tiny, exactly, options, run, tiny, until, until_idle};
use std::{
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::sync::oneshot;

/// Without `enable_time`, which nothing here may need, and without a limit, so
/// that a shutdown which waits for a worker hangs, and the test fails.
fn runtime() -> Arc<MullamaRuntime> {
    Arc::new(MullamaRuntime::new().worker_threads(2).shutdown_timeout(Duration::MAX).build().unwrap())
}

fn manager(runtime: &Arc<MullamaRuntime>, n_workers: usize) -> TaskManager {
    let manager = TaskManager::new(runtime);
    for _ in 0..n_workers {
        manager.spawn_generation_worker().unwrap();
    }
    manager
}

async fn model() -> Tiny {
    tiny(ModelOptions { max_concurrent: 4, context_size: 8192, ..options() }).await
}

/// One that runs until it is stopped.
fn endless() -> StreamConfig {
    exactly(8000)
}

fn is_cancelled<T: std::fmt::Debug>(result: &Result<T, MullamaError>) -> bool {
    matches!(result, Err(MullamaError::Cancelled))
}

fn is_closed<T: std::fmt::Debug>(result: &Result<T, MullamaError>) -> bool {
    matches!(result, Err(MullamaError::Closed(what)) if what == "the runtime")
}

async fn until_status(manager: &TaskManager, name: &str, wanted: WorkerStatus) {
    while manager.worker_status().get(name) != Some(&wanted) {
        tokio::task::yield_now().await;
    }
}
