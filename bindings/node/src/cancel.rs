//! The native end of an `AbortSignal`.

use crate::environment;
use napi::bindgen_prelude::*;
use napi_derive::napi;
use tokio_util::sync::CancellationToken;

/// Cancels the calls that it was given to.
#[napi]
pub struct Cancel {
    pub(crate) token: CancellationToken,
}

#[napi]
impl Cancel {
    #[napi(constructor, catch_unwind)]
    pub fn new(env: &Env) -> Result<Self> {
        Ok(Self { token: environment::ending(env)?.child_token() })
    }

    /// Ends the calls' native work; their promises reject with `cancelled`.
    #[napi(catch_unwind)]
    pub fn cancel(&self) {
        self.token.cancel();
    }
}
