//! [`AsyncContext`]: private, lasting memory over a model's weights, for async
//! code on any executor. Its futures wait for the context's own thread and
//! never block.

use crate::{
    AsyncModel, Batch, ContextOptions, MullamaError, StreamConfig, TokenId, TokenStream,
    engine::{Opening, Session},
};
use std::{path::Path, sync::Arc};

/// Private memory over a model's weights that lasts between calls, for async
/// code.
///
/// It has a thread and a KV cache of its own, so it neither waits for the
/// requests of the model nor shares their steps. It keeps the weights alive;
/// closing the model closes it. Calls are done in the order in which they were
/// made; the tokens of a stream that is still open when the next call comes
/// are generated to their end first.
///
/// Sequence 0 is the one that generates. Its history holds all tokens that it
/// was given and that it has generated. Dropping any future or stream of a
/// context stops the native work within one step; what the history holds by
/// then stays.
///
/// ```no_run
/// # async fn example() -> Result<(), mullama::MullamaError> {
/// use mullama::{AsyncContext, AsyncModel};
/// use std::sync::Arc;
///
/// let model = Arc::new(AsyncModel::load("model.gguf").await?);
/// let mut context = AsyncContext::new(model.clone()).await?;
/// let tokens = model.tokenize_async("Once upon a time", true).await?;
/// let stream = context.generate_stream(&tokens).await?;
/// loop {
///     let tokens = stream.next_batch().await?;
///     if tokens.is_empty() {
///         break;
///     }
///     tokens.iter().for_each(|token| print!("{}", token.text));
/// }
/// context.save_state("story.state").await?;
/// # Ok(())
/// # }
/// ```
pub struct AsyncContext {
    session: Arc<Session>,
}

impl AsyncContext {
    /// Makes a context over a model with the default options. Dropping the
    /// future frees what was made.
    ///
    /// ```no_run
    /// # async fn example(model: std::sync::Arc<mullama::AsyncModel>) -> Result<(), mullama::MullamaError> {
    /// let context = mullama::AsyncContext::new(model).await?;
    /// assert_eq!(context.n_past(), 0);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`AsyncContext::with_options`].
    pub async fn new(model: Arc<AsyncModel>) -> Result<Self, MullamaError> {
        Self::with_options(model, ContextOptions::default()).await
    }

    /// Makes a context over a model. Dropping the future frees what was made.
    ///
    /// ```no_run
    /// # async fn example(model: std::sync::Arc<mullama::AsyncModel>) -> Result<(), mullama::MullamaError> {
    /// use mullama::{AsyncContext, ContextOptions};
    /// let options = ContextOptions { context_size: Some(512), ..Default::default() };
    /// let context = AsyncContext::with_options(model, options).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// `InvalidInput` (an option), `Context`, `OutOfMemory`, `Closed`, `Io` (no
    /// thread), `Unsupported` (forked child).
    pub async fn with_options(model: Arc<AsyncModel>, options: ContextOptions) -> Result<Self, MullamaError> {
        let session = Opening::start(model.engine()?, &options)?.wait().await?;
        Ok(Self { session: Arc::new(session) })
    }

    /// Appends tokens to sequence 0 and generates, with the default
    /// [`StreamConfig`].
    ///
    /// ```no_run
    /// # async fn example(context: &mut mullama::AsyncContext) -> Result<(), mullama::MullamaError> {
    /// let stream = context.generate_stream(&[1, 2, 3]).await?;
    /// let first = stream.next_batch().await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`AsyncContext::generate_stream_with`].
    pub async fn generate_stream(&mut self, tokens: &[TokenId]) -> Result<TokenStream, MullamaError> {
        self.generate_stream_with(tokens, StreamConfig::new()).await
    }

    /// Appends tokens to sequence 0 and generates. No tokens go on where the
    /// last generation stopped; with the same seed, as if it had not stopped.
    /// Penalties look at the whole history.
    ///
    /// The future is ready when all calls before it are done; dropped before
    /// that, it appends nothing. Dropping the stream stops the native work; what
    /// was generated until then stays in the history. A reader that falls
    /// `buffer_size` tokens behind pauses the generation, unless another call
    /// waits for it.
    ///
    /// ```no_run
    /// # async fn example(context: &mut mullama::AsyncContext) -> Result<(), mullama::MullamaError> {
    /// use mullama::StreamConfig;
    /// let config = StreamConfig::new().temperature(0.7).seed(Some(1));
    /// let stream = context.generate_stream_with(&[1, 2, 3], config).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// `InvalidInput` (an option, a token, no tokens for an empty context) and
    /// `PromptTooLong`, which append nothing; `Closed`, `Unsupported` (forked
    /// child). Later errors come as the stream's last item: `Timeout` (with the
    /// text so far), `Generation`, `OutOfMemory`, `Closed`.
    pub async fn generate_stream_with(
        &mut self,
        tokens: &[TokenId],
        config: StreamConfig,
    ) -> Result<TokenStream, MullamaError> {
        let reader = self.session.generate(tokens, config)?.await?;
        Ok(TokenStream::new(reader, self.session.keep_alive()))
    }

    /// Evaluates the batches in their order, rows in theirs, and gives for each
    /// batch the greedy token after every row that asked for logits. The rows
    /// become part of the histories of their sequences.
    ///
    /// All batches are checked before anything is evaluated. A row comes right
    /// after what its sequences hold by then; sequences that share a row must
    /// hold the same tokens before it. Dropping the future stops the native
    /// work; rows that are not evaluated by then stay in the histories and are
    /// evaluated by the next call.
    ///
    /// ```no_run
    /// # async fn example(context: &mut mullama::AsyncContext) -> Result<(), mullama::MullamaError> {
    /// let mut batch = mullama::Batch::new();
    /// batch.add_sequence(0, &[1, 5, 6]);
    /// batch.add_sequence(1, &[1, 7]);
    /// let greedy = context.process_batch(vec![batch]).await?;
    /// assert_eq!(greedy[0].len(), 2);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// `InvalidInput` (`token`, `position`, `seq_ids`), `PromptTooLong`,
    /// `Unsupported` (a shared row on a model with recurrent state, a forked
    /// child), `Generation`, `OutOfMemory`, `Closed`. After each of them the
    /// histories are as before.
    pub async fn process_batch(&mut self, batches: Vec<Batch>) -> Result<Vec<Vec<TokenId>>, MullamaError> {
        self.session.process(batches)?.await
    }

    /// Writes histories and memory to a file, from which a context of another
    /// process goes on where this one is. The file takes its name when it is
    /// whole; dropping the future before that leaves nothing behind.
    ///
    /// ```no_run
    /// # async fn example(context: &mut mullama::AsyncContext) -> Result<(), mullama::MullamaError> {
    /// context.save_state("story.state").await?;
    /// context.load_state("story.state").await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// `Io`, `OutOfMemory`, `Closed`, `Unsupported` (forked child). The path
    /// is as before then.
    pub async fn save_state(&self, path: impl AsRef<Path>) -> Result<(), MullamaError> {
        self.session.save(path.as_ref())?.await
    }

    /// Replaces histories and memory by those of a file that
    /// [`AsyncContext::save_state`] wrote for the same model. Load only files
    /// from somebody you would load a model from. Dropping the future leaves
    /// the context as it was, or as the file says.
    ///
    /// # Errors
    /// `State` for a file that is cut, altered, of another model, of a newer
    /// version, or that does not fit this context; `Io`, `OutOfMemory`,
    /// `Closed`, `Unsupported` (forked child). The context is as before then.
    pub async fn load_state(&mut self, path: impl AsRef<Path>) -> Result<(), MullamaError> {
        self.session.load(path.as_ref())?.await
    }

    /// Forgets all tokens of all sequences. A future that is dropped before its
    /// turn does nothing.
    ///
    /// # Errors
    /// `Closed`, `Unsupported` (forked child).
    pub async fn clear(&mut self) -> Result<(), MullamaError> {
        self.session.clear()?.await
    }

    /// Keeps only the first `n` tokens of sequence 0. Models whose memory can't
    /// drop a part (recurrent, at times sliding-window) compute these again in
    /// the next call. A future that is dropped before its turn does nothing.
    ///
    /// # Errors
    /// `InvalidInput` when there are fewer, `Closed`, `Unsupported` (forked
    /// child).
    pub async fn truncate(&mut self, n: usize) -> Result<(), MullamaError> {
        self.session.truncate(n)?.await
    }

    /// Another handle on the same context, for languages that have no `&mut`.
    /// A call takes its place in the order when its future is polled first.
    #[doc(hidden)]
    #[must_use]
    pub fn share(&self) -> Self {
        Self { session: self.session.clone() }
    }

    /// How many tokens sequence 0 holds. Grows while a stream generates.
    #[must_use]
    pub fn n_past(&self) -> usize {
        self.session.n_past()
    }

    /// Frees the context: calls and streams under way end as `Closed`. Waits
    /// until that is done; may be called again. The context ends also when the
    /// future is dropped. Dropping the context and its streams does the same
    /// without waiting.
    pub async fn close(&self) {
        self.session.close().await;
    }
}

impl std::fmt::Debug for AsyncContext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AsyncContext").field("n_past", &self.n_past()).finish_non_exhaustive()
    }
}
