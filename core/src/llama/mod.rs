//! The safe layer over llama.cpp: one owner and one `Drop` for each C object,
//! a C++ shim that lets no exception out, and the checks that keep llama.cpp
//! from calling `abort()`.
//!
//! This is the only module with `unsafe`. It knows nothing of requests,
//! threads or channels. Deliberately absent: llama.cpp's samplers (the engine
//! samples from the logits in `engine::sampler`, since a chain aborts the
//! process on a row it does not like) and its `common/` library.

#![allow(unsafe_code)]

mod backend;
mod batch;
mod context;
mod devices;
mod exit;
pub(crate) mod gguf;
mod logging;
mod model;
#[cfg(feature = "dynamic-backends")]
mod modules;
#[cfg(feature = "dynamic-backends")]
mod own_folder;
mod prepared;
mod shim;
mod team;
mod thread_pool;

pub(crate) use backend::{check_cpu, ensure_started, system_info};
pub(crate) use batch::Batch;
pub(crate) use context::{CellMemory, Context, ContextParams, DecodeError, state_version};
pub(crate) use devices::{backends, devices, has_gpu};
pub(crate) use exit::at_exit;
pub(crate) use model::{LoadParams, Model};
pub(crate) use prepared::PreparedMemory;
