//! The shared runtime, as JavaScript sees it.

use crate::{
    error::{refused, to_js},
    facts::RuntimeFigures,
    options,
    promise::now_or_wait,
};
use mullama::MullamaRuntime;
use napi::bindgen_prelude::*;
use napi_derive::napi;
use std::sync::Arc;

#[napi(js_name = "NativeRuntime")]
pub struct Runtime {
    inner: Arc<MullamaRuntime>,
}

#[napi]
impl Runtime {
    /// Starts the runtime, if nothing did before.
    #[napi(constructor, catch_unwind)]
    pub fn new() -> Result<Self> {
        let inner = MullamaRuntime::shared().map_err(|error| to_js(&error))?.clone();
        Ok(Self { inner })
    }

    /// Read on this thread where that is possible: a task of its own would
    /// count itself.
    #[napi(catch_unwind)]
    pub fn metrics<'env>(&self, env: &'env Env) -> Result<Either<RuntimeFigures, Object<'env>>> {
        let runtime = self.inner.clone();
        now_or_wait(env, None, async move { Ok(RuntimeFigures::from(runtime.metrics().await)) })
    }

    #[napi(catch_unwind)]
    pub fn metrics_text<'env>(&self, env: &'env Env) -> Result<Either<String, Object<'env>>> {
        let runtime = self.inner.clone();
        now_or_wait(env, None, async move { Ok(runtime.metrics_text().await) })
    }

    #[napi(catch_unwind)]
    pub fn is_running(&self) -> bool {
        self.inner.is_running()
    }
}

/// Sets how the shared runtime will be made; only before anything started it.
#[napi(catch_unwind)]
pub fn configure_runtime(options: Object<'_>) -> Result<()> {
    let builder = options::runtime_builder(&options).map_err(|error| refused(&error))?;
    MullamaRuntime::configure_shared(builder).map_err(|error| to_js(&error))
}
