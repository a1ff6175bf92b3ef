//! The native side of a stream of tokens.
//!
//! JavaScript gets the stream before the core has taken the request, so a task
//! submits it and publishes what became of it; the same task then waits for
//! the cancellation, whoever asks for it. Tokens need no task: they wait in the
//! core until the environment's thread takes all that are ready, and the core
//! wakes it through the mailbox.

use crate::{
    convert::{self, Entry, Timings, Usage},
    environment::Environment,
    error::to_js,
    mailbox::{Key, Mailbox},
};
use futures_util::FutureExt;
use mullama::{FinishReason, MullamaError, MullamaRuntime, TokenStream};
use napi::bindgen_prelude::*;
use napi_derive::napi;
use std::{
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    task::{Context, Poll, Wake, Waker, ready},
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// What the environment's thread and those who tell it share.
pub(crate) struct Source {
    mailbox: Arc<Mailbox>,
    /// The one way to end the request, at any stage: JavaScript's `cancel`,
    /// its signal, the collection of its object and the end of its
    /// environment all cancel this token.
    cancel: CancellationToken,
    /// The core's stream, once there is one.
    stream: OnceLock<TokenStream>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// What became of a request that the core did not take.
    refused: Option<Refusal>,
    /// The promise of the next batch, while JavaScript waits for it.
    reader: Option<Key>,
    /// The last outcome, kept until the task has ended.
    last: Option<std::result::Result<Vec<Entry>, MullamaError>>,
    task: Option<JoinHandle<()>>,
}

#[derive(Clone)]
enum Refusal {
    Failed(MullamaError),
    /// Cancelled before the core took it.
    Cancelled,
}

impl Source {
    /// All tokens that are ready; empty at the end. When there is nothing yet,
    /// the mailbox hears once there is.
    pub(crate) fn poll(self: &Arc<Self>) -> Poll<std::result::Result<Vec<Entry>, MullamaError>> {
        let waker = Waker::from(self.clone());
        let mut context = Context::from_waker(&waker);
        let mut state = self.lock();
        if state.last.is_none() {
            let batch = match (self.stream.get(), state.refused.clone()) {
                (Some(stream), _) => ready!(pin!(stream.next_batch()).poll(&mut context)),
                (None, Some(Refusal::Failed(error))) => Err(error),
                (None, Some(Refusal::Cancelled)) => Ok(Vec::new()),
                // The task tells when it has published something.
                (None, None) => return Poll::Pending,
            };
            let batch = batch.map(convert::entries);
            if batch.as_ref().is_ok_and(|entries| !entries.is_empty()) {
                return Poll::Ready(batch);
            }
            // Nothing follows, and who counts tasks finds this one ended.
            self.cancel.cancel();
            state.last = Some(batch);
        }
        if let Some(task) = &mut state.task {
            // It fails only if it panicked, which leaves nothing to wait for.
            let _ = ready!(task.poll_unpin(&mut context));
            state.task = None;
        }
        Poll::Ready(state.last.take().unwrap_or(Ok(Vec::new())))
    }

    pub(crate) fn set_reader(&self, key: Key) {
        self.lock().reader = Some(key);
    }

    /// The promise that waits for what comes next.
    pub(crate) fn take_reader(&self) -> Option<Key> {
        self.lock().reader.take()
    }

    fn refuse(self: &Arc<Self>, refusal: Refusal) {
        self.lock().refused = Some(refusal);
        self.clone().wake();
    }

    /// Nothing that can panic runs under the lock, so a poisoned one is whole.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for Source {
    fn wake(self: Arc<Self>) {
        let mailbox = self.mailbox.clone();
        mailbox.tell(self);
    }
}

#[napi(js_name = "NativeStream")]
pub struct Stream(Arc<Source>);

impl Stream {
    /// `start` submits the request and gives its stream.
    pub(crate) fn start<F>(env: &Env, cancel: CancellationToken, start: F) -> Result<Self>
    where
        F: Future<Output = std::result::Result<TokenStream, MullamaError>> + Send + 'static,
    {
        let runtime = MullamaRuntime::shared().map_err(|error| to_js(&error))?;
        let mailbox = Environment::of(env)?.mailbox.clone();
        let source = Arc::new(Source { mailbox, cancel, stream: OnceLock::new(), state: Mutex::default() });
        let own = source.clone();
        let task = runtime.spawn(async move {
            match own.cancel.run_until_cancelled(start).await {
                Some(Ok(stream)) => drop(own.stream.set(stream)),
                Some(Err(error)) => return own.refuse(Refusal::Failed(error)),
                None => return own.refuse(Refusal::Cancelled),
            }
            own.clone().wake();
            own.cancel.cancelled().await;
            if let Some(stream) = own.stream.get() {
                stream.cancel();
            }
        });
        source.lock().task = Some(task);
        Ok(Self(source))
    }

    /// The value of `read` for a request that the core has taken.
    fn read<T>(&self, read: impl FnOnce(&TokenStream) -> T) -> Option<T> {
        self.0.stream.get().map(read)
    }
}

#[napi]
impl Stream {
    /// All tokens that are ready, at least one; an empty array is the end.
    /// Where there is none yet, the promise of that.
    #[napi(catch_unwind, ts_return_type = "Array<string | number | Token> | object")]
    pub fn next_batch<'env>(&self, env: &'env Env) -> Result<Either<Vec<Entry>, Object<'env>>> {
        match self.0.poll() {
            Poll::Ready(batch) => batch.map(Either::A).map_err(|error| to_js(&error)),
            Poll::Pending => {
                // News that came meanwhile waits for this thread.
                let (key, promise) = Environment::of(env)?.promise(env)?;
                self.0.set_reader(key);
                Ok(Either::B(promise))
            }
        }
    }

    /// Why the stream ended; `undefined` while it runs or when it failed.
    #[napi(getter, catch_unwind)]
    pub fn finish_reason(&self) -> Option<&'static str> {
        self.finished().map(|reason| reason.name())
    }

    #[napi(getter, catch_unwind)]
    pub fn stop_string(&self) -> Option<String> {
        self.finished().and_then(convert::stop_string)
    }

    #[napi(getter, catch_unwind)]
    pub fn usage(&self) -> Usage {
        self.read(TokenStream::usage).unwrap_or_default().into()
    }

    #[napi(getter, catch_unwind)]
    pub fn timings(&self) -> Timings {
        self.read(TokenStream::timings).unwrap_or_default().into()
    }

    /// The seed; `undefined` until the core has taken the request.
    #[napi(getter, catch_unwind)]
    pub fn seed(&self) -> Option<Either<f64, BigInt>> {
        self.read(|stream| convert::seed(stream.seed()))
    }

    fn finished(&self) -> Option<FinishReason> {
        if let Some(stream) = self.0.stream.get() {
            return stream.finish_reason();
        }
        matches!(self.0.lock().refused, Some(Refusal::Cancelled)).then_some(FinishReason::Cancelled)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.0.cancel.cancel();
    }
}
