//! Keeps the runtime's few workers free of tokenizing.
//!
//! The core tokenizes a prompt on the thread that polls its future first,
//! about a millisecond for 4 KiB. A worker that did this for a long prompt
//! would hold up the tokens of every stream meanwhile.

use crate::runtime;
use mullama::MullamaError;
use std::{
    future::Future,
    task::{Context, Poll, Waker},
};

/// Prompts of more bytes than this are submitted from a blocking thread.
const LONG_PROMPT: usize = 8 * 1024;

/// Awaits a call into the core that submits a prompt of that many bytes.
pub(crate) async fn submit<T, F>(prompt_bytes: usize, call: F) -> Result<T, MullamaError>
where
    T: Send + 'static,
    F: Future<Output = Result<T, MullamaError>> + Send + 'static,
{
    if prompt_bytes <= LONG_PROMPT {
        return call.await;
    }
    let mut call = Box::pin(call);
    let first_poll = runtime()?.spawn_blocking(move || {
        // No wake is lost: the call is polled again below.
        let polled = call.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        (call, polled)
    });
    match first_poll.await.map_err(|error| MullamaError::Internal(error.to_string()))? {
        (_, Poll::Ready(result)) => result,
        (call, Poll::Pending) => call.await,
    }
}
