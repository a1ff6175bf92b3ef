//! The native pool. A lease is a native model that can be released.

use crate::{
    cancel::Cancel,
    error::{refused, to_js},
    facts::PoolFigures,
    given::Given,
    model::{Model, reporter},
    options,
    promise::{now_or_wait, promise},
};
use mullama::ModelPool;
use napi::bindgen_prelude::*;
use napi_derive::napi;

#[napi(js_name = "NativePool")]
pub struct Pool {
    inner: ModelPool,
}

#[napi]
impl Pool {
    /// `progress` gets fractions until the load ends; it must not throw.
    #[napi(catch_unwind)]
    pub fn create<'env>(
        env: &'env Env,
        path: Unknown<'env>,
        options: Object<'env>,
        size: Unknown<'env>,
        progress: Option<Function<'env, f64, ()>>,
        cancel: &Cancel,
    ) -> Result<Object<'env>> {
        let path = Given { name: "modelPath", value: path }.text().map_err(|error| refused(&error))?;
        let size = Given { name: "size", value: size }.integer().map_err(|error| refused(&error))?;
        let mut options = options::model_options(&options).map_err(|error| refused(&error))?;
        options.progress = progress.map(reporter).transpose()?;
        let create = async move { ModelPool::with_options(path, options, size).await.map(|inner| Self { inner }) };
        promise(env, Some(cancel), create)
    }

    /// A lease, or the promise of one. The wait begins before this returns, so
    /// calls are served in their order.
    #[napi(catch_unwind)]
    pub fn acquire<'env>(
        &self,
        env: &'env Env,
        options: Object<'env>,
        cancel: Option<&Cancel>,
    ) -> Result<Either<Model, Object<'env>>> {
        let options = options::acquire_options(&options).map_err(|error| refused(&error))?;
        let pool = self.inner.clone();
        let acquire = async move {
            let lease = match options.limit {
                Some(limit) => pool.acquire_timeout(limit).await?,
                None => pool.acquire().await?,
            };
            Ok(Model { inner: lease.into() })
        };
        now_or_wait(env, cancel, acquire)
    }

    #[napi(catch_unwind)]
    pub fn try_acquire(&self) -> Result<Option<Model>> {
        let lease = self.inner.try_acquire().map_err(|error| to_js(&error))?;
        Ok(lease.map(|lease| Model { inner: lease.into() }))
    }

    #[napi(catch_unwind)]
    pub fn stats(&self) -> PoolFigures {
        self.inner.stats().into()
    }

    #[napi(catch_unwind)]
    pub fn resize<'env>(&self, env: &'env Env, size: Unknown<'env>) -> Result<Object<'env>> {
        let size = Given { name: "size", value: size }.integer().map_err(|error| refused(&error))?;
        let pool = self.inner.clone();
        promise(env, None, async move { pool.resize(size).await })
    }

    #[napi(catch_unwind)]
    pub fn close<'env>(&self, env: &'env Env) -> Result<Object<'env>> {
        let pool = self.inner.clone();
        promise(env, None, async move {
            pool.close().await;
            Ok(())
        })
    }
}
