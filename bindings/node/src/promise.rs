//! Promises that a task of the shared runtime settles.
//!
//! napi's own futures run on a runtime of napi's, unless an add-on registers
//! one through an `unsafe` trait, and each promise of theirs wakes the event
//! loop by itself. Our own tasks post their outcomes to the environment's
//! mailbox: one runtime, no `unsafe`, one wake for all that is ready, and it
//! survives environments that end.

use crate::{
    cancel::Cancel,
    environment::{self, Environment},
    error::to_js,
    mailbox::{Key, Mailbox, Value},
};
use futures_util::FutureExt;
use mullama::{MullamaError, MullamaRuntime};
use napi::bindgen_prelude::*;
use std::{
    any::Any,
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};
use tokio_util::sync::CancellationToken;

/// Runs `work` on the shared runtime; its result settles the promise returned.
///
/// `cancel`, or the end of the environment, drops `work`, which stops its
/// native side; the promise then rejects with `cancelled`. A panic rejects
/// with `internal`. Every promise is settled: one that was not would keep the
/// process alive for ever.
pub(crate) fn promise<'env, T, F>(env: &'env Env, cancel: Option<&Cancel>, work: F) -> Result<Object<'env>>
where
    T: ToNapiValue + Send + 'static,
    F: Future<Output = std::result::Result<T, MullamaError>> + Send + 'static,
{
    let runtime = shared()?;
    let work = runtime.counted(outcome(token(env, cancel)?, work));
    let (settle, promise) = Settle::new(env)?;
    // Not `runtime.spawn`: the work counts as ended when the promise is settled.
    runtime.tokio().spawn(async move { settle.with(work.await.unwrap_or(Err(MullamaError::Cancelled))) });
    Ok(promise)
}

/// As [`promise`], for work that only waits for other work or looks on: who
/// counts the runtime's tasks does not want to find it among them.
pub(crate) fn wait<'env, T, F>(env: &'env Env, cancel: Option<&Cancel>, work: F) -> Result<Object<'env>>
where
    T: ToNapiValue + Send + 'static,
    F: Future<Output = std::result::Result<T, MullamaError>> + Send + 'static,
{
    let runtime = shared()?;
    let work = outcome(token(env, cancel)?, work);
    let (settle, promise) = Settle::new(env)?;
    runtime.tokio().spawn(async move { settle.with(work.await) });
    Ok(promise)
}

fn shared() -> Result<&'static MullamaRuntime> {
    MullamaRuntime::shared().map(|runtime| &**runtime).map_err(|error| to_js(&error))
}

fn token(env: &Env, cancel: Option<&Cancel>) -> Result<CancellationToken> {
    cancel.map_or_else(|| environment::ending(env), |cancel| Ok(cancel.token.clone()))
}

async fn outcome<T, F>(token: CancellationToken, work: F) -> std::result::Result<T, MullamaError>
where
    F: Future<Output = std::result::Result<T, MullamaError>>,
{
    let work = AssertUnwindSafe(token.run_until_cancelled_owned(work));
    match work.catch_unwind().await {
        Ok(Some(outcome)) => outcome,
        Ok(None) => Err(MullamaError::Cancelled),
        Err(panic) => Err(MullamaError::Internal(describe(&*panic))),
    }
}

/// What settles a promise.
struct Settle {
    mailbox: Arc<Mailbox>,
    key: Key,
}

impl Settle {
    fn new(env: &Env) -> Result<(Self, Object<'_>)> {
        let environment = Environment::of(env)?;
        let (key, promise) = environment.promise(env)?;
        Ok((Self { mailbox: environment.mailbox.clone(), key }, promise))
    }

    fn with<T>(self, outcome: std::result::Result<T, MullamaError>)
    where
        T: ToNapiValue + Send + 'static,
    {
        let value = outcome.map(|value| -> Value { Box::new(move |env| value.into_unknown(env)) });
        self.mailbox.settle(self.key, value);
    }
}

/// As [`wait`], except that `work` begins now, on the caller's thread: it takes
/// its place in a queue in the order of the calls, and gives its result at once
/// if there is nothing to wait for.
///
/// Only for work whose first step is short.
pub(crate) fn now_or_wait<'env, T, F>(
    env: &'env Env,
    cancel: Option<&Cancel>,
    work: F,
) -> Result<Either<T, Object<'env>>>
where
    T: ToNapiValue + TypeName + Send + 'static,
    F: Future<Output = std::result::Result<T, MullamaError>> + Send + 'static,
{
    match Begun::new(work).map_err(|error| to_js(&error))? {
        Begun::Done(outcome) => outcome.map(Either::A).map_err(|error| to_js(&error)),
        Begun::Waiting(work) => wait(env, cancel, work).map(Either::B),
    }
}

/// A future that was polled once where it was made.
pub(crate) enum Begun<F: Future> {
    Done(F::Output),
    Waiting(Pin<Box<F>>),
}

impl<F: Future> Begun<F> {
    pub(crate) fn new(future: F) -> std::result::Result<Self, MullamaError> {
        // The future may want the runtime's clock.
        let _entered = MullamaRuntime::shared()?.tokio().enter();
        let mut future = Box::pin(future);
        // Nobody is woken: whoever takes the future on polls it first.
        let mut context = Context::from_waker(Waker::noop());
        Ok(match future.as_mut().poll(&mut context) {
            Poll::Ready(output) => Self::Done(output),
            Poll::Pending => Self::Waiting(future),
        })
    }

    /// Polled on by whoever awaits this.
    pub(crate) async fn finish(self) -> F::Output {
        match self {
            Self::Done(output) => output,
            Self::Waiting(future) => future.await,
        }
    }
}

fn describe(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    format!("panic: {}", text.unwrap_or_else(|| "no message".to_owned()))
}
