//! SKELETON: owned by the context work.
#![allow(unused_variables, missing_docs)]

use crate::{Batch, KvType, Model, MullamaError, StreamConfig, TokenId, TokenIter};
use std::path::Path;

/// How a context is made; `None` is the model's own setting.
#[derive(Debug, Clone)]
pub struct ContextOptions {
    pub context_size: Option<usize>,
    pub max_sequences: usize,
    pub batch_size: Option<usize>,
    pub threads: Option<usize>,
    pub flash_attention: Option<bool>,
    pub kv_type_k: Option<KvType>,
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

/// A private context.
#[derive(Debug)]
pub struct Context {}

pub(crate) fn skeleton() -> MullamaError {
    MullamaError::Internal("not built yet".to_owned())
}

impl Context {
    pub fn new(model: &Model, options: ContextOptions) -> Result<Self, MullamaError> {
        Err(skeleton())
    }
    pub fn generate_stream(&mut self, tokens: &[TokenId]) -> Result<TokenIter, MullamaError> {
        Err(skeleton())
    }
    pub fn generate_stream_with(
        &mut self,
        tokens: &[TokenId],
        config: StreamConfig,
    ) -> Result<TokenIter, MullamaError> {
        Err(skeleton())
    }
    pub fn process_batch(&mut self, batches: Vec<Batch>) -> Result<Vec<Vec<TokenId>>, MullamaError> {
        Err(skeleton())
    }
    pub fn save_state(&self, path: impl AsRef<Path>) -> Result<(), MullamaError> {
        Err(skeleton())
    }
    pub fn load_state(&mut self, path: impl AsRef<Path>) -> Result<(), MullamaError> {
        Err(skeleton())
    }
    pub fn clear(&mut self) -> Result<(), MullamaError> {
        Err(skeleton())
    }
    pub fn truncate(&mut self, n: usize) -> Result<(), MullamaError> {
        Err(skeleton())
    }
    pub fn n_past(&self) -> usize {
        0
    }
    pub fn close(&self) {}
}
