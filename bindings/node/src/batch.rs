//! The native batch: rows that wait for a context.

use crate::{error::refused, given::Given};
use napi::bindgen_prelude::*;
use napi_derive::napi;

#[napi(js_name = "NativeBatch")]
pub struct Batch {
    pub(crate) inner: mullama::Batch,
}

#[napi]
impl Batch {
    #[napi(constructor, catch_unwind)]
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        Self { inner: mullama::Batch::new() }
    }

    #[napi(catch_unwind)]
    pub fn add(
        &mut self,
        token: Unknown<'_>,
        position: Unknown<'_>,
        seq_ids: Unknown<'_>,
        logits: Unknown<'_>,
    ) -> Result<()> {
        let token = Given { name: "token", value: token }.integer().map_err(|error| refused(&error))?;
        let position = Given { name: "position", value: position }.integer().map_err(|error| refused(&error))?;
        let seq_ids = Given { name: "seqIds", value: seq_ids }.sequences().map_err(|error| refused(&error))?;
        let logits = Given { name: "logits", value: logits }.boolean().map_err(|error| refused(&error))?;
        self.inner.add(token, position, &seq_ids, logits);
        Ok(())
    }

    #[napi(catch_unwind)]
    pub fn add_sequence(&mut self, seq_id: Unknown<'_>, tokens: Unknown<'_>) -> Result<()> {
        let seq_id = Given { name: "seqId", value: seq_id }.integer().map_err(|error| refused(&error))?;
        let tokens = Given { name: "tokens", value: tokens }.tokens().map_err(|error| refused(&error))?;
        self.inner.add_sequence(seq_id, &tokens);
        Ok(())
    }

    #[napi(getter, catch_unwind)]
    pub fn length(&self) -> u32 {
        crate::convert::count(self.inner.len())
    }

    #[napi(catch_unwind)]
    pub fn is_empty(&self) -> bool {
        self.inner.is_empty()
    }

    #[napi(catch_unwind)]
    pub fn clear(&mut self) {
        self.inner.clear();
    }
}
