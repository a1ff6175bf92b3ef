//! SKELETON: owned by the pool work.
#![allow(unused_variables, missing_docs)]

use crate::{AsyncConfig, AsyncModel, ModelOptions, MullamaError, context::skeleton};
use std::{ops::Deref, path::Path, time::Duration};

#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct PoolStats {
    pub size: usize,
    pub available: usize,
    pub in_use: usize,
    pub waiting: usize,
    pub acquired_total: u64,
    pub wait_ms_avg: f64,
}

/// Cheap to clone.
#[derive(Debug, Clone)]
pub struct ModelPool {}

#[derive(Debug)]
pub struct PooledModel {
    model: AsyncModel,
}

impl Deref for PooledModel {
    type Target = AsyncModel;
    fn deref(&self) -> &AsyncModel {
        &self.model
    }
}

impl ModelPool {
    pub async fn new(config: AsyncConfig, size: usize) -> Result<Self, MullamaError> {
        Err(skeleton())
    }
    pub async fn with_options(
        path: impl AsRef<Path>,
        options: ModelOptions,
        size: usize,
    ) -> Result<Self, MullamaError> {
        Err(skeleton())
    }
    pub async fn acquire(&self) -> Result<PooledModel, MullamaError> {
        Err(skeleton())
    }
    pub fn try_acquire(&self) -> Result<Option<PooledModel>, MullamaError> {
        Err(skeleton())
    }
    pub async fn acquire_timeout(&self, limit: Duration) -> Result<PooledModel, MullamaError> {
        Err(skeleton())
    }
    pub fn stats(&self) -> PoolStats {
        PoolStats::default()
    }
    pub async fn resize(&self, size: usize) -> Result<(), MullamaError> {
        Err(skeleton())
    }
    pub async fn close(&self) {}
}
