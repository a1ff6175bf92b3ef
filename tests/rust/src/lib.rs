//! What the end-to-end tests share.

#![forbid(unsafe_code)]

pub mod events;
pub mod prometheus;

use mullama::{AsyncModel, EngineMetrics, Generation, ModelOptions, StreamConfig};
use mullama_test_support::TinyModel;
use std::{future::Future, path::PathBuf, time::Duration};
use tempfile::TempDir;

/// How long a test waits for something that must happen. Never a measure: a
/// busy machine may take long, a hang is what it catches.
const LIMIT: Duration = Duration::from_secs(60);

/// Runs an async test on a runtime of its own, within the limit.
pub fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    runtime.block_on(async { tokio::time::timeout(LIMIT, test).await.expect("the test hangs") })
}

/// A tiny model of the llama architecture that lives as long as the test.
pub struct Tiny {
    /// The loaded model.
    pub model: AsyncModel,
    dir: TempDir,
}

impl Tiny {
    /// The model's file.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.dir.path().join("tiny.gguf")
    }
}

/// Loads a tiny random model.
pub async fn tiny(options: ModelOptions) -> Tiny {
    load(TinyModel::llama().seed(7), options).await
}

/// Loads a tiny model of any kind.
pub async fn load(model: TinyModel, options: ModelOptions) -> Tiny {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("tiny.gguf");
    model.write_to(&path).expect("a model file");
    let model = AsyncModel::load_with(&path, options).await.expect("the tiny model loads");
    Tiny { model, dir }
}

/// Options that suit tiny models: one thread, so that tests don't fight over
/// the processors.
#[must_use]
pub fn options() -> ModelOptions {
    ModelOptions { threads: 1, context_size: 1024, timeout: Some(LIMIT), ..ModelOptions::default() }
}

/// Greedy, of exactly `n` tokens.
#[must_use]
pub fn exactly(n: usize) -> StreamConfig {
    StreamConfig::new().max_tokens(n).temperature(0.0).ignore_eos(true)
}

/// Waits until the metrics are as wanted.
pub async fn until(model: &AsyncModel, wanted: impl Fn(&EngineMetrics) -> bool) {
    while !wanted(&model.metrics()) {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Waits until nothing is queued or active.
pub async fn until_idle(model: &AsyncModel) {
    until(model, |metrics| metrics.active == 0 && metrics.queued == 0).await;
}

/// Compares tokens as far as they win by a margin: rows that are computed in
/// other batches differ in their last bits, and near-ties may fall either way.
/// `expected` has log-probabilities of two tokens a place. Gives how many
/// tokens were compared.
pub fn agree(expected: &Generation, got: &Generation) -> usize {
    for (place, want) in expected.logprobs.iter().flatten().enumerate() {
        if want.top[0].logprob - want.top[1].logprob < 0.02 {
            return place;
        }
        assert_eq!(got.tokens[place], want.token_id, "at {place}");
    }
    expected.tokens.len()
}

/// The Rust code of the pages compiles.
#[cfg(doctest)]
mod pages {
    #[doc = include_str!("../../../README.md")]
    struct Readme;
    #[doc = include_str!("../../../docs/getting-started.md")]
    struct GettingStarted;
    #[doc = include_str!("../../../docs/generating.md")]
    struct Generating;
    #[doc = include_str!("../../../docs/options.md")]
    struct Options;
    #[doc = include_str!("../../../docs/errors.md")]
    struct Errors;
    #[doc = include_str!("../../../docs/cancellation.md")]
    struct Cancellation;
    #[doc = include_str!("../../../docs/pools.md")]
    struct Pools;
    #[doc = include_str!("../../../docs/prefix-cache.md")]
    struct PrefixCache;
    #[doc = include_str!("../../../docs/contexts.md")]
    struct Contexts;
    #[doc = include_str!("../../../docs/runtime.md")]
    struct Runtime;
    #[doc = include_str!("../../../docs/gpu.md")]
    struct Gpu;
}
