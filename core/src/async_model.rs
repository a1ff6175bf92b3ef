//! [`AsyncModel`]: a handle on an engine, for async code on any executor. Its
//! futures wait for the engine's thread and never block.

use crate::{
    AsyncConfig, EngineMetrics, Generation, LayerPlacement, ModelInfo, ModelOptions, MullamaError, StreamConfig,
    TokenId, TokenStream,
    engine::{Engine, Handle, Loading, Reader},
    scope::Scope,
};
use std::{collections::BTreeMap, future::poll_fn, path::Path};
#[cfg(feature = "tokio-runtime")]
use {crate::engine::Lease, std::sync::Arc};

/// Prompts of more bytes than this would keep a thread that serves other tasks
/// for some milliseconds.
#[cfg(feature = "tokio-runtime")]
const LONG_PROMPT: usize = 32 * 1024;

/// A loaded model, for async code.
///
/// Cheap to clone: all clones share one engine, which batches the requests of
/// all tasks into one decode step. The engine ends with the last clone and the
/// last stream.
///
/// ```no_run
/// # async fn example() -> Result<(), mullama::MullamaError> {
/// let model = mullama::AsyncModel::load("model.gguf").await?;
/// println!("{}", model.generate("Once upon a time", 40).await?);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct AsyncModel {
    engine: Handle,
}

impl AsyncModel {
    /// The model of a pool's lease.
    #[cfg(feature = "tokio-runtime")]
    pub(crate) fn leased(engine: Arc<Engine>, lease: &Arc<Lease>) -> Self {
        Self { engine: Handle::leased(engine, lease) }
    }

    /// Loads a GGUF file with the default settings.
    ///
    /// # Errors
    /// As [`AsyncModel::load_with`].
    pub async fn load(path: impl AsRef<Path>) -> Result<Self, MullamaError> {
        Self::load_with(path, ModelOptions::default()).await
    }

    /// Loads the model that the configuration names.
    ///
    /// # Errors
    /// As [`AsyncModel::load_with`].
    pub async fn load_with_config(config: AsyncConfig) -> Result<Self, MullamaError> {
        let (path, options) = config.into_options();
        Self::load_with(path, options).await
    }

    /// Loads a GGUF file with every option at hand. The load runs on the
    /// model's own thread; dropping the future stops it.
    ///
    /// # Errors
    /// `ModelNotFound`, `InvalidModel`, `ModelLoad`, `Context`, `OutOfMemory`,
    /// `Io`, `InvalidInput` (an option), `Cancelled` (the progress callback or
    /// the token), `Unsupported` (CPU, forked child).
    pub async fn load_with(path: impl AsRef<Path>, options: ModelOptions) -> Result<Self, MullamaError> {
        let engine = Loading::start(path.as_ref(), options)?.wait().await?;
        Ok(Self { engine: Handle::new(engine) })
    }

    /// Generates at most `max_tokens` tokens with the other settings at their
    /// defaults and gives the text. Dropping the future stops the native work.
    ///
    /// # Errors
    /// As [`AsyncModel::generate_with`].
    pub async fn generate(&self, prompt: &str, max_tokens: usize) -> Result<String, MullamaError> {
        let generation = self.generate_with(prompt, StreamConfig::new().max_tokens(max_tokens)).await?;
        Ok(generation.text)
    }

    /// Generates and gives the whole result. Dropping the future stops the
    /// native work.
    ///
    /// The prompt is tokenized on the thread that polls first, about a
    /// millisecond for a thousand tokens; with the feature `tokio-runtime` a
    /// very long one on a thread of the shared runtime.
    ///
    /// # Errors
    /// `InvalidInput`, `PromptTooLong`, `Tokenization`, `Generation`,
    /// `QueueFull`, `Timeout` (with the text so far), `Closed`, `Cancelled`
    /// (the `MullamaRuntime` whose task this is shuts down), `Unsupported`
    /// (forked child).
    pub async fn generate_with(&self, prompt: &str, config: StreamConfig) -> Result<Generation, MullamaError> {
        let reader = self.submit(prompt, config, false).await?;
        let _scope = Scope::of(&reader);
        poll_fn(|context| reader.poll_result(context)).await
    }

    /// Starts a generation whose tokens come as they are made. Dropping the
    /// stream stops the native work.
    ///
    /// # Errors
    /// As [`AsyncModel::generate_with`], where the request is refused at once;
    /// later errors come as the stream's last item.
    pub async fn generate_stream(&self, prompt: &str, config: StreamConfig) -> Result<TokenStream, MullamaError> {
        let reader = self.submit(prompt, config, true).await?;
        Ok(TokenStream::new(reader, self.engine.keep()))
    }

    /// Hands a request to the engine.
    async fn submit(&self, prompt: &str, config: StreamConfig, stream: bool) -> Result<Reader, MullamaError> {
        #[cfg(feature = "tokio-runtime")]
        if prompt.len() > LONG_PROMPT {
            let (engine, prompt) = (self.engine.clone(), prompt.to_owned());
            let work = move || engine.submit(&prompt, config, stream);
            // If this future is dropped, the reader that comes is dropped too,
            // which cancels the request.
            let submitted = crate::MullamaRuntime::shared()?.spawn_blocking(work).await;
            return submitted.unwrap_or_else(|error| Err(MullamaError::Internal(error.to_string())));
        }
        self.engine.submit(prompt, config, stream)
    }

    /// Turns text into tokens, without reading special tokens in it. `add_bos`
    /// adds the special tokens that the model itself asks for.
    ///
    /// # Errors
    /// `Tokenization`, `Closed`, `Unsupported` (forked child).
    pub async fn tokenize_async(&self, text: &str, add_bos: bool) -> Result<Vec<TokenId>, MullamaError> {
        self.tokenize(text, add_bos, false)
    }

    /// As [`crate::Model::tokenize`]; on the calling thread.
    ///
    /// # Errors
    /// `Tokenization`, `Closed`, `Unsupported` (forked child).
    pub fn tokenize(&self, text: &str, add_bos: bool, parse_special: bool) -> Result<Vec<TokenId>, MullamaError> {
        self.engine.model()?.tokenize(text, add_bos, parse_special)
    }

    /// As [`crate::Model::detokenize`]; on the calling thread.
    ///
    /// # Errors
    /// `InvalidInput` for an id outside the vocabulary, `Closed`,
    /// `Unsupported` (forked child).
    pub fn detokenize(&self, tokens: &[TokenId]) -> Result<String, MullamaError> {
        self.engine.model()?.detokenize(tokens)
    }

    /// Facts about the model. Known since the load, so nothing is awaited.
    #[must_use]
    pub fn model_info(&self) -> ModelInfo {
        self.engine.info().clone()
    }

    /// Entries of the vocabulary.
    #[cfg(feature = "tokio-runtime")]
    pub(crate) fn n_vocab(&self) -> usize {
        self.engine.info().n_vocab
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

    /// Ends the engine: requests under way end as `Closed`, then the memory is
    /// freed. Waits for that; may be called again. The engine ends also when
    /// the future is dropped.
    pub async fn close(&self) {
        self.engine.close().await;
    }
}

impl std::fmt::Debug for AsyncModel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AsyncModel").field("name", &self.engine.info().name).finish_non_exhaustive()
    }
}
