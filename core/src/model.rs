//! The synchronous [`Model`]: the same engine as `AsyncModel`, for code
//! without a runtime. Its calls block the calling thread.

use crate::{
    EngineMetrics, Generation, LayerPlacement, ModelInfo, ModelOptions, MullamaError, StreamConfig, TokenData, TokenId,
    engine::{Batch, Engine, Handle, KeepAlive, Lease, Loading, Reader},
    scope::Scope,
};
use std::{
    collections::{BTreeMap, VecDeque},
    future::poll_fn,
    path::Path,
    sync::Arc,
};

/// A loaded model, for synchronous code.
///
/// Cheap to clone: all clones share one engine, which batches the requests of
/// all threads. The engine ends with the last clone.
///
/// ```no_run
/// # fn main() -> Result<(), mullama::MullamaError> {
/// let model = mullama::Model::load("model.gguf")?;
/// println!("{}", model.generate("Once upon a time", 40)?);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Model {
    engine: Handle,
}

impl Model {
    /// The model of a pool's lease.
    pub(crate) fn leased(engine: Arc<Engine>, lease: &Arc<Lease>) -> Self {
        Self { engine: Handle::leased(engine, lease) }
    }

    /// Loads a GGUF file with the default [`ModelOptions`].
    ///
    /// # Errors
    /// As [`Model::load_with`].
    pub fn load(path: impl AsRef<Path>) -> Result<Self, MullamaError> {
        Self::load_with(path, ModelOptions::default())
    }

    /// Loads a GGUF file; blocks until it is ready.
    ///
    /// # Errors
    /// `ModelNotFound`, `InvalidModel`, `ModelLoad`, `Context`, `OutOfMemory`,
    /// `Io`, `InvalidInput` (an option), `Cancelled` (the progress callback or
    /// the token), `Unsupported` (CPU, forked child).
    pub fn load_with(path: impl AsRef<Path>, options: ModelOptions) -> Result<Self, MullamaError> {
        let engine = pollster::block_on(Loading::start(path.as_ref(), options)?.wait())?;
        Ok(Self { engine: Handle::new(engine) })
    }

    /// Turns text into tokens. `add_bos` adds the special tokens that the
    /// model itself asks for; `parse_special` reads texts like `<|im_start|>`
    /// as the tokens they name.
    ///
    /// # Errors
    /// `Tokenization`, `Closed`.
    pub fn tokenize(&self, text: &str, add_bos: bool, parse_special: bool) -> Result<Vec<TokenId>, MullamaError> {
        self.engine.model()?.tokenize(text, add_bos, parse_special)
    }

    /// Turns tokens into text. Bytes that are no whole characters become
    /// U+FFFD; special tokens show their names.
    ///
    /// # Errors
    /// `InvalidInput` for an id outside the vocabulary, `Closed`.
    pub fn detokenize(&self, tokens: &[TokenId]) -> Result<String, MullamaError> {
        self.engine.model()?.detokenize(tokens)
    }

    /// Facts about the model.
    #[must_use]
    pub fn info(&self) -> &ModelInfo {
        self.engine.info()
    }

    /// The file's metadata, as text.
    #[must_use]
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        self.engine.metadata()
    }

    /// Whether the model takes requests: not closed, and not in a forked
    /// child.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.engine.is_ready()
    }

    /// Where llama.cpp put the model's layers: an entry a device, in the order
    /// of the layers. The output layer counts as one, as it does for
    /// `gpu_layers`, so all together are `n_layer` and one more. Known since the
    /// load, so it can't fail, also after a close.
    #[must_use]
    pub fn placement(&self) -> Vec<LayerPlacement> {
        self.engine.placement().to_vec()
    }

    pub(crate) fn engine(&self) -> Result<&Engine, MullamaError> {
        self.engine.engine()
    }

    /// Live figures of the engine.
    #[must_use]
    pub fn metrics(&self) -> EngineMetrics {
        self.engine.metrics()
    }

    /// Generates at most `max_tokens` tokens with the other settings at their
    /// defaults and gives the text.
    ///
    /// # Errors
    /// As [`Model::generate_with`].
    pub fn generate(&self, prompt: &str, max_tokens: usize) -> Result<String, MullamaError> {
        self.generate_with(prompt, StreamConfig::new().max_tokens(max_tokens)).map(|generation| generation.text)
    }

    /// Generates and gives the whole result.
    ///
    /// # Errors
    /// `InvalidInput`, `PromptTooLong`, `Tokenization`, `Generation`,
    /// `QueueFull`, `Timeout` (with the text so far), `Closed`, `Cancelled`
    /// (the `MullamaRuntime` whose blocking task this is shuts down),
    /// `Unsupported` (forked child).
    pub fn generate_with(&self, prompt: &str, config: StreamConfig) -> Result<Generation, MullamaError> {
        let reader = self.engine.submit(prompt, config, false)?;
        let _scope = Scope::of(&reader);
        pollster::block_on(poll_fn(|context| reader.poll_result(context)))
    }

    /// Starts a generation whose tokens come as they are made. Dropping the
    /// iterator stops the native work.
    ///
    /// # Errors
    /// As [`Model::generate_with`], where the request is refused at once;
    /// later errors come as the last item.
    pub fn generate_stream(&self, prompt: &str, config: StreamConfig) -> Result<TokenIter, MullamaError> {
        let reader = self.engine.submit(prompt, config, true)?;
        Ok(TokenIter::new(reader, self.engine.keep()))
    }

    /// Ends the engine: requests under way end as `Closed`, then the memory is
    /// freed. Blocks until that is done; may be called again.
    pub fn close(&self) {
        pollster::block_on(self.engine.close());
    }
}

impl std::fmt::Debug for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Model").field("name", &self.info().name).finish_non_exhaustive()
    }
}

/// The tokens of a [`Model::generate_stream`] or of a
/// [`Context`](crate::Context). `next` blocks until a token is
/// there.
pub struct TokenIter {
    reader: Reader,
    /// Ends the generation with the runtime whose task started it.
    _scope: Scope,
    /// Tokens that were taken together and not given yet.
    ready: VecDeque<TokenData>,
    /// Keeps the thread that serves the iterator while it is used.
    _keep: KeepAlive,
}

impl TokenIter {
    pub(crate) fn new(reader: Reader, keep: KeepAlive) -> Self {
        Self { _scope: Scope::of(&reader), reader, ready: VecDeque::new(), _keep: keep }
    }

    /// Stops the native work; the iterator ends.
    pub fn cancel(&self) {
        self.reader.cancel();
    }

    /// Token counts so far.
    #[must_use]
    pub fn usage(&self) -> crate::Usage {
        self.reader.usage()
    }

    /// Times so far.
    #[must_use]
    pub fn timings(&self) -> crate::Timings {
        self.reader.timings()
    }

    /// The seed of this generation.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.reader.seed()
    }

    /// Why the generation ended; `None` while it runs and after an error.
    #[must_use]
    pub fn finish_reason(&self) -> Option<crate::FinishReason> {
        self.reader.finish_reason()
    }
}

impl Iterator for TokenIter {
    type Item = Result<TokenData, MullamaError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ready.is_empty() {
            match pollster::block_on(poll_fn(|context| self.reader.poll_batch(context))) {
                Batch::Tokens(tokens) => self.ready.extend(tokens),
                Batch::Failed(error) => return Some(Err(error)),
                Batch::Done => return None,
            }
        }
        self.ready.pop_front().map(Ok)
    }
}

impl std::fmt::Debug for TokenIter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenIter").field("usage", &self.usage()).finish_non_exhaustive()
    }
}
