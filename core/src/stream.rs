//! [`TokenStream`]: the tokens of one generation as they are made.

use crate::{
    FinishReason, MullamaError, Timings, TokenData, Usage,
    engine::{Batch, KeepAlive, Reader},
    scope::Scope,
};
use futures_core::Stream;
use std::{
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll},
};

/// A stream of [`TokenData`], one item a token. An error is the last item.
///
/// Dropping it stops the native work within one step. A reader that falls
/// `buffer_size` tokens behind pauses its own sequence and no other.
///
/// A stream that was started in a task of a `MullamaRuntime` ends, with the
/// reason `Cancelled`, when that runtime is shut down.
pub struct TokenStream {
    reader: Reader,
    /// Ends the generation with the runtime whose task started it.
    _scope: Scope,
    /// Keeps the thread that serves the stream while it is used.
    _keep: KeepAlive,
}

impl TokenStream {
    pub(crate) fn new(reader: Reader, keep: KeepAlive) -> Self {
        Self { _scope: Scope::of(&reader), reader, _keep: keep }
    }

    /// Waits for at least one token and gives all that are ready; an empty
    /// vector is the end. Dropping the future loses no token. One task at a
    /// time may wait; of several only the last would be woken.
    ///
    /// # Errors
    /// What ended the generation, after the tokens before it: `Timeout` (with
    /// the text so far), `Generation`, `Closed`.
    pub async fn next_batch(&self) -> Result<Vec<TokenData>, MullamaError> {
        match poll_fn(|context| self.reader.poll_batch(context)).await {
            Batch::Tokens(tokens) => Ok(tokens),
            Batch::Failed(error) => Err(error),
            Batch::Done => Ok(Vec::new()),
        }
    }

    /// Stops the native work. The stream ends after the tokens that are ready,
    /// without an error.
    pub fn cancel(&self) {
        self.reader.cancel();
    }

    /// Token counts so far.
    #[must_use]
    pub fn usage(&self) -> Usage {
        self.reader.usage()
    }

    /// Times so far.
    #[must_use]
    pub fn timings(&self) -> Timings {
        self.reader.timings()
    }

    /// The seed of this generation.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.reader.seed()
    }

    /// Why the generation ended; `None` while it runs and after an error.
    #[must_use]
    pub fn finish_reason(&self) -> Option<FinishReason> {
        self.reader.finish_reason()
    }
}

impl Stream for TokenStream {
    type Item = Result<TokenData, MullamaError>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.reader.poll_token(context)
    }
}

impl std::fmt::Debug for TokenStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenStream").field("usage", &self.usage()).finish_non_exhaustive()
    }
}
