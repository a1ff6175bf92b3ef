//! The Node binding: converts arguments, makes one call into the core, and
//! converts the result. `../lib` wraps it into the public package.
//!
//! Threads: functions exported to JavaScript run on the thread of their
//! environment (the main thread or a worker) and never wait. All waiting
//! happens in tasks of `MullamaRuntime::shared()`.
//!
//! Absent on purpose: option defaults and ranges (the core's), `AbortSignal`
//! and iteration (a few lines of JavaScript do both better), and `unsafe`.

#![deny(unsafe_code)]
// Clippy also looks at a test build, in which napi registers nothing.
#![cfg_attr(test, allow(dead_code))]
// The macros of napi want public items; nothing here is a Rust API.
#![allow(unreachable_pub)]

mod batch;
mod cancel;
mod context;
mod convert;
mod devices;
mod environment;
mod error;
mod facts;
mod given;
mod lease;
mod mailbox;
mod model;
mod options;
mod pool;
mod promise;
mod runtime;
mod selftest;
mod stream;
mod tasks;

use napi::bindgen_prelude::*;
use napi_derive::napi;

/// Runs once for each environment that loads the add-on.
#[napi(module_exports)]
pub fn init(_exports: Object<'_>, env: Env) -> Result<()> {
    environment::register(&env)
}

/// Throws `unsupported` on a processor that lacks instructions which this
/// build of llama.cpp uses. Called on import, before anything else.
#[napi(catch_unwind)]
pub fn check_processor() -> Result<()> {
    mullama::check_cpu().map_err(|error| error::to_js(&error))
}
