//! SKELETON: owned by the runtime work.
#![allow(unused_variables, missing_docs)]

use crate::{MullamaError, MullamaRuntime, context::skeleton};
use std::time::Duration;

#[derive(Debug, Clone, Default)]
pub struct MullamaRuntimeBuilder {}

impl MullamaRuntimeBuilder {
    pub fn worker_threads(self, n: usize) -> Self {
        self
    }
    pub fn max_blocking_threads(self, n: usize) -> Self {
        self
    }
    pub fn thread_stack_size(self, bytes: usize) -> Self {
        self
    }
    pub fn thread_name(self, name: &str) -> Self {
        self
    }
    pub fn enable_io(self) -> Self {
        self
    }
    pub fn enable_time(self) -> Self {
        self
    }
    pub fn enable_all(self) -> Self {
        self
    }
    pub fn shutdown_timeout(self, limit: Duration) -> Self {
        self
    }
    pub fn build(self) -> Result<MullamaRuntime, MullamaError> {
        Err(skeleton())
    }
}
