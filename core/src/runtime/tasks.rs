//! SKELETON: owned by the runtime work.
#![allow(unused_variables, missing_docs)]

use crate::{AsyncModel, Generation, MullamaError, MullamaRuntime, RuntimeMetrics, StreamConfig, context::skeleton};
use std::{
    collections::HashMap,
    fmt::Display,
    future::Future,
    pin::Pin,
    sync::{Arc, Weak},
    task::{Context, Poll},
    time::Duration,
};

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WorkerStatus {
    Running,
    Completed,
    Failed(String),
    Panicked(String),
    Stopped,
}

/// What a custom worker may give: nothing, or a result.
pub trait WorkerOutput: Send + 'static {
    #[doc(hidden)]
    fn failure(self) -> Option<String>;
}
impl WorkerOutput for () {
    fn failure(self) -> Option<String> {
        None
    }
}
impl<E: Display + Send + 'static> WorkerOutput for Result<(), E> {
    fn failure(self) -> Option<String> {
        self.err().map(|error| error.to_string())
    }
}

#[derive(Debug)]
pub struct TaskManager {
    runtime: Weak<MullamaRuntime>,
}

#[derive(Debug)]
pub struct GenerationTask {}

impl GenerationTask {
    pub fn cancel(&self) {}
    pub fn id(&self) -> u64 {
        0
    }
}

impl Future for GenerationTask {
    type Output = Result<Generation, MullamaError>;
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(Err(skeleton()))
    }
}

impl TaskManager {
    pub fn new(runtime: &Arc<MullamaRuntime>) -> Self {
        Self { runtime: Arc::downgrade(runtime) }
    }
    pub fn spawn_generation_worker(&self) -> Result<String, MullamaError> {
        Err(skeleton())
    }
    pub fn submit(
        &self,
        model: &AsyncModel,
        prompt: &str,
        config: StreamConfig,
    ) -> Result<GenerationTask, MullamaError> {
        Err(skeleton())
    }
    pub fn spawn_metrics_collector(&self) -> Result<String, MullamaError> {
        Err(skeleton())
    }
    pub fn spawn_metrics_collector_with(&self, interval: Duration, capacity: usize) -> Result<String, MullamaError> {
        Err(skeleton())
    }
    pub fn metrics_history(&self) -> Vec<RuntimeMetrics> {
        Vec::new()
    }
    pub fn watch_metrics(&self) -> tokio::sync::watch::Receiver<RuntimeMetrics> {
        tokio::sync::watch::channel(RuntimeMetrics::default()).1
    }
    pub fn spawn_worker<F>(&self, name: &str, future: F) -> Result<(), MullamaError>
    where
        F: Future + Send + 'static,
        F::Output: WorkerOutput,
    {
        Err(skeleton())
    }
    pub async fn stop_all(&self) -> Result<(), MullamaError> {
        Err(skeleton())
    }
    pub fn worker_status(&self) -> HashMap<String, WorkerStatus> {
        HashMap::new()
    }
}
