//! Keeps the runtime's few workers free of tokenizing.
//!
//! The core tokenizes a prompt on the thread that polls its future first,
//! about a millisecond for 4 KiB. A worker that did this for a long prompt
//! would hold up the tokens of every stream meanwhile.

use crate::{begun::begin, runtime};
use mullama::MullamaError;
use std::future::Future;

/// Prompts of more bytes than this are submitted from a blocking thread.
const LONG_PROMPT: usize = 8 * 1024;

/// Awaits a call into the core that submits a prompt of that many bytes.
pub(crate) async fn submit<T, F>(prompt_bytes: usize, call: F) -> Result<T, MullamaError>
where
    T: Send + 'static,
    F: Future<Output = Result<T, MullamaError>> + Send + 'static,
{
    if prompt_bytes <= LONG_PROMPT {
        return call.await;
    }
    let begun = runtime()?.spawn_blocking(move || begin(call)).await;
    begun.map_err(|error| MullamaError::Internal(error.to_string()))?.finish().await
}
