//! The native context. Each call has a handle of its own on it, and takes its
//! place among the calls on the thread that makes it, so the core serves them
//! in their order.

use crate::{
    batch::Batch,
    cancel::Cancel,
    convert::count,
    error::{refused, to_js},
    given::Given,
    model::Model,
    options,
    promise::{Begun, promise},
    stream::Stream,
};
use mullama::{AsyncContext, MullamaError};
use napi::bindgen_prelude::*;
use napi_derive::napi;
use std::sync::Arc;

#[napi(js_name = "NativeContext")]
pub struct Context {
    inner: AsyncContext,
}

#[napi]
impl Context {
    #[napi(catch_unwind)]
    pub fn create<'env>(
        env: &'env Env,
        model: &Model,
        options: Object<'env>,
        cancel: Option<&Cancel>,
    ) -> Result<Object<'env>> {
        let options = options::context_options(&options).map_err(|error| refused(&error))?;
        let model = model.inner.hold().map_err(|error| to_js(&error))?;
        let create = async move {
            let inner = AsyncContext::with_options(Arc::new((*model).clone()), options).await?;
            Ok(Self { inner })
        };
        promise(env, cancel, create)
    }

    /// Starts at once; whatever goes wrong comes out of the first batch.
    #[napi(catch_unwind)]
    pub fn generate_stream<'env>(
        &self,
        env: &'env Env,
        tokens: Unknown<'env>,
        options: Object<'env>,
        cancel: &Cancel,
    ) -> Result<Stream> {
        let tokens = Given { name: "tokens", value: tokens }.tokens().map_err(|error| refused(&error))?;
        let config = options::stream_config(&options).map_err(|error| refused(&error))?;
        let mut context = self.inner.share();
        let start = async move { context.generate_stream_with(&tokens, config).await };
        let start = Begun::new(start).map_err(|error| to_js(&error))?;
        Stream::start(env, cancel.token.clone(), start.finish())
    }

    #[napi(catch_unwind)]
    pub fn process_batch<'env>(
        &self,
        env: &'env Env,
        batches: Vec<ClassInstance<'env, Batch>>,
        options: Object<'env>,
        cancel: Option<&Cancel>,
    ) -> Result<Object<'env>> {
        options::no_options(&options).map_err(|error| refused(&error))?;
        let batches = batches.iter().map(|batch| batch.inner.clone()).collect();
        self.call(env, cancel, move |mut context| async move { context.process_batch(batches).await })
    }

    #[napi(catch_unwind)]
    pub fn save_state<'env>(
        &self,
        env: &'env Env,
        path: Unknown<'env>,
        options: Object<'env>,
        cancel: Option<&Cancel>,
    ) -> Result<Object<'env>> {
        options::no_options(&options).map_err(|error| refused(&error))?;
        let path = Given { name: "path", value: path }.text().map_err(|error| refused(&error))?;
        self.call(env, cancel, move |context| async move { context.save_state(path).await })
    }

    #[napi(catch_unwind)]
    pub fn load_state<'env>(
        &self,
        env: &'env Env,
        path: Unknown<'env>,
        options: Object<'env>,
        cancel: Option<&Cancel>,
    ) -> Result<Object<'env>> {
        options::no_options(&options).map_err(|error| refused(&error))?;
        let path = Given { name: "path", value: path }.text().map_err(|error| refused(&error))?;
        self.call(env, cancel, move |mut context| async move { context.load_state(path).await })
    }

    #[napi(catch_unwind)]
    pub fn clear<'env>(&self, env: &'env Env, options: Object<'env>, cancel: Option<&Cancel>) -> Result<Object<'env>> {
        options::no_options(&options).map_err(|error| refused(&error))?;
        self.call(env, cancel, move |mut context| async move { context.clear().await })
    }

    #[napi(catch_unwind)]
    pub fn truncate<'env>(
        &self,
        env: &'env Env,
        n: Unknown<'env>,
        options: Object<'env>,
        cancel: Option<&Cancel>,
    ) -> Result<Object<'env>> {
        options::no_options(&options).map_err(|error| refused(&error))?;
        let n = Given { name: "n", value: n }.integer().map_err(|error| refused(&error))?;
        self.call(env, cancel, move |mut context| async move { context.truncate(n).await })
    }

    #[napi(catch_unwind)]
    pub fn n_past(&self) -> u32 {
        count(self.inner.n_past())
    }

    #[napi(catch_unwind)]
    pub fn close<'env>(&self, env: &'env Env) -> Result<Object<'env>> {
        let context = self.inner.share();
        promise(env, None, async move {
            context.close().await;
            Ok(())
        })
    }

    fn call<'env, T, F>(
        &self,
        env: &'env Env,
        cancel: Option<&Cancel>,
        work: impl FnOnce(AsyncContext) -> F,
    ) -> Result<Object<'env>>
    where
        T: ToNapiValue + Send + 'static,
        F: Future<Output = std::result::Result<T, MullamaError>> + Send + 'static,
    {
        let begun = Begun::new(work(self.inner.share())).map_err(|error| to_js(&error))?;
        promise(env, cancel, begun.finish())
    }
}
