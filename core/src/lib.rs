//! Local language models as a first-class async library, run by llama.cpp.
//!
//! Load a GGUF file once; every request of the process is batched into one
//! decode step on the model's own thread.
//!
//! ```no_run
//! # #[cfg(feature = "async")]
//! # async fn example() -> Result<(), mullama::MullamaError> {
//! use mullama::{AsyncModel, StreamConfig};
//!
//! let model = AsyncModel::load("model.gguf").await?;
//! let stream = model.generate_stream("Once upon a time", StreamConfig::new().max_tokens(64)).await?;
//! loop {
//!     let tokens = stream.next_batch().await?;
//!     if tokens.is_empty() {
//!         break;
//!     }
//!     tokens.iter().for_each(|token| print!("{}", token.text));
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Features
//!
//! None is on by default: the synchronous [`Model`] needs none. `async` adds
//! `AsyncModel`, `AsyncConfig` and `TokenStream`; `tokio-runtime` adds
//! `MullamaRuntime`; `cuda`, `metal`, `vulkan`, `rocm`, `opencl` and `mkl`
//! choose what llama.cpp is built with; `dynamic-backends` builds its CPU backend
//! for every processor, as modules of which the best is loaded at run time.

#![deny(unsafe_code)]
// A library writes nothing to its host's streams.
#![warn(clippy::print_stderr, clippy::print_stdout)]

mod batch;
mod config;
mod context;
mod devices;
mod engine;
mod error;
mod generation;
mod info;
mod llama;
mod memory;
mod model;
mod pool;
mod process;
#[doc(hidden)]
pub mod reference;
mod scope;
mod stream_config;
#[doc(hidden)]
pub mod wakes;

#[cfg(feature = "async")]
mod async_context;
#[cfg(feature = "async")]
mod async_model;
#[cfg(feature = "tokio-runtime")]
mod runtime;
#[cfg(feature = "async")]
mod stream;

#[cfg(feature = "async")]
pub use async_context::AsyncContext;
#[cfg(feature = "async")]
pub use async_model::AsyncModel;
pub use batch::Batch;
#[cfg(feature = "async")]
pub use config::AsyncConfig;
pub use config::{KvType, ModelOptions, ProgressCallback, timeout_from_ms};
pub use context::{Context, ContextOptions};
pub use devices::{BackendInfo, DeviceInfo, DeviceKind, LayerPlacement, backends, devices};
pub use engine::close_all;
pub use error::MullamaError;
pub use generation::{FinishReason, Generation, Timings, TokenData, TokenLogprob, TokenLogprobs, Usage};
pub use info::{EngineMetrics, Histogram, ModelInfo};
pub use model::{Model, TokenIter};
pub use pool::{BlockingModelPool, BlockingPooledModel, PoolStats};
#[cfg(feature = "tokio-runtime")]
pub use pool::{ModelPool, PooledModel};
#[cfg(feature = "tokio-runtime")]
pub use runtime::{
    GenerationTask, MullamaRuntime, MullamaRuntimeBuilder, RuntimeMetrics, TaskManager, WorkerOutput, WorkerStatus,
};
#[cfg(feature = "async")]
pub use stream::TokenStream;
pub use stream_config::StreamConfig;

/// A token's index in the vocabulary.
pub type TokenId = i32;

/// A sequence of a context, from 0 on.
pub type SeqId = i32;

/// Fails where this CPU lacks instructions that this build uses, which would
/// otherwise end the process. Loading a model checks it too; a binding checks
/// it on import.
///
/// # Errors
/// `Unsupported`, naming the missing instruction sets.
pub fn check_cpu() -> Result<(), MullamaError> {
    llama::check_cpu()
}

/// llama.cpp's list of the instruction sets and features it was built with.
#[must_use]
pub fn system_info() -> String {
    llama::system_info()
}
