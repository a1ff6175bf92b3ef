//! [`Context`]: private, lasting memory over a model's weights, for
//! synchronous code; and [`ContextOptions`], which the async twin shares.

use crate::{
    Batch, KvType, Model, ModelOptions, MullamaError, StreamConfig, TokenId, TokenIter,
    config::{MAX_CONTEXT_SIZE, MAX_SEQUENCES, MIN_CONTEXT_SIZE, in_range},
    engine::{Opening, Session},
};
use std::{path::Path, sync::Arc};

/// How a context is made. `None` takes what the model was loaded with.
///
/// ```
/// use mullama::ContextOptions;
/// let options = ContextOptions { context_size: Some(4096), ..Default::default() };
/// assert_eq!(options.max_sequences, 8);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContextOptions {
    /// Tokens that the memory holds over all sequences, prompts and answers; a
    /// row that several sequences share counts once. 8 to 16,777,216. `None`:
    /// the model's `context_size`.
    pub context_size: Option<usize>,
    /// Sequences that [`Batch`] rows may name, from 0 on; 1 to 256, and at most
    /// `context_size`. Default 8.
    pub max_sequences: usize,
    /// Most tokens of one decode step; at least `max_sequences` and 16, at most
    /// 8192. `None`: the model's `batch_size`.
    pub batch_size: Option<usize>,
    /// Threads that decode, 1 or more; never more than the process may use.
    /// `None`: the model's `threads`.
    pub threads: Option<usize>,
    /// `Some(true)` forces flash attention on, `Some(false)` off. `None`: the
    /// model's setting.
    pub flash_attention: Option<bool>,
    /// Number type of the K half of the KV cache. `None`: the model's.
    pub kv_type_k: Option<KvType>,
    /// Number type of the V half of the KV cache; `Q8_0` needs flash
    /// attention. `None`: the model's.
    pub kv_type_v: Option<KvType>,
}

impl Default for ContextOptions {
    fn default() -> Self {
        Self {
            context_size: None,
            max_sequences: 8,
            batch_size: None,
            threads: None,
            flash_attention: None,
            kv_type_k: None,
            kv_type_v: None,
        }
    }
}

/// Options without gaps, checked.
#[derive(Debug, Clone)]
pub(crate) struct Resolved {
    pub(crate) context_size: usize,
    pub(crate) max_sequences: usize,
    /// At least `max_sequences`, at most `context_size`.
    pub(crate) batch_size: usize,
    pub(crate) threads: usize,
    pub(crate) flash_attention: Option<bool>,
    pub(crate) kv_type_k: KvType,
    pub(crate) kv_type_v: KvType,
}

impl ContextOptions {
    /// Checks every field and fills the gaps from the model's options.
    ///
    /// # Errors
    /// `InvalidInput` naming the first field that is out of range.
    pub(crate) fn resolve(&self, model: &ModelOptions) -> Result<Resolved, MullamaError> {
        let context_size = self.context_size.unwrap_or(model.context_size);
        in_range("context_size", context_size, MIN_CONTEXT_SIZE, MAX_CONTEXT_SIZE)?;
        in_range("max_sequences", self.max_sequences, 1, MAX_SEQUENCES.min(context_size))?;
        if let Some(batch_size) = self.batch_size {
            in_range("batch_size", batch_size, self.max_sequences.max(16), 8192)?;
        }
        let batch_size = self.batch_size.unwrap_or(model.batch_size).max(self.max_sequences).min(context_size);
        let threads = self.threads.unwrap_or(model.threads);
        in_range("threads", threads, 1, 4096)?;
        let kv_type_v = self.kv_type_v.unwrap_or(model.kv_type_v);
        let flash_attention = self.flash_attention.or(model.flash_attention);
        if kv_type_v == KvType::Q8_0 && flash_attention == Some(false) {
            return Err(MullamaError::invalid("kv_type_v", "q8_0", "a quantized V cache needs flash_attention"));
        }
        Ok(Resolved {
            context_size,
            max_sequences: self.max_sequences,
            batch_size,
            threads: ModelOptions { threads, ..model.clone() }.effective_threads(),
            flash_attention,
            kv_type_k: self.kv_type_k.unwrap_or(model.kv_type_k),
            kv_type_v,
        })
    }
}

/// Private memory over a model's weights that lasts between calls, for
/// synchronous code. Its calls block the calling thread.
///
/// It has a thread and a KV cache of its own, so it neither waits for the
/// requests of the model nor shares their steps. It keeps the weights alive;
/// closing the model closes it. Calls are done in the order in which they were
/// made; the tokens of a stream that is still open when the next call comes
/// are generated to their end first.
///
/// Sequence 0 is the one that generates. Its history holds all tokens that it
/// was given and that it has generated.
///
/// ```no_run
/// # fn main() -> Result<(), mullama::MullamaError> {
/// use mullama::{Context, ContextOptions, Model};
///
/// let model = Model::load("model.gguf")?;
/// let mut context = Context::new(&model, ContextOptions::default())?;
/// let tokens = model.tokenize("Once upon a time", true, false)?;
/// for token in context.generate_stream(&tokens)? {
///     print!("{}", token?.text);
/// }
/// let more = model.tokenize(" And then", false, false)?;
/// for token in context.generate_stream(&more)? {
///     print!("{}", token?.text);
/// }
/// # Ok(())
/// # }
/// ```
pub struct Context {
    session: Arc<Session>,
}

impl Context {
    /// Makes a context over a model; blocks until it is there.
    ///
    /// ```no_run
    /// # fn main() -> Result<(), mullama::MullamaError> {
    /// use mullama::{Context, ContextOptions, Model};
    /// let model = Model::load("model.gguf")?;
    /// let context = Context::new(&model, ContextOptions { context_size: Some(512), ..Default::default() })?;
    /// assert_eq!(context.n_past(), 0);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// `InvalidInput` (an option), `Context`, `OutOfMemory`, `Closed`, `Io` (no
    /// thread), `Unsupported` (forked child).
    pub fn new(model: &Model, options: ContextOptions) -> Result<Self, MullamaError> {
        let session = pollster::block_on(Opening::start(model.engine()?, &options)?.wait())?;
        Ok(Self { session: Arc::new(session) })
    }

    /// Appends tokens to sequence 0 and generates, with the default
    /// [`StreamConfig`].
    ///
    /// ```no_run
    /// # fn example(context: &mut mullama::Context) -> Result<(), mullama::MullamaError> {
    /// for token in context.generate_stream(&[1, 2, 3])? {
    ///     print!("{}", token?.text);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Context::generate_stream_with`].
    pub fn generate_stream(&mut self, tokens: &[TokenId]) -> Result<TokenIter, MullamaError> {
        self.generate_stream_with(tokens, StreamConfig::new())
    }

    /// Appends tokens to sequence 0 and generates. No tokens go on where the
    /// last generation stopped; with the same seed, as if it had not stopped.
    /// Penalties look at the whole history.
    ///
    /// Returns when all calls before it are done. Dropping the iterator stops
    /// the native work; what was generated until then stays in the history. A
    /// reader that falls `buffer_size` tokens behind pauses the generation,
    /// unless another call waits for it.
    ///
    /// ```no_run
    /// # fn example(context: &mut mullama::Context) -> Result<(), mullama::MullamaError> {
    /// use mullama::StreamConfig;
    /// let first: Vec<_> = context.generate_stream_with(&[1, 2, 3], StreamConfig::new().max_tokens(5))?.collect();
    /// let rest: Vec<_> = context.generate_stream_with(&[], StreamConfig::new().max_tokens(5))?.collect();
    /// assert!(first.len() <= 5 && rest.len() <= 5);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// `InvalidInput` (an option, a token, no tokens for an empty context) and
    /// `PromptTooLong`, which append nothing; `Closed`, `Unsupported` (forked
    /// child). Later errors come as the last item: `Timeout` (with the text so
    /// far), `Generation`, `OutOfMemory`, `Closed`.
    pub fn generate_stream_with(
        &mut self,
        tokens: &[TokenId],
        config: StreamConfig,
    ) -> Result<TokenIter, MullamaError> {
        let reader = pollster::block_on(self.session.generate(tokens, config)?)?;
        Ok(TokenIter::new(reader, self.session.keep_alive()))
    }

    /// Evaluates the batches in their order, rows in theirs, and gives for each
    /// batch the greedy token after every row that asked for logits. The rows
    /// become part of the histories of their sequences.
    ///
    /// All batches are checked before anything is evaluated. A row comes right
    /// after what its sequences hold by then; sequences that share a row must
    /// hold the same tokens before it.
    ///
    /// ```no_run
    /// # fn example(context: &mut mullama::Context) -> Result<(), mullama::MullamaError> {
    /// let mut batch = mullama::Batch::new();
    /// batch.add(1, 0, &[0, 1], false); // a beginning that two sequences share
    /// batch.add_sequence(0, &[5, 6]);
    /// batch.add_sequence(1, &[7]);
    /// let greedy = context.process_batch(vec![batch])?;
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
    pub fn process_batch(&mut self, batches: Vec<Batch>) -> Result<Vec<Vec<TokenId>>, MullamaError> {
        pollster::block_on(self.session.process(batches)?)
    }

    /// Writes histories and memory to a file, from which a context of another
    /// process goes on where this one is. The file takes its name when it is
    /// whole.
    ///
    /// ```no_run
    /// # fn example(context: &mut mullama::Context) -> Result<(), mullama::MullamaError> {
    /// context.save_state("story.state")?;
    /// context.load_state("story.state")?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// `Io`, `OutOfMemory`, `Closed`, `Unsupported` (forked child). The path
    /// is as before then.
    pub fn save_state(&self, path: impl AsRef<Path>) -> Result<(), MullamaError> {
        pollster::block_on(self.session.save(path.as_ref())?)
    }

    /// Replaces histories and memory by those of a file that
    /// [`Context::save_state`] wrote for the same model. Load only files from
    /// somebody you would load a model from.
    ///
    /// # Errors
    /// `State` for a file that is cut, altered, of another model, of a newer
    /// version, or that does not fit this context; `Io`, `OutOfMemory`,
    /// `Closed`, `Unsupported` (forked child). The context is as before then.
    pub fn load_state(&mut self, path: impl AsRef<Path>) -> Result<(), MullamaError> {
        pollster::block_on(self.session.load(path.as_ref())?)
    }

    /// Forgets all tokens of all sequences.
    ///
    /// # Errors
    /// `Closed`, `Unsupported` (forked child).
    pub fn clear(&mut self) -> Result<(), MullamaError> {
        pollster::block_on(self.session.clear()?)
    }

    /// Keeps only the first `n` tokens of sequence 0. Models whose memory can't
    /// drop a part (recurrent, at times sliding-window) compute these again in
    /// the next call.
    ///
    /// ```no_run
    /// # fn example(context: &mut mullama::Context) -> Result<(), mullama::MullamaError> {
    /// let before = context.n_past();
    /// context.generate_stream(&[1, 2, 3])?.count();
    /// context.truncate(before)?; // as if that had not been
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// `InvalidInput` when there are fewer, `Closed`, `Unsupported` (forked
    /// child).
    pub fn truncate(&mut self, n: usize) -> Result<(), MullamaError> {
        pollster::block_on(self.session.truncate(n)?)
    }

    /// How many tokens sequence 0 holds. Grows while a stream generates.
    #[must_use]
    pub fn n_past(&self) -> usize {
        self.session.n_past()
    }

    /// Frees the context: calls and streams under way end as `Closed`. Blocks
    /// until that is done; may be called again. Dropping the context and its
    /// streams does the same without waiting.
    pub fn close(&self) {
        pollster::block_on(self.session.close());
    }
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").field("n_past", &self.n_past()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(options: ContextOptions, field: &str) {
        match options.resolve(&ModelOptions::default()) {
            Err(MullamaError::InvalidInput { field: f, .. }) => assert_eq!(f, field),
            other => panic!("expected {field} to be refused, got {other:?}"),
        }
    }

    #[test]
    fn gaps_are_filled_from_the_models_options() {
        let model = ModelOptions { context_size: 64, kv_type_k: KvType::Q8_0, threads: 1, ..ModelOptions::default() };
        let resolved = ContextOptions::default().resolve(&model).unwrap();
        assert_eq!((resolved.context_size, resolved.batch_size, resolved.threads), (64, 64, 1));
        assert_eq!((resolved.kv_type_k, resolved.kv_type_v), (KvType::Q8_0, KvType::F16));
        let own = ContextOptions { context_size: Some(1000), batch_size: Some(32), ..ContextOptions::default() };
        let resolved = own.resolve(&model).unwrap();
        assert_eq!((resolved.context_size, resolved.batch_size), (1000, 32));
    }

    #[test]
    fn the_models_batch_size_grows_with_the_sequences() {
        let model = ModelOptions { batch_size: 16, ..ModelOptions::default() };
        let options = ContextOptions { max_sequences: 100, ..ContextOptions::default() };
        assert_eq!(options.resolve(&model).unwrap().batch_size, 100);
    }

    #[test]
    fn each_field_out_of_range_is_named() {
        let d = ContextOptions::default;
        refused(ContextOptions { context_size: Some(7), ..d() }, "context_size");
        refused(ContextOptions { context_size: Some(usize::MAX), ..d() }, "context_size");
        refused(ContextOptions { max_sequences: 0, ..d() }, "max_sequences");
        refused(ContextOptions { max_sequences: 257, ..d() }, "max_sequences");
        refused(ContextOptions { max_sequences: 9, context_size: Some(8), ..d() }, "max_sequences");
        refused(ContextOptions { batch_size: Some(15), ..d() }, "batch_size");
        refused(ContextOptions { batch_size: Some(16), max_sequences: 17, ..d() }, "batch_size");
        refused(ContextOptions { threads: Some(0), ..d() }, "threads");
        let quantized = ContextOptions { kv_type_v: Some(KvType::Q8_0), flash_attention: Some(false), ..d() };
        refused(quantized, "kv_type_v");
    }
}
