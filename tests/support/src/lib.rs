//! What mullama's tests in all languages share: tiny GGUF models with random
//! weights, malformed variants of them, and the path of the one real model.
//!
//! Nothing here depends on `mullama` or llama.cpp, so the files that it writes
//! are judged by both and not by themselves.

#![forbid(unsafe_code)]

pub mod corrupt;
pub mod gguf;
pub mod lora;
pub mod model;
pub mod mutate;
mod quantize;
mod rng;
mod tiny;
pub mod vocab;

pub use corrupt::Corruption;
pub use quantize::Quant;
pub use tiny::{Kind, TinyModel};
