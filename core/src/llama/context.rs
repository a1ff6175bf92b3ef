//! Owner of a `llama_context` with its thread pool: decode, logits, memory.
//! Not `Send`: the thread that creates a `Context` is the only one to use it.

mod abort;
mod logits;
mod params;
mod pieces;
mod state;

pub(crate) use params::{CellMemory, ContextParams};
pub(crate) use state::state_version;

use super::{
    Batch, Model, logging,
    shim::{self, ErrorText},
    team::Team,
    thread_pool::ThreadPool,
};
use crate::{MullamaError, config::MAX_SEQUENCES};
use abort::AbortCheck;
use llama_cpp_sys_2 as sys;
use pieces::OwnedPieces;
use std::{ptr::NonNull, rc::Rc, sync::Arc, time::Instant};

/// Why a decode did not happen.
#[derive(Debug)]
pub(crate) enum DecodeError {
    /// No KV cells are free; nothing was changed.
    NoCells,
    /// The abort callback stopped it; rows of the batch may be in the memory.
    Aborted,
    /// It failed; rows of the batch may be in the memory.
    Failed(MullamaError),
}

/// A context over a model.
pub(crate) struct Context {
    context: NonNull<sys::llama_context>,
    /// Freed after the contexts that use it.
    pool: Rc<ThreadPool>,
    /// Made when it is needed first; `None` where there can be none.
    team: Option<Option<Team>>,
    /// From `Box::into_raw`, since llama.cpp keeps it too; freed by `Drop`.
    abort: NonNull<AbortCheck>,
    /// For [`Context::decode_in_pieces`], where the context was made for it.
    pieces: Option<OwnedPieces>,
    n_batch: usize,
    n_seq_max: usize,
    n_outputs_max: usize,
    unified: bool,
    /// The sequence after the caller's own: for [`Context::hold_cells`] with a
    /// sliding window, for [`Context::part_state`] otherwise.
    spare: Option<usize>,
    /// Whether the spare sequence is there for parts of others.
    parts: bool,
    /// Whether the spare sequence holds all cells.
    holds_cells: bool,
    /// Last: freed after the context, which reads its weights.
    model: Arc<Model>,
}

impl Context {
    /// # Errors
    /// `Context` with llama.cpp's reason, or `OutOfMemory`.
    pub(crate) fn new(model: Arc<Model>, params: &ContextParams) -> Result<Self, MullamaError> {
        Self::with_pool(model, params, || ThreadPool::new(params.n_threads).map(Rc::new))
    }

    /// Another context over the same model, which uses the threads of this
    /// one. Only one of the two may compute at a time: both belong to one
    /// thread, and `Context::decode_in_pieces` calls back between its pieces.
    ///
    /// # Errors
    /// As for [`Self::new`].
    pub(crate) fn beside(&self, params: &ContextParams) -> Result<Self, MullamaError> {
        Self::with_pool(self.model.clone(), params, || Ok(self.pool.clone()))
    }

    fn with_pool(
        model: Arc<Model>,
        params: &ContextParams,
        pool: impl FnOnce() -> Result<Rc<ThreadPool>, MullamaError>,
    ) -> Result<Self, MullamaError> {
        let size = |n: usize| u32::try_from(n).map_err(|_| MullamaError::Context(format!("{n} is too large")));
        let n_threads = i32::try_from(params.n_threads).unwrap_or(1);
        // SAFETY: a pure function.
        let mut raw = unsafe { sys::llama_context_default_params() };
        raw.n_ctx = size(params.n_ctx)?;
        raw.n_batch = size(params.n_batch)?;
        raw.n_ubatch = size(params.n_batch.min(params.n_rows_at_once))?;
        // SAFETY: the model is live.
        let window = unsafe { sys::llama_model_n_swa(model.as_ptr()) };
        // A sequence with cells of its own has none that another could use.
        let parts = params.parts && params.unified && window == 0 && !model.header().recurrent;
        let has_use = parts || (window > 0 && params.unified);
        let spare = (has_use && params.n_seq_max < MAX_SEQUENCES.min(params.n_batch)).then_some(params.n_seq_max);
        let n_seq_max = params.n_seq_max + usize::from(spare.is_some());
        raw.n_seq_max = size(n_seq_max)?;
        // llama.cpp keeps room for one of each sequence whatever is asked, and
        // would abort if that were more than the limit.
        let n_outputs_max = params.n_outputs_max.max(n_seq_max);
        raw.n_outputs_max = size(n_outputs_max)?;
        raw.n_threads = n_threads;
        raw.n_threads_batch = n_threads;
        raw.flash_attn_type = match params.flash_attention {
            None => sys::LLAMA_FLASH_ATTN_TYPE_AUTO,
            Some(true) => sys::LLAMA_FLASH_ATTN_TYPE_ENABLED,
            Some(false) => sys::LLAMA_FLASH_ATTN_TYPE_DISABLED,
        };
        raw.type_k = params::ggml_type(params.type_k);
        raw.type_v = params::ggml_type(params.type_v);
        raw.kv_unified = params.unified;
        // Layers with a sliding window keep all tokens: without them nothing
        // could be taken back, as after a step that was stopped.
        raw.swa_full = true;
        raw.no_perf = true;
        let pieces = params.pieces.then(OwnedPieces::new);
        if let Some(pieces) = &pieces {
            raw.cb_eval = Some(pieces::on_node);
            raw.cb_eval_user_data = pieces.as_ptr().cast();
        }
        let pool = pool()?;
        let prepared = match &params.memory {
            CellMemory::Prepared(memory) => memory.as_ptr(),
            CellMemory::Cleared | CellMemory::Promised => std::ptr::null_mut(),
        };

        logging::take_errors();
        let mut context = std::ptr::null_mut();
        let mut error = ErrorText::new();
        // SAFETY: the model is live and kept by `self.model`; the pointers
        // outlive the call; the sizes satisfy `n_seq_max <= n_batch`.
        let status = unsafe {
            shim::mullama_context_new(
                model.as_ptr(),
                &raw const raw,
                matches!(params.memory, CellMemory::Promised),
                prepared,
                &raw mut context,
                error.as_mut_ptr(),
                error.size(),
            )
        };
        let reason = [error.text(), logging::take_errors()].join(" ").trim().to_owned();
        let context = match (status, NonNull::new(context)) {
            (shim::OK, Some(context)) => context,
            (shim::BAD_ALLOC, _) => return Err(MullamaError::OutOfMemory(reason)),
            _ => return Err(MullamaError::Context(reason)),
        };
        // SAFETY: both are live; `Drop` detaches the pool before it is freed.
        unsafe { sys::llama_attach_threadpool(context.as_ptr(), pool.as_ptr(), pool.as_ptr()) };
        let abort = NonNull::from(Box::leak(Box::new(AbortCheck::new(|_| false))));
        // SAFETY: `abort` lives until `Drop`, as long as the context; llama.cpp
        // calls back only inside `decode`, which holds `&mut self`.
        unsafe { sys::llama_set_abort_callback(context.as_ptr(), Some(abort::on_node), abort.as_ptr().cast()) };
        Ok(Self {
            context,
            pool,
            team: None,
            abort,
            pieces,
            n_batch: params.n_batch,
            n_seq_max: params.n_seq_max,
            n_outputs_max,
            unified: params.unified,
            spare,
            parts: parts && spare.is_some(),
            holds_cells: false,
            model,
        })
    }

    /// Replaces the check that can stop a decode. It is made with the current
    /// time between the nodes of the graph, on the thread that decodes, and
    /// must not block.
    pub(crate) fn set_abort_check(&mut self, check: impl FnMut(Instant) -> bool + 'static) {
        // SAFETY: `abort` is live, and `&mut self` says that no decode, and so
        // no callback, is under way.
        *unsafe { self.abort.as_mut() } = AbortCheck::new(check);
    }

    pub(crate) fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// Whether all sequences share the cells: then sequences can share parts
    /// of their memories. Otherwise a sequence's memory can only be copied
    /// whole, by its state.
    pub(crate) fn is_unified(&self) -> bool {
        self.unified
    }

    /// Uses `n` threads from the next decode on; at most those of the pool.
    ///
    /// A single one does without the pool. Each graph wakes all threads of a
    /// pool, also those that it has no work for, and these spin for
    /// milliseconds before they sleep again: on processors that the number was
    /// lowered for.
    pub(crate) fn set_threads(&mut self, n: usize) {
        let n = i32::try_from(n).unwrap_or(1).max(1);
        // SAFETY: the context is live; ggml uses at most the pool's threads.
        unsafe { sys::llama_set_n_threads(self.context.as_ptr(), n, n) };
        if n == 1 {
            // SAFETY: the context is live. Its next graph puts the pool to
            // sleep; that is live until after the context.
            unsafe { sys::llama_detach_threadpool(self.context.as_ptr()) };
        } else {
            let pool = self.pool.as_ptr();
            // SAFETY: both are live; `Drop` detaches the pool before it is freed.
            unsafe { sys::llama_attach_threadpool(self.context.as_ptr(), pool, pool) };
        }
    }

    /// Evaluates the rows of `batch`.
    pub(crate) fn decode(&mut self, batch: &mut Batch) -> Result<(), DecodeError> {
        if batch.is_empty() {
            return Ok(());
        }
        if batch.len() > self.n_batch || !batch.is_within(self.n_seq_max, self.model.n_vocab(), self.n_outputs_max) {
            let message = "a batch past the context's limits was planned".to_owned();
            return Err(DecodeError::Failed(MullamaError::Internal(message)));
        }
        let raw = batch.as_raw();
        let mut error = ErrorText::new();
        // SAFETY: the context is live and used by this thread alone; the rows
        // are within its limits (checked above) and outlive the call.
        let status =
            unsafe { shim::mullama_decode(self.context.as_ptr(), &raw const raw, error.as_mut_ptr(), error.size()) };
        match status {
            0 => {
                self.release_cells();
                Ok(())
            }
            1 => Err(DecodeError::NoCells),
            2 => Err(DecodeError::Aborted),
            shim::BAD_ALLOC | -2 => {
                logging::take_errors();
                Err(DecodeError::Failed(MullamaError::OutOfMemory("a decode step could not allocate".to_owned())))
            }
            code => {
                let logged = logging::take_errors();
                let reason = if code == shim::EXCEPTION { error.text() } else { logged };
                Err(DecodeError::Failed(MullamaError::Generation(format!("decode gave {code}: {reason}"))))
            }
        }
    }

    /// Forgets everything of a sequence. Always possible, also for memories
    /// that can't drop a part.
    pub(crate) fn clear_sequence(&mut self, seq_id: usize) {
        let id = self.seq_id(seq_id);
        self.with_cells_released(|context| {
            // SAFETY: the context is live; `id` is below `n_seq_max`.
            unsafe { shim::mullama_seq_rm(context.context.as_ptr(), id, -1, -1) };
        });
    }

    /// How many tokens of a sequence the memory holds.
    pub(crate) fn sequence_len(&self, seq_id: usize) -> usize {
        let seq_id = self.seq_id(seq_id);
        // SAFETY: the memory belongs to the live context; `seq_id` is below
        // `n_seq_max`. The largest position is -1 for an empty sequence.
        let last = unsafe { sys::llama_memory_seq_pos_max(self.memory(), seq_id) };
        usize::try_from(last + 1).unwrap_or(0)
    }

    /// Forgets all of a sequence but its first `n` tokens and gives how many
    /// of them are left: all of them, or none where the memory can't drop a
    /// part (a recurrent state) or no longer holds what a token after them
    /// would look at (a sliding window).
    pub(crate) fn keep_first(&mut self, seq_id: usize, n: usize) -> usize {
        let whole = n > 0 && self.sequence_len(seq_id) >= n && self.remove_after(seq_id, n) && self.sees_all(seq_id, n);
        if whole && self.sequence_len(seq_id) == n {
            return n;
        }
        self.clear_sequence(seq_id);
        0
    }

    fn remove_after(&mut self, seq_id: usize, n: usize) -> bool {
        let seq_id = self.seq_id(seq_id);
        let n = i32::try_from(n).expect("positions fit the context size");
        self.with_cells_released(|context| {
            // SAFETY: the context is live; `seq_id` is below `n_seq_max`.
            unsafe { shim::mullama_seq_rm(context.context.as_ptr(), seq_id, n, -1) }
        })
    }

    /// Whether all that the token at position `n` may look at is there.
    fn sees_all(&self, seq_id: usize, n: usize) -> bool {
        let seq_id = self.seq_id(seq_id);
        // SAFETY: the memory belongs to the live context; `seq_id` is below
        // `n_seq_max`.
        let first = unsafe { sys::llama_memory_seq_pos_min(self.memory(), seq_id) };
        // SAFETY: the model is live.
        let window = unsafe { sys::llama_model_n_swa(self.model.as_ptr()) };
        // A recurrent memory has but its last position, whose state holds all.
        let is_state = self.model.header().recurrent;
        let first = usize::try_from(first).unwrap_or(usize::MAX);
        first == 0 || is_state || (window > 0 && first.saturating_add(window.unsigned_abs() as usize) <= n)
    }

    /// Makes `to` hold what `from` holds, sharing its cells. `to` must be
    /// empty.
    ///
    /// # Panics
    /// If the memory is not unified: cells of its own can't be shared.
    pub(crate) fn share_sequence(&mut self, from: usize, to: usize) {
        assert!(self.is_unified(), "sequences that have their own cells can't share them");
        let (from, to) = (self.seq_id(from), self.seq_id(to));
        // SAFETY: the context is live; both are below `n_seq_max`, and the
        // memory is unified, which allows a copy of any part.
        unsafe { shim::mullama_seq_cp(self.context.as_ptr(), from, to, -1, -1) };
    }

    /// Makes `to`, which must be empty, hold the first `n` tokens that `from`
    /// holds: by sharing its cells, or by a copy where each has its own. `false` when the memory can't do that, as
    /// when it is recurrent and holds more than these; `to` is empty then.
    pub(crate) fn share_first(&mut self, from: usize, to: usize, n: usize) -> bool {
        let held = self.sequence_len(from);
        if n == 0 || held < n || (self.model.header().recurrent && held > n) {
            return false;
        }
        if self.unified {
            self.share_sequence(from, to);
        } else if !self.sequence_state(from).is_some_and(|state| self.set_sequence_state(to, &state)) {
            return false;
        }
        self.keep_first(to, n) == n
    }

    /// Whether sequences that [`Self::share_first`] made alike share cells.
    pub(crate) fn shares_cells(&self) -> bool {
        self.unified && !self.model.header().recurrent
    }

    /// Whether a sequence's memory can be trimmed after it was put back. A
    /// recurrent one can't; of layers with a sliding window llama.cpp saves only
    /// what the next token looks at.
    pub(crate) fn trims_states(&self) -> bool {
        // SAFETY: the model is live.
        let window = unsafe { sys::llama_model_n_swa(self.model.as_ptr()) };
        window == 0 && !self.model.header().recurrent
    }

    /// Whether parts of sequences can be taken and put back.
    pub(crate) fn has_parts(&self) -> bool {
        self.parts
    }

    /// Forgets all sequences, and writes zeros over what they were.
    pub(crate) fn clear(&mut self) {
        self.forget(true);
    }

    /// Forgets all sequences. What they were is left in memory, where flash
    /// attention does not look at it; other attention multiplies it by zero.
    pub(crate) fn clear_sequences(&mut self) {
        self.forget(false);
    }

    fn forget(&mut self, data: bool) {
        // SAFETY: the context is live.
        unsafe { shim::mullama_memory_clear(self.context.as_ptr(), data) };
        self.holds_cells = false;
    }

    fn memory(&self) -> sys::llama_memory_t {
        // SAFETY: the context is live.
        unsafe { sys::llama_get_memory(self.context.as_ptr()) }
    }

    /// # Panics
    /// For an id that the context does not have: llama.cpp would abort.
    fn seq_id(&self, seq_id: usize) -> sys::llama_seq_id {
        assert!(seq_id < self.n_seq_max, "sequence {seq_id} of {}", self.n_seq_max);
        raw_id(seq_id)
    }
}

fn raw_id(seq_id: usize) -> sys::llama_seq_id {
    i32::try_from(seq_id).expect("sequence ids are small")
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: the context is live; the pool is freed only after this.
        unsafe { sys::llama_detach_threadpool(self.context.as_ptr()) };
        // SAFETY: the context is live and nothing refers to it any more.
        unsafe { sys::llama_free(self.context.as_ptr()) };
        // SAFETY: `abort` came from a box; its other user is gone just now.
        drop(unsafe { Box::from_raw(self.abort.as_ptr()) });
    }
}
