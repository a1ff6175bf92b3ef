//! The native context. The core's calls want it for themselves (`&mut`), so
//! each takes its turn; turns are taken when the call is made, on the thread
//! of the environment, and so come in the order of the calls.

use crate::{
    batch::Batch,
    cancel::Cancel,
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
use tokio::sync::{Mutex, OwnedMutexGuard};

#[napi(js_name = "NativeContext")]
pub struct Context {
    inner: Arc<Mutex<AsyncContext>>,
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
            let context = AsyncContext::with_options(Arc::new((*model).clone()), options).await?;
            Ok(Self { inner: Arc::new(Mutex::new(context)) })
        };
        promise(env, cancel, create)
    }

    /// Starts at once; whatever goes wrong comes out of the first batch.
    #[napi(catch_unwind)]
    pub fn generate_stream<'env>(
        &self,
        tokens: Unknown<'env>,
        options: Object<'env>,
        cancel: &Cancel,
    ) -> Result<Stream> {
        let tokens = Given { name: "tokens", value: tokens }.tokens().map_err(|error| refused(&error))?;
        let config = options::stream_config(&options).map_err(|error| refused(&error))?;
        let turn = self.turn()?;
        let start = async move { turn.finish().await.generate_stream_with(&tokens, config).await };
        Stream::start(cancel.token.clone(), start).map_err(|error| to_js(&error))
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
        self.inner.try_lock().map_or(0, |context| crate::convert::count(context.n_past()))
    }

    #[napi(catch_unwind)]
    pub fn close<'env>(&self, env: &'env Env) -> Result<Object<'env>> {
        let context = self.inner.clone();
        promise(env, None, async move {
            context.lock().await.close().await;
            Ok(())
        })
    }

    fn turn(&self) -> Result<Begun<impl Future<Output = OwnedMutexGuard<AsyncContext>> + Send + use<>>> {
        Begun::new(self.inner.clone().lock_owned()).map_err(|error| to_js(&error))
    }

    fn call<'env, T, F>(
        &self,
        env: &'env Env,
        cancel: Option<&Cancel>,
        work: impl FnOnce(OwnedMutexGuard<AsyncContext>) -> F + Send + 'static,
    ) -> Result<Object<'env>>
    where
        T: ToNapiValue + Send + 'static,
        F: Future<Output = std::result::Result<T, MullamaError>> + Send + 'static,
    {
        let turn = self.turn()?;
        promise(env, cancel, async move { work(turn.finish().await).await })
    }
}
