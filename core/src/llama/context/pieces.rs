//! Decodes in pieces: between two of them the caller's thread may do other
//! work with other contexts, also such that share this one's thread pool.
//!
//! llama.cpp evaluates a graph in one go, which takes half a second for some
//! hundred rows. Its callback for looking at a graph's nodes makes it stop
//! after each node that is asked for, with no thread of the pool at work.

use super::{Batch, Context, DecodeError};
use llama_cpp_sys_2 as sys;
use std::{
    any::Any,
    ffi::c_void,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    ptr::NonNull,
    time::{Duration, Instant},
};

/// How long a piece should take. A stop costs some ten microseconds.
const PIECE: Duration = Duration::from_millis(10);

/// Most costly nodes of a piece, so that the first long one is not far when
/// the rows become many.
const MAX_NODES: usize = 64;

/// What a context's callback needs, as long as the context lives: llama.cpp
/// keeps the pointer.
pub(super) struct OwnedPieces(NonNull<Pieces>);

impl OwnedPieces {
    pub(super) fn new() -> Self {
        Self(NonNull::from(Box::leak(Box::new(Pieces::new()))))
    }

    pub(super) fn as_ptr(&self) -> *mut Pieces {
        self.0.as_ptr()
    }
}

impl Drop for OwnedPieces {
    fn drop(&mut self) {
        // SAFETY: it came from a box, and the context, its other user, is gone.
        drop(unsafe { Box::from_raw(self.0.as_ptr()) });
    }
}

pub(super) struct Pieces {
    /// The work of the decode under way; `None` leaves it in one piece. Valid
    /// while [`Context::decode_in_pieces`] runs.
    between: Option<NonNull<dyn FnMut()>>,
    /// The work panicked with this, and is not called again.
    panic: Option<Box<dyn Any + Send>>,
    /// Costly nodes of a piece.
    length: usize,
    /// Those of the piece under way.
    n_nodes: usize,
    started: Instant,
}

impl Pieces {
    fn new() -> Self {
        Self { between: None, panic: None, length: 1, n_nodes: 0, started: Instant::now() }
    }

    /// Whether the piece under way ends with a node of this kind.
    fn ends_with(&mut self, op: sys::ggml_op) -> bool {
        let is_costly = [sys::GGML_OP_MUL_MAT, sys::GGML_OP_MUL_MAT_ID, sys::GGML_OP_FLASH_ATTN_EXT].contains(&op);
        if self.between.is_none() || self.panic.is_some() || !is_costly {
            return false;
        }
        self.n_nodes += 1;
        self.n_nodes >= self.length
    }

    fn ended(&mut self) {
        let took = self.started.elapsed();
        if took > PIECE {
            self.length = (self.length / 2).max(1);
        } else if took < PIECE / 2 {
            self.length = (self.length + 1).min(MAX_NODES);
        }
        self.n_nodes = 0;
        if let Some(mut work) = self.between {
            // SAFETY: `decode_in_pieces` put it there for the time of its call,
            // of which this is a part, and uses it for nothing else meanwhile.
            let outcome = catch_unwind(AssertUnwindSafe(|| unsafe { work.as_mut() }()));
            self.panic = outcome.err();
        }
        self.started = Instant::now();
    }
}

impl Context {
    /// Like [`Context::decode`], but calls `between` now and then, about every
    /// 10 ms, while no thread computes. A check that stops the decode
    /// ([`Context::set_abort_check`]) works as ever.
    ///
    /// # Panics
    /// If `between` does; the decode comes to its end before. If the context
    /// was not made for it (`ContextParams::pieces`).
    pub(crate) fn decode_in_pieces(&mut self, batch: &mut Batch, between: &mut dyn FnMut()) -> Result<(), DecodeError> {
        let pieces = self.pieces.as_ref().expect("the context was made for decodes in pieces").as_ptr();
        let work = NonNull::from(between);
        // SAFETY: only the lifetime changes; it is taken out below, before the
        // reference ends.
        let work = unsafe { std::mem::transmute::<NonNull<dyn FnMut() + '_>, NonNull<dyn FnMut()>>(work) };
        // SAFETY: the box lives until `Drop`, and `&mut self` says that no
        // decode, and so no callback, is under way.
        let state = unsafe { &mut *pieces };
        (state.between, state.n_nodes, state.started) = (Some(work), 0, Instant::now());
        let result = self.decode(batch);
        // SAFETY: as above; the decode is over.
        let state = unsafe { &mut *pieces };
        state.between = None;
        if let Some(payload) = state.panic.take() {
            resume_unwind(payload);
        }
        result
    }
}

/// With `ask` whether to stop after the node; without, the node is computed.
pub(super) unsafe extern "C" fn on_node(node: *mut sys::ggml_tensor, ask: bool, data: *mut c_void) -> bool {
    // SAFETY: `data` is the box that `Context::new` passed, and callbacks of a
    // context come one at a time, on the thread that decodes.
    let pieces = unsafe { &mut *data.cast::<Pieces>() };
    if ask {
        // SAFETY: ggml passes a node of the graph that it is about to compute.
        return pieces.ends_with(unsafe { (*node).op });
    }
    pieces.ended();
    // Always on: the results of a graph that is left in the middle would count.
    true
}
