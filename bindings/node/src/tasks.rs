//! The native task manager.
//!
//! A worker written in JavaScript runs on its environment's thread; here it is
//! a future that waits for word of its end.

use crate::{
    cancel::Cancel,
    convert::{Answer, ms, number},
    error::{refused, to_js},
    facts::{RuntimeFigures, WorkerState},
    given::Given,
    model::Model,
    options,
    promise::wait,
};
use mullama::{MullamaRuntime, TaskManager};
use napi::bindgen_prelude::*;
use napi_derive::napi;
use std::collections::HashMap;
use tokio::sync::oneshot;

#[napi(js_name = "NativeTaskManager")]
pub struct Manager {
    inner: TaskManager,
}

#[napi]
impl Manager {
    #[napi(constructor, catch_unwind)]
    pub fn new() -> Result<Self> {
        let runtime = MullamaRuntime::shared().map_err(|error| to_js(&error))?;
        Ok(Self { inner: TaskManager::new(runtime) })
    }

    #[napi(catch_unwind)]
    pub fn spawn_generation_worker(&self) -> Result<String> {
        self.inner.spawn_generation_worker().map_err(|error| to_js(&error))
    }

    /// An object of the task's `id` and the promise of its `result`.
    #[napi(catch_unwind)]
    pub fn submit<'env>(
        &self,
        env: &'env Env,
        model: &Model,
        prompt: Unknown<'env>,
        options: Object<'env>,
        cancel: &Cancel,
    ) -> Result<Object<'env>> {
        let prompt = Given { name: "prompt", value: prompt }.text().map_err(|error| refused(&error))?;
        let config = options::stream_config(&options).map_err(|error| refused(&error))?;
        let model = model.inner.hold().map_err(|error| to_js(&error))?;
        let task = self.inner.submit(&model, &prompt, config).map_err(|error| to_js(&error))?;
        let mut submitted = Object::new(env)?;
        submitted.set("id", number(task.id()))?;
        let result = async move {
            let generation = task.await;
            drop(model);
            generation.map(Answer::from)
        };
        submitted.set("result", wait(env, Some(cancel), result)?)?;
        Ok(submitted)
    }

    #[napi(catch_unwind)]
    pub fn spawn_metrics_collector(&self, options: Object<'_>) -> Result<String> {
        let options = options::collector_options(&options).map_err(|error| refused(&error))?;
        let interval = options.interval.unwrap_or(TaskManager::METRICS_INTERVAL);
        let capacity = options.capacity.unwrap_or(TaskManager::METRICS_CAPACITY);
        self.inner.spawn_metrics_collector_with(interval, capacity).map_err(|error| to_js(&error))
    }

    #[napi(catch_unwind)]
    pub fn metrics_history(&self) -> Vec<RuntimeFigures> {
        self.inner.metrics_history().into_iter().map(RuntimeFigures::from).collect()
    }

    /// Enters a worker that JavaScript runs.
    #[napi(catch_unwind)]
    pub fn spawn_worker(&self, name: Unknown<'_>) -> Result<Worker> {
        let name = Given { name: "name", value: name }.text().map_err(|error| refused(&error))?;
        let (ended, end) = oneshot::channel();
        let work = async move { end.await.unwrap_or_else(|_| Err("the thread that ran it ended".to_owned())) };
        self.inner.spawn_worker(&name, work).map_err(|error| to_js(&error))?;
        Ok(Worker { ended: Some(ended) })
    }

    #[napi(catch_unwind)]
    pub fn stop_all<'env>(&self, env: &'env Env) -> Result<Object<'env>> {
        let manager = self.inner.clone();
        wait(env, None, async move { manager.stop_all().await })
    }

    /// How long workers that JavaScript runs may take to end, in milliseconds.
    #[napi(getter, catch_unwind)]
    pub fn patience(&self) -> Result<f64> {
        let runtime = MullamaRuntime::shared().map_err(|error| to_js(&error))?;
        Ok(ms(runtime.shutdown_timeout()))
    }

    #[napi(catch_unwind)]
    pub fn worker_status(&self) -> HashMap<String, WorkerState> {
        let status = self.inner.worker_status();
        status.into_iter().map(|(name, status)| (name, status.into())).collect()
    }
}

/// A worker that JavaScript runs, while it runs.
#[napi(js_name = "NativeWorker")]
pub struct Worker {
    ended: Option<oneshot::Sender<std::result::Result<(), String>>>,
}

#[napi]
impl Worker {
    /// Says that the worker has ended, and with what failure.
    #[napi(catch_unwind)]
    pub fn end(&mut self, failure: Option<String>) {
        if let Some(ended) = self.ended.take() {
            // Nobody listens any more to a worker that was stopped.
            let _ = ended.send(failure.map_or(Ok(()), Err));
        }
    }
}
