//! What a context is made with.

use crate::{KvType, llama::PreparedMemory};
use llama_cpp_sys_2 as sys;

/// Sizes and types of a context. Checked by `ModelOptions::validate`.
pub(crate) struct ContextParams {
    /// KV cells over all sequences.
    pub(crate) n_ctx: usize,
    /// Most rows of one decode; at least `n_seq_max`.
    pub(crate) n_batch: usize,
    /// Most rows that are computed together; a batch of more is computed in
    /// parts.
    pub(crate) n_rows_at_once: usize,
    pub(crate) n_seq_max: usize,
    /// Most rows of one decode that ask for logits. A row of a vocabulary is
    /// kept for each, so this is worth keeping low; `n_seq_max` is the least.
    pub(crate) n_outputs_max: usize,
    pub(crate) n_threads: usize,
    pub(crate) flash_attention: Option<bool>,
    pub(crate) type_k: KvType,
    pub(crate) type_v: KvType,
    /// Whether all sequences share the cells. Otherwise each has its own
    /// `n_ctx / n_seq_max`, and its rows do not depend on the others'.
    pub(crate) unified: bool,
    /// Whether parts of sequences are to be taken and put back
    /// ([`super::Context::part_state`]), where the memory allows it.
    pub(crate) parts: bool,
    /// Whether [`super::Context::decode_in_pieces`] is wanted.
    pub(crate) pieces: bool,
    pub(crate) memory: CellMemory,
}

/// How the KV cells of a context, which are zero at first, come about.
pub(crate) enum CellMemory {
    /// They are cleared when the context is made.
    Cleared,
    /// They may be there only when they are used. A context is made sooner
    /// then. The caller has counted them.
    Promised,
    /// They are what was prepared, if that is about as much as they take.
    Prepared(PreparedMemory),
}

pub(super) fn ggml_type(kind: KvType) -> sys::ggml_type {
    match kind {
        KvType::F32 => sys::GGML_TYPE_F32,
        KvType::F16 => sys::GGML_TYPE_F16,
        KvType::Bf16 => sys::GGML_TYPE_BF16,
        KvType::Q8_0 => sys::GGML_TYPE_Q8_0,
    }
}
