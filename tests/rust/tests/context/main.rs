//! Contexts: memory that lasts between calls, batches, state files, on tiny
//! models of each kind of memory and on the real one.

mod batches;
mod generation;
mod lifetime;
mod state;
mod state_files;
mod sync;

use futures_util::StreamExt;
use mullama::{
    AsyncContext, AsyncModel, ContextOptions, ModelOptions, MullamaError, StreamConfig, TokenData, TokenId, TokenStream,
};
use mullama_test_support::{Kind, TinyModel};
use mullama_tests::options;
use std::{path::PathBuf, sync::Arc};
use tempfile::TempDir;

const KINDS: [Kind; 3] = [Kind::Llama, Kind::SlidingWindow, Kind::Recurrent];

/// A tiny model with its file.
struct Tiny {
    model: Arc<AsyncModel>,
    path: PathBuf,
    dir: TempDir,
}

impl Tiny {
    async fn load(model: TinyModel) -> Self {
        Self::load_with(model, options()).await
    }

    async fn load_with(model: TinyModel, options: ModelOptions) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tiny.gguf");
        model.write_to(&path).unwrap();
        let model = Arc::new(AsyncModel::load_with(&path, options).await.unwrap());
        Self { model, path, dir }
    }

    async fn context(&self) -> AsyncContext {
        AsyncContext::new(self.model.clone()).await.unwrap()
    }

    async fn context_with(&self, options: ContextOptions) -> AsyncContext {
        AsyncContext::with_options(self.model.clone(), options).await.unwrap()
    }

    fn tokens(&self, text: &str) -> Vec<TokenId> {
        self.model.tokenize(text, true, false).unwrap()
    }
}

/// Tokens enough to fill more than one window of the sliding-window model.
fn long_text(n: usize) -> String {
    "some words go on 0123456789 ".chars().cycle().take(n).collect()
}

/// Greedy, or by a seed, of exactly `n` tokens.
fn config(seed: Option<u64>, n: usize) -> StreamConfig {
    let config = StreamConfig::new().max_tokens(n).ignore_eos(true).seed(seed);
    if seed.is_none() { config.temperature(0.0) } else { config }
}

async fn read(stream: TokenStream) -> Vec<TokenData> {
    stream.map(Result::unwrap).collect().await
}

fn ids(tokens: &[TokenData]) -> Vec<TokenId> {
    tokens.iter().map(|token| token.token_id).collect()
}

/// Generates and gives the ids.
async fn generate(context: &mut AsyncContext, tokens: &[TokenId], config: StreamConfig) -> Vec<TokenId> {
    ids(&read(context.generate_stream_with(tokens, config).await.unwrap()).await)
}

/// Greedy tokens of which each won by a margin, so that the shape of the
/// batches that they were computed in can't change them: those of `expected`
/// up to the first that did not.
fn sure(expected: &[TokenData]) -> Vec<TokenId> {
    let is_sure = |token: &&TokenData| token.top_logprobs[0].logprob - token.top_logprobs[1].logprob > 0.02;
    expected.iter().take_while(is_sure).map(|token| token.token_id).collect()
}

/// Compares greedy tokens that were computed in other batches. Gives how many
/// were sure: a test wants some.
fn assert_agree(expected: &[TokenData], got: &[TokenId], what: &str) -> usize {
    let sure = sure(expected);
    let n = sure.len().min(got.len());
    assert_eq!(sure[..n], got[..n], "{what}");
    n
}

fn refused<T: std::fmt::Debug>(result: Result<T, MullamaError>, field: &str) {
    match result {
        Err(MullamaError::InvalidInput { field: f, .. }) => assert_eq!(f, field),
        other => panic!("expected {field} to be refused, got {other:?}"),
    }
}
