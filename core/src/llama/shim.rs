//! Declarations of `shim.cpp`, and the buffer its error texts come in.

use llama_cpp_sys_2 as sys;
use std::ffi::{CStr, c_char, c_void};

pub(super) const OK: i32 = 0;
pub(super) const EXCEPTION: i32 = -1001;
pub(super) const BAD_ALLOC: i32 = -1002;
pub(super) const NULL: i32 = -1003;

/// A backend of ggml's registry. The name is never freed.
#[repr(C)]
pub(super) struct RawBackend {
    pub(super) name: *const c_char,
    pub(super) n_devices: usize,
}

/// A device of ggml's registry. The strings are never freed.
#[repr(C)]
pub(super) struct RawDevice {
    pub(super) name: *const c_char,
    pub(super) description: *const c_char,
    pub(super) backend: *const c_char,
    pub(super) memory_free: u64,
    pub(super) memory_total: u64,
    /// A `ggml_backend_dev_type`.
    pub(super) kind: i32,
}

/// Threads of a pool, for work that is not llama.cpp's.
#[repr(C)]
pub(super) struct RawTeam {
    _opaque: [u8; 0],
}

/// Memory that is being cleared.
#[repr(C)]
pub(super) struct RawPrepared {
    _opaque: [u8; 0],
}

unsafe extern "C" {
    pub(super) fn mullama_start(error: *mut c_char, error_size: usize) -> i32;
    #[cfg(feature = "dynamic-backends")]
    pub(super) fn mullama_backend_load(path: *const c_char, error: *mut c_char, error_size: usize) -> i32;
    pub(super) fn mullama_backend_at(
        index: usize,
        backend: *mut RawBackend,
        error: *mut c_char,
        error_size: usize,
    ) -> i32;
    pub(super) fn mullama_device_at(index: usize, device: *mut RawDevice, error: *mut c_char, error_size: usize)
    -> i32;
    pub(super) fn mullama_model_load(
        path: *const c_char,
        params: *const sys::llama_model_params,
        model: *mut *mut sys::llama_model,
        error: *mut c_char,
        error_size: usize,
    ) -> i32;
    pub(super) fn mullama_prepare(size: usize, n_threads: usize) -> *mut RawPrepared;
    pub(super) fn mullama_prepared_free(prepared: *mut RawPrepared) -> bool;
    pub(super) fn mullama_context_new(
        model: *mut sys::llama_model,
        params: *const sys::llama_context_params,
        promised: bool,
        prepared: *mut RawPrepared,
        context: *mut *mut sys::llama_context,
        error: *mut c_char,
        error_size: usize,
    ) -> i32;
    pub(super) fn mullama_decode(
        context: *mut sys::llama_context,
        batch: *const sys::llama_batch,
        error: *mut c_char,
        error_size: usize,
    ) -> i32;
    pub(super) fn mullama_seq_rm(
        context: *mut sys::llama_context,
        seq_id: sys::llama_seq_id,
        p0: sys::llama_pos,
        p1: sys::llama_pos,
    ) -> bool;
    pub(super) fn mullama_seq_cp(
        context: *mut sys::llama_context,
        from: sys::llama_seq_id,
        to: sys::llama_seq_id,
        p0: sys::llama_pos,
        p1: sys::llama_pos,
    );
    pub(super) fn mullama_memory_clear(context: *mut sys::llama_context, data: bool);
    pub(super) fn mullama_state_version() -> u32;
    pub(super) fn mullama_state_size(
        context: *mut sys::llama_context,
        seq_id: sys::llama_seq_id,
        error: *mut c_char,
        error_size: usize,
    ) -> usize;
    pub(super) fn mullama_state_get(
        context: *mut sys::llama_context,
        seq_id: sys::llama_seq_id,
        data: *mut u8,
        size: usize,
        error: *mut c_char,
        error_size: usize,
    ) -> usize;
    pub(super) fn mullama_state_set(
        context: *mut sys::llama_context,
        seq_id: sys::llama_seq_id,
        data: *const u8,
        size: usize,
        error: *mut c_char,
        error_size: usize,
    ) -> usize;
    pub(super) fn mullama_tokenize(
        vocab: *const sys::llama_vocab,
        text: *const c_char,
        text_size: i32,
        tokens: *mut sys::llama_token,
        n_tokens_max: i32,
        add_special: bool,
        parse_special: bool,
        status: *mut i32,
        error: *mut c_char,
        error_size: usize,
    ) -> i32;
    pub(super) fn mullama_token_to_piece(
        vocab: *const sys::llama_vocab,
        token: sys::llama_token,
        piece: *mut c_char,
        piece_size: i32,
        special: bool,
        status: *mut i32,
    ) -> i32;
    pub(super) fn mullama_team_new(
        pool: *mut sys::ggml_threadpool,
        team: *mut *mut RawTeam,
        error: *mut c_char,
        error_size: usize,
    ) -> i32;
    pub(super) fn mullama_team_run(
        team: *mut RawTeam,
        n_threads: i32,
        work: extern "C" fn(*mut c_void),
        data: *mut c_void,
        error: *mut c_char,
        error_size: usize,
    ) -> i32;
    pub(super) fn mullama_team_free(team: *mut RawTeam);
}

/// Room for an error text of the shim.
pub(super) struct ErrorText([c_char; 512]);

impl ErrorText {
    pub(super) fn new() -> Self {
        Self([0; 512])
    }

    pub(super) fn as_mut_ptr(&mut self) -> *mut c_char {
        self.0.as_mut_ptr()
    }

    pub(super) fn size(&self) -> usize {
        self.0.len()
    }

    /// The text written so far; empty when the shim wrote none.
    pub(super) fn text(&self) -> String {
        // SAFETY: the array starts zeroed and the shim always ends what it
        // writes with a zero byte inside the array.
        unsafe { CStr::from_ptr(self.0.as_ptr()) }.to_string_lossy().into_owned()
    }
}
