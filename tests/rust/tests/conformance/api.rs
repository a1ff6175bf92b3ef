//! The two APIs that the cases are run through, behind one trait.

use futures_util::StreamExt as _;
use mullama::{
    AsyncModel, EngineMetrics, FinishReason, Generation, Model, ModelInfo, ModelOptions, MullamaError, StreamConfig,
    TokenData, TokenId, Usage,
};
use std::{collections::BTreeMap, future::Future, path::Path, sync::LazyLock};
use tokio::runtime::Runtime;

type Outcome<T> = Result<T, MullamaError>;

/// What a stream gave before its end, and what it told afterwards.
pub(crate) struct Streamed {
    pub(crate) items: Vec<TokenData>,
    pub(crate) error: Option<MullamaError>,
    pub(crate) finish_reason: Option<FinishReason>,
    pub(crate) usage: Usage,
    pub(crate) seed: u64,
}

/// One way to use a model. Every method waits for its result, so that calls at
/// once are calls from several threads.
pub(crate) trait Api {
    type Model: Clone + Send + Sync;

    fn load(path: &Path, options: ModelOptions) -> Outcome<Self::Model>;
    fn generate(model: &Self::Model, prompt: &str, max_tokens: usize) -> Outcome<String>;
    fn generate_with(model: &Self::Model, prompt: &str, config: StreamConfig) -> Outcome<Generation>;
    /// Cancels after so many items, and reads on.
    fn stream(
        model: &Self::Model,
        prompt: &str,
        config: StreamConfig,
        cancel_after: Option<usize>,
    ) -> Outcome<Streamed>;
    fn tokenize(model: &Self::Model, text: &str, add_bos: bool, parse_special: bool) -> Outcome<Vec<TokenId>>;
    fn detokenize(model: &Self::Model, tokens: &[TokenId]) -> Outcome<String>;
    fn info(model: &Self::Model) -> ModelInfo;
    fn metadata(model: &Self::Model) -> BTreeMap<String, String>;
    fn metrics(model: &Self::Model) -> EngineMetrics;
    fn is_ready(model: &Self::Model) -> bool;
    fn close(model: &Self::Model);
}

/// `AsyncModel` on a runtime of Tokio's.
pub(crate) struct Asynchronous;

fn wait<F: Future>(future: F) -> F::Output {
    static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().expect("a runtime starts"));
    RUNTIME.block_on(future)
}

impl Api for Asynchronous {
    type Model = AsyncModel;

    fn load(path: &Path, options: ModelOptions) -> Outcome<AsyncModel> {
        wait(AsyncModel::load_with(path, options))
    }

    fn generate(model: &AsyncModel, prompt: &str, max_tokens: usize) -> Outcome<String> {
        wait(model.generate(prompt, max_tokens))
    }

    fn generate_with(model: &AsyncModel, prompt: &str, config: StreamConfig) -> Outcome<Generation> {
        wait(model.generate_with(prompt, config))
    }

    fn stream(
        model: &AsyncModel,
        prompt: &str,
        config: StreamConfig,
        cancel_after: Option<usize>,
    ) -> Outcome<Streamed> {
        wait(async {
            let mut stream = model.generate_stream(prompt, config).await?;
            let (mut items, mut error) = (Vec::new(), None);
            while let Some(item) = stream.next().await {
                match item {
                    Ok(item) => items.push(item),
                    Err(found) => error = Some(found),
                }
                if cancel_after == Some(items.len()) {
                    stream.cancel();
                }
            }
            let (finish_reason, usage, seed) = (stream.finish_reason(), stream.usage(), stream.seed());
            Ok(Streamed { items, error, finish_reason, usage, seed })
        })
    }

    fn tokenize(model: &AsyncModel, text: &str, add_bos: bool, parse_special: bool) -> Outcome<Vec<TokenId>> {
        if parse_special {
            model.tokenize(text, add_bos, true)
        } else {
            wait(model.tokenize_async(text, add_bos))
        }
    }

    fn detokenize(model: &AsyncModel, tokens: &[TokenId]) -> Outcome<String> {
        model.detokenize(tokens)
    }

    fn info(model: &AsyncModel) -> ModelInfo {
        model.model_info()
    }

    fn metadata(model: &AsyncModel) -> BTreeMap<String, String> {
        model.metadata().clone()
    }

    fn metrics(model: &AsyncModel) -> EngineMetrics {
        model.metrics()
    }

    fn is_ready(model: &AsyncModel) -> bool {
        model.is_ready()
    }

    fn close(model: &AsyncModel) {
        wait(model.close());
    }
}

/// `Model`, without a runtime.
pub(crate) struct Blocking;

impl Api for Blocking {
    type Model = Model;

    fn load(path: &Path, options: ModelOptions) -> Outcome<Model> {
        Model::load_with(path, options)
    }

    fn generate(model: &Model, prompt: &str, max_tokens: usize) -> Outcome<String> {
        model.generate(prompt, max_tokens)
    }

    fn generate_with(model: &Model, prompt: &str, config: StreamConfig) -> Outcome<Generation> {
        model.generate_with(prompt, config)
    }

    fn stream(model: &Model, prompt: &str, config: StreamConfig, cancel_after: Option<usize>) -> Outcome<Streamed> {
        let mut stream = model.generate_stream(prompt, config)?;
        let (mut items, mut error) = (Vec::new(), None);
        while let Some(item) = stream.next() {
            match item {
                Ok(item) => items.push(item),
                Err(found) => error = Some(found),
            }
            if cancel_after == Some(items.len()) {
                stream.cancel();
            }
        }
        Ok(Streamed {
            items,
            error,
            finish_reason: stream.finish_reason(),
            usage: stream.usage(),
            seed: stream.seed(),
        })
    }

    fn tokenize(model: &Model, text: &str, add_bos: bool, parse_special: bool) -> Outcome<Vec<TokenId>> {
        model.tokenize(text, add_bos, parse_special)
    }

    fn detokenize(model: &Model, tokens: &[TokenId]) -> Outcome<String> {
        model.detokenize(tokens)
    }

    fn info(model: &Model) -> ModelInfo {
        model.info().clone()
    }

    fn metadata(model: &Model) -> BTreeMap<String, String> {
        model.metadata().clone()
    }

    fn metrics(model: &Model) -> EngineMetrics {
        model.metrics()
    }

    fn is_ready(model: &Model) -> bool {
        model.is_ready()
    }

    fn close(model: &Model) {
        model.close();
    }
}
