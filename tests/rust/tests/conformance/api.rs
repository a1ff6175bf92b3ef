//! The two APIs that the cases are run through, behind one trait.

use futures_util::StreamExt as _;
use mullama::{
    AsyncContext, AsyncModel, Batch, BlockingModelPool, BlockingPooledModel, Context, ContextOptions, EngineMetrics,
    FinishReason, Generation, LayerPlacement, Model, ModelInfo, ModelOptions, ModelPool, MullamaError, PoolStats,
    PooledModel, StreamConfig, TokenData, TokenId, TokenIter, TokenStream, Usage,
};
use std::{
    cell::RefCell, collections::BTreeMap, future::Future, path::Path, sync::Arc, sync::LazyLock, time::Duration,
};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

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
pub(crate) trait Api: 'static {
    type Model: Clone + Send + Sync + 'static;
    type Context: Send + 'static;
    type Pool: Clone + Send + Sync + 'static;
    type Lease: Send + Sync + 'static;

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
    fn placement(model: &Self::Model) -> Vec<LayerPlacement>;
    fn is_ready(model: &Self::Model) -> bool;
    fn close(model: &Self::Model);

    fn context(model: &Self::Model, options: ContextOptions) -> Outcome<Self::Context>;
    fn context_stream(
        context: &mut Self::Context,
        tokens: &[TokenId],
        config: StreamConfig,
        cancel_after: Option<usize>,
    ) -> Outcome<Streamed>;
    fn process_batch(context: &mut Self::Context, batches: Vec<Batch>) -> Outcome<Vec<Vec<TokenId>>>;
    fn save_state(context: &mut Self::Context, path: &Path) -> Outcome<()>;
    fn load_state(context: &mut Self::Context, path: &Path) -> Outcome<()>;
    fn truncate(context: &mut Self::Context, n: usize) -> Outcome<()>;
    fn clear(context: &mut Self::Context) -> Outcome<()>;
    fn n_past(context: &Self::Context) -> usize;
    fn close_context(context: &Self::Context);

    fn pool(path: &Path, options: ModelOptions, size: usize) -> Outcome<Self::Pool>;
    fn acquire(pool: &Self::Pool, limit: Option<Duration>) -> Outcome<Self::Lease>;
    fn try_acquire(pool: &Self::Pool) -> Outcome<Option<Self::Lease>>;
    /// A copy of the lease's model.
    fn leased(lease: &Self::Lease) -> Self::Model;
    fn stats(pool: &Self::Pool) -> PoolStats;
    fn resize(pool: &Self::Pool, size: usize) -> Outcome<()>;
    fn close_pool(pool: &Self::Pool);

    /// The model for a task manager, where the API has them; such an API can
    /// cancel a call, too.
    fn for_tasks(model: &Self::Model) -> Option<&AsyncModel>;
}

/// `AsyncModel` on a runtime of Tokio's.
pub(crate) struct Asynchronous;

thread_local! {
    /// Drops the future that this thread waits for.
    static CANCEL: RefCell<Option<CancellationToken>> = const { RefCell::new(None) };
}

/// What a call on a thread unwinds with when its future was dropped.
pub(crate) struct Dropped;

/// Lets `token` drop the futures of this thread's calls.
pub(crate) fn cancel_by(token: CancellationToken) {
    CANCEL.set(Some(token));
}

pub(crate) fn wait<F: Future>(future: F) -> F::Output {
    static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().expect("a runtime starts"));
    let Some(token) = CANCEL.with_borrow(Clone::clone) else { return RUNTIME.block_on(future) };
    match RUNTIME.block_on(token.run_until_cancelled(future)) {
        Some(output) => output,
        None => std::panic::resume_unwind(Box::new(Dropped)),
    }
}

async fn read(mut stream: TokenStream, cancel_after: Option<usize>) -> Streamed {
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
    Streamed { items, error, finish_reason, usage, seed }
}

fn read_blocking(mut stream: TokenIter, cancel_after: Option<usize>) -> Streamed {
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
    let (finish_reason, usage, seed) = (stream.finish_reason(), stream.usage(), stream.seed());
    Streamed { items, error, finish_reason, usage, seed }
}

impl Api for Asynchronous {
    type Model = AsyncModel;
    type Context = AsyncContext;
    type Pool = ModelPool;
    type Lease = PooledModel;

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
        wait(async { Ok(read(model.generate_stream(prompt, config).await?, cancel_after).await) })
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

    fn placement(model: &AsyncModel) -> Vec<LayerPlacement> {
        model.placement().to_vec()
    }

    fn close(model: &AsyncModel) {
        wait(model.close());
    }

    fn context(model: &AsyncModel, options: ContextOptions) -> Outcome<AsyncContext> {
        wait(AsyncContext::with_options(Arc::new(model.clone()), options))
    }

    fn context_stream(
        context: &mut AsyncContext,
        tokens: &[TokenId],
        config: StreamConfig,
        cancel_after: Option<usize>,
    ) -> Outcome<Streamed> {
        wait(async { Ok(read(context.generate_stream_with(tokens, config).await?, cancel_after).await) })
    }

    fn process_batch(context: &mut AsyncContext, batches: Vec<Batch>) -> Outcome<Vec<Vec<TokenId>>> {
        wait(context.process_batch(batches))
    }

    fn save_state(context: &mut AsyncContext, path: &Path) -> Outcome<()> {
        wait(context.save_state(path))
    }

    fn load_state(context: &mut AsyncContext, path: &Path) -> Outcome<()> {
        wait(context.load_state(path))
    }

    fn truncate(context: &mut AsyncContext, n: usize) -> Outcome<()> {
        wait(context.truncate(n))
    }

    fn clear(context: &mut AsyncContext) -> Outcome<()> {
        wait(context.clear())
    }

    fn n_past(context: &AsyncContext) -> usize {
        context.n_past()
    }

    fn close_context(context: &AsyncContext) {
        wait(context.close());
    }

    fn pool(path: &Path, options: ModelOptions, size: usize) -> Outcome<ModelPool> {
        wait(ModelPool::with_options(path, options, size))
    }

    fn acquire(pool: &ModelPool, limit: Option<Duration>) -> Outcome<PooledModel> {
        match limit {
            Some(limit) => wait(pool.acquire_timeout(limit)),
            None => wait(pool.acquire()),
        }
    }

    fn try_acquire(pool: &ModelPool) -> Outcome<Option<PooledModel>> {
        pool.try_acquire()
    }

    fn leased(lease: &PooledModel) -> AsyncModel {
        (**lease).clone()
    }

    fn stats(pool: &ModelPool) -> PoolStats {
        pool.stats()
    }

    fn resize(pool: &ModelPool, size: usize) -> Outcome<()> {
        wait(pool.resize(size))
    }

    fn close_pool(pool: &ModelPool) {
        wait(pool.close());
    }

    fn for_tasks(model: &AsyncModel) -> Option<&AsyncModel> {
        Some(model)
    }
}

/// `Model`, without a runtime.
pub(crate) struct Blocking;

impl Api for Blocking {
    type Model = Model;
    type Context = Context;
    type Pool = BlockingModelPool;
    type Lease = BlockingPooledModel;

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
        Ok(read_blocking(model.generate_stream(prompt, config)?, cancel_after))
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

    fn placement(model: &Model) -> Vec<LayerPlacement> {
        model.placement().to_vec()
    }

    fn close(model: &Model) {
        model.close();
    }

    fn context(model: &Model, options: ContextOptions) -> Outcome<Context> {
        Context::new(model, options)
    }

    fn context_stream(
        context: &mut Context,
        tokens: &[TokenId],
        config: StreamConfig,
        cancel_after: Option<usize>,
    ) -> Outcome<Streamed> {
        Ok(read_blocking(context.generate_stream_with(tokens, config)?, cancel_after))
    }

    fn process_batch(context: &mut Context, batches: Vec<Batch>) -> Outcome<Vec<Vec<TokenId>>> {
        context.process_batch(batches)
    }

    fn save_state(context: &mut Context, path: &Path) -> Outcome<()> {
        context.save_state(path)
    }

    fn load_state(context: &mut Context, path: &Path) -> Outcome<()> {
        context.load_state(path)
    }

    fn truncate(context: &mut Context, n: usize) -> Outcome<()> {
        context.truncate(n)
    }

    fn clear(context: &mut Context) -> Outcome<()> {
        context.clear()
    }

    fn n_past(context: &Context) -> usize {
        context.n_past()
    }

    fn close_context(context: &Context) {
        context.close();
    }

    fn pool(path: &Path, options: ModelOptions, size: usize) -> Outcome<BlockingModelPool> {
        BlockingModelPool::new(path, options, size)
    }

    fn acquire(pool: &BlockingModelPool, limit: Option<Duration>) -> Outcome<BlockingPooledModel> {
        match limit {
            Some(limit) => pool.acquire_timeout(limit),
            None => pool.acquire(),
        }
    }

    fn try_acquire(pool: &BlockingModelPool) -> Outcome<Option<BlockingPooledModel>> {
        pool.try_acquire()
    }

    fn leased(lease: &BlockingPooledModel) -> Model {
        (**lease).clone()
    }

    fn stats(pool: &BlockingModelPool) -> PoolStats {
        pool.stats()
    }

    fn resize(pool: &BlockingModelPool, size: usize) -> Outcome<()> {
        pool.resize(size)
    }

    fn close_pool(pool: &BlockingModelPool) {
        pool.close();
    }

    fn for_tasks(_: &Model) -> Option<&AsyncModel> {
        None
    }
}
