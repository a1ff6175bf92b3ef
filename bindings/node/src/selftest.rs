//! Lets the tests walk every error, and a panic, through the binding. Not
//! reachable from the public package.

use crate::{error::to_js, promise::promise};
use mullama::MullamaError;
use napi::bindgen_prelude::*;
use napi_derive::napi;

/// The core's error codes, in order.
#[napi(catch_unwind)]
pub fn error_codes() -> Vec<&'static str> {
    MullamaError::CODES.to_vec()
}

/// Throws the example of the code at `index`.
#[napi(catch_unwind)]
pub fn throw_example(index: u32) -> Result<()> {
    Err(to_js(&example(index)))
}

/// Rejects with the example of the code at `index`.
#[napi(catch_unwind)]
pub fn reject_with_example(env: &Env, index: u32) -> Result<Object<'_>> {
    promise::<(), _>(env, None, async move { Err(example(index)) })
}

/// Panics on the JavaScript thread.
#[napi(catch_unwind)]
pub fn panic_now() {
    panic!("asked for by a test");
}

/// Panics in a task of the runtime.
#[napi(catch_unwind)]
pub fn panic_later(env: &Env) -> Result<Object<'_>> {
    promise::<(), _>(env, None, async { panic!("asked for by a test") })
}

/// Name of the thread that a promise's work runs on.
#[napi(catch_unwind)]
pub fn worker_name(env: &Env) -> Result<Object<'_>> {
    promise(env, None, async { Ok(std::thread::current().name().unwrap_or_default().to_owned()) })
}

fn example(index: u32) -> MullamaError {
    let found = MullamaError::examples().into_iter().nth(index as usize);
    found.unwrap_or_else(|| MullamaError::Internal(format!("no example {index}")))
}
