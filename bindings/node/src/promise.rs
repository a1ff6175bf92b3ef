//! Promises that a task of the shared runtime settles.
//!
//! napi's own futures run on a runtime of napi's, unless an add-on registers
//! one through an `unsafe` trait. A deferred settled by our own task needs
//! neither: one runtime, no `unsafe`, and it survives environments that end.

use crate::{cancel::Cancel, environment, error::to_js};
use futures_util::FutureExt;
use mullama::{MullamaError, MullamaRuntime};
use napi::bindgen_prelude::*;
use std::{any::Any, panic::AssertUnwindSafe};

/// Makes the JavaScript value, on the environment's thread.
type Resolver<T> = Box<dyn FnOnce(Env) -> Result<T> + Send>;

/// Runs `work` on the shared runtime; its result settles the promise returned.
///
/// `cancel`, or the end of the environment, drops `work`, which stops its
/// native side; the promise then rejects with `cancelled`. A panic rejects
/// with `internal`. Every task settles its promise: one that did not would
/// keep the process alive for ever.
pub(crate) fn promise<'env, T, F>(env: &'env Env, cancel: Option<&Cancel>, work: F) -> Result<Object<'env>>
where
    T: ToNapiValue + Send + 'static,
    F: Future<Output = std::result::Result<T, MullamaError>> + Send + 'static,
{
    let runtime = MullamaRuntime::shared().map_err(|error| to_js(&error))?;
    let token = match cancel {
        Some(cancel) => cancel.token.clone(),
        None => environment::ending(env)?,
    };
    let (deferred, promise) = env.create_deferred::<T, Resolver<T>>()?;
    runtime.spawn(async move {
        let work = AssertUnwindSafe(token.run_until_cancelled_owned(work));
        let outcome = match work.catch_unwind().await {
            Ok(Some(outcome)) => outcome,
            Ok(None) => Err(MullamaError::Cancelled),
            Err(panic) => Err(MullamaError::Internal(describe(&*panic))),
        };
        match outcome {
            Ok(value) => deferred.resolve(Box::new(move |_| Ok(value))),
            Err(error) => deferred.reject(to_js(&error)),
        }
    });
    Ok(promise)
}

fn describe(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    format!("panic: {}", text.unwrap_or_else(|| "no message".to_owned()))
}
