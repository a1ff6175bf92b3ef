//! The native model: one method a call of the core's `AsyncModel`, whether it
//! was loaded or leased from a pool.

use crate::{
    cancel::Cancel,
    convert::Answer,
    error::{refused, to_js},
    facts::{Info, Metrics, Placement},
    given::Given,
    lease::Handle,
    options,
    promise::promise,
    stream::Stream,
};
use mullama::{AsyncModel, MullamaError, MullamaRuntime, ProgressCallback};
use napi::{bindgen_prelude::*, threadsafe_function::ThreadsafeFunctionCallMode};
use napi_derive::napi;
use std::{collections::BTreeMap, sync::Arc};

#[napi(js_name = "NativeModel")]
pub struct Model {
    pub(crate) inner: Handle,
}

#[napi]
impl Model {
    /// `progress` gets fractions until the load ends; it must not throw.
    #[napi(catch_unwind)]
    pub fn load<'env>(
        env: &'env Env,
        path: Unknown<'env>,
        options: Object<'env>,
        progress: Option<Function<'env, f64, ()>>,
        cancel: &Cancel,
    ) -> Result<Object<'env>> {
        let path = Given { name: "path", value: path }.text().map_err(|error| refused(&error))?;
        let mut options = options::model_options(&options).map_err(|error| refused(&error))?;
        options.progress = progress.map(reporter).transpose()?;
        let load = async move { AsyncModel::load_with(path, options).await.map(|model| Self { inner: model.into() }) };
        promise(env, Some(cancel), load)
    }

    #[napi(catch_unwind)]
    pub fn generate<'env>(
        &self,
        env: &'env Env,
        prompt: Unknown<'env>,
        options: Object<'env>,
        cancel: Option<&Cancel>,
    ) -> Result<Object<'env>> {
        let prompt = Given { name: "prompt", value: prompt }.text().map_err(|error| refused(&error))?;
        let config = options::stream_config(&options).map_err(|error| refused(&error))?;
        let model = self.inner.hold().map_err(|error| to_js(&error))?;
        promise(env, cancel, async move { model.generate_with(&prompt, config).await.map(|it| it.text) })
    }

    #[napi(catch_unwind)]
    pub fn generate_with<'env>(
        &self,
        env: &'env Env,
        prompt: Unknown<'env>,
        options: Object<'env>,
        cancel: Option<&Cancel>,
    ) -> Result<Object<'env>> {
        let prompt = Given { name: "prompt", value: prompt }.text().map_err(|error| refused(&error))?;
        let config = options::stream_config(&options).map_err(|error| refused(&error))?;
        let model = self.inner.hold().map_err(|error| to_js(&error))?;
        promise(env, cancel, async move { model.generate_with(&prompt, config).await.map(Answer::from) })
    }

    /// Starts at once; whatever goes wrong comes out of the first batch.
    #[napi(catch_unwind)]
    pub fn generate_stream<'env>(
        &self,
        env: &'env Env,
        prompt: Unknown<'env>,
        options: Object<'env>,
        cancel: &Cancel,
    ) -> Result<Stream> {
        let prompt = Given { name: "prompt", value: prompt }.text().map_err(|error| refused(&error))?;
        let config = options::stream_config(&options).map_err(|error| refused(&error))?;
        let model = self.inner.hold().map_err(|error| to_js(&error))?;
        let start = async move { model.generate_stream(&prompt, config).await };
        Stream::start(env, cancel.token.clone(), start)
    }

    #[napi(catch_unwind)]
    pub fn tokenize<'env>(
        &self,
        env: &'env Env,
        text: Unknown<'env>,
        add_bos: Unknown<'env>,
        parse_special: Unknown<'env>,
    ) -> Result<Object<'env>> {
        let text = Given { name: "text", value: text }.text().map_err(|error| refused(&error))?;
        let add_bos = Given { name: "addBos", value: add_bos }.boolean().map_err(|error| refused(&error))?;
        let parse_special =
            Given { name: "parseSpecial", value: parse_special }.boolean().map_err(|error| refused(&error))?;
        let model = self.inner.hold().map_err(|error| to_js(&error))?;
        promise(env, None, blocking(move || model.tokenize(&text, add_bos, parse_special)))
    }

    #[napi(catch_unwind)]
    pub fn detokenize<'env>(&self, env: &'env Env, tokens: Unknown<'env>) -> Result<Object<'env>> {
        let tokens = Given { name: "tokens", value: tokens }.tokens().map_err(|error| refused(&error))?;
        let model = self.inner.hold().map_err(|error| to_js(&error))?;
        promise(env, None, blocking(move || model.detokenize(&tokens)))
    }

    #[napi(catch_unwind)]
    pub fn info(&self) -> Info {
        self.inner.model_info().into()
    }

    #[napi(catch_unwind)]
    pub fn metadata(&self) -> BTreeMap<String, String> {
        self.inner.metadata().clone()
    }

    #[napi(catch_unwind)]
    pub fn is_ready(&self) -> bool {
        self.inner.is_ready()
    }

    #[napi(catch_unwind)]
    pub fn metrics(&self) -> Metrics {
        self.inner.metrics().into()
    }

    #[napi(catch_unwind)]
    pub fn placement(&self) -> Vec<Placement> {
        self.inner.placement().into_iter().map(Placement::from).collect()
    }

    /// Gives the lease back, if there is one and it was not yet.
    #[napi(catch_unwind)]
    pub fn release(&self) {
        self.inner.release();
    }

    #[napi(catch_unwind)]
    pub fn close<'env>(&self, env: &'env Env) -> Result<Object<'env>> {
        let model = (*self.inner).clone();
        promise(env, None, async move {
            model.close().await;
            Ok(())
        })
    }
}

/// Hands fractions to `progress` on its own thread. Weak: it does not keep
/// the process alive, the load's promise does.
pub(crate) fn reporter(progress: Function<'_, f64, ()>) -> Result<ProgressCallback> {
    let progress = progress.build_threadsafe_function::<f64>().weak::<true>().build()?;
    Ok(Arc::new(move |fraction| {
        progress.call(f64::from(fraction), ThreadsafeFunctionCallMode::NonBlocking);
        true
    }))
}

/// Runs `work` on a thread that may take its time.
async fn blocking<T, F>(work: F) -> std::result::Result<T, MullamaError>
where
    T: Send + 'static,
    F: FnOnce() -> std::result::Result<T, MullamaError> + Send + 'static,
{
    let outcome = MullamaRuntime::shared()?.spawn_blocking(work).await;
    outcome.unwrap_or_else(|error| Err(MullamaError::Internal(error.to_string())))
}

/// Closes every model of the process, within about 2 s. For the exit of the
/// main thread, where Node runs no other hook.
#[napi(catch_unwind)]
pub fn close_all() {
    mullama::close_all();
}
