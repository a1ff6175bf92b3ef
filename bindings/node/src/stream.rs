//! The native side of a stream of tokens.
//!
//! JavaScript gets the stream before the core has taken the request, so a task
//! submits it and publishes what became of it; the same task then waits for
//! the cancellation, whoever asks for it. Tokens are handed over in batches:
//! all that are ready, in one promise.

use crate::{
    convert::{self, Timings, Token, Usage},
    promise::wait,
};
use futures_util::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use mullama::{FinishReason, MullamaError, MullamaRuntime, TokenStream};
use napi::bindgen_prelude::*;
use napi_derive::napi;
use std::sync::Arc;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// What became of the request.
#[derive(Clone)]
enum State {
    Starting,
    Running(Arc<TokenStream>),
    Failed(MullamaError),
    /// Cancelled before the core took it.
    Cancelled,
}

#[napi(js_name = "NativeStream")]
pub struct Stream {
    state: watch::Receiver<State>,
    /// Ready when the task has ended.
    ended: Shared<BoxFuture<'static, ()>>,
    /// The one way to end the request, at any stage: JavaScript's `cancel`,
    /// its signal, the collection of this object and the end of its
    /// environment all cancel this token.
    cancel: CancellationToken,
}

impl Stream {
    /// `start` submits the request and gives its stream.
    pub(crate) fn start<F>(cancel: CancellationToken, start: F) -> std::result::Result<Self, MullamaError>
    where
        F: Future<Output = std::result::Result<TokenStream, MullamaError>> + Send + 'static,
    {
        let (publish, state) = watch::channel(State::Starting);
        let token = cancel.clone();
        let task = MullamaRuntime::shared()?.spawn(async move {
            let stream = match token.run_until_cancelled(start).await {
                Some(Ok(stream)) => Arc::new(stream),
                Some(Err(error)) => return drop(publish.send(State::Failed(error))),
                None => return drop(publish.send(State::Cancelled)),
            };
            // Without a receiver JavaScript has let go of the stream, and the
            // token is cancelled.
            let _ = publish.send(State::Running(stream.clone()));
            token.cancelled().await;
            stream.cancel();
        });
        let ended = async { drop(task.await) }.boxed().shared();
        Ok(Self { state, ended, cancel })
    }

    /// The value of `read` for a request that the core has taken.
    fn read<T>(&self, read: impl FnOnce(&TokenStream) -> T) -> Option<T> {
        match &*self.state.borrow() {
            State::Running(stream) => Some(read(stream)),
            _ => None,
        }
    }
}

#[napi]
impl Stream {
    /// All tokens that are ready, at least one; an empty array is the end.
    #[napi(catch_unwind)]
    pub fn next_batch<'env>(&self, env: &'env Env) -> Result<Object<'env>> {
        let (mut state, ended, cancel) = (self.state.clone(), self.ended.clone(), self.cancel.clone());
        wait(env, None, async move {
            let started = state.wait_for(|state| !matches!(state, State::Starting)).await;
            let started = started.map(|state| state.clone());
            let batch = match started {
                Ok(State::Running(stream)) => stream.next_batch().await,
                Ok(State::Failed(error)) => Err(error),
                Ok(State::Cancelled) => Ok(Vec::new()),
                Ok(State::Starting) | Err(_) => Err(MullamaError::Internal("the stream did not start".to_owned())),
            };
            if batch.as_ref().map_or(true, Vec::is_empty) {
                // Nothing follows, and who counts tasks finds this one ended.
                cancel.cancel();
                ended.await;
            }
            Ok(batch?.into_iter().map(Token::from).collect::<Vec<_>>())
        })
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
        match &*self.state.borrow() {
            State::Running(stream) => stream.finish_reason(),
            State::Cancelled => Some(FinishReason::Cancelled),
            State::Starting | State::Failed(_) => None,
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}
