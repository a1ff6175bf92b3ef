//! SKELETON: owned by the context work.
#![allow(unused_variables, missing_docs)]

use crate::{AsyncModel, Batch, ContextOptions, MullamaError, StreamConfig, TokenId, TokenStream, context::skeleton};
use std::{path::Path, sync::Arc};

/// A private context.
#[derive(Debug)]
pub struct AsyncContext {}

impl AsyncContext {
    pub async fn new(model: Arc<AsyncModel>) -> Result<Self, MullamaError> {
        Err(skeleton())
    }
    pub async fn with_options(model: Arc<AsyncModel>, options: ContextOptions) -> Result<Self, MullamaError> {
        Err(skeleton())
    }
    pub async fn generate_stream(&mut self, tokens: &[TokenId]) -> Result<TokenStream, MullamaError> {
        Err(skeleton())
    }
    pub async fn generate_stream_with(
        &mut self,
        tokens: &[TokenId],
        config: StreamConfig,
    ) -> Result<TokenStream, MullamaError> {
        Err(skeleton())
    }
    pub async fn process_batch(&mut self, batches: Vec<Batch>) -> Result<Vec<Vec<TokenId>>, MullamaError> {
        Err(skeleton())
    }
    pub async fn save_state(&self, path: impl AsRef<Path>) -> Result<(), MullamaError> {
        Err(skeleton())
    }
    pub async fn load_state(&mut self, path: impl AsRef<Path>) -> Result<(), MullamaError> {
        Err(skeleton())
    }
    pub async fn clear(&mut self) -> Result<(), MullamaError> {
        Err(skeleton())
    }
    pub async fn truncate(&mut self, n: usize) -> Result<(), MullamaError> {
        Err(skeleton())
    }
    pub fn n_past(&self) -> usize {
        0
    }
    pub async fn close(&self) {}
}
