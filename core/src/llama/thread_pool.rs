//! ggml's thread pool. Without an attached pool every graph creates and joins
//! its own threads.

use crate::MullamaError;
use llama_cpp_sys_2 as sys;
use std::{
    ffi::{c_int, c_void},
    mem::transmute,
    ptr::NonNull,
};

/// How long ggml's threads spin for the next graph before they sleep, in
/// ggml's own unit (about 128k pauses each). Its default of 50 takes a core
/// from the host for tens of milliseconds after each step; waking a sleeping
/// thread costs microseconds.
const POLL: u32 = 1;

type New = unsafe extern "C" fn(*mut sys::ggml_threadpool_params) -> *mut sys::ggml_threadpool;
type Free = unsafe extern "C" fn(*mut sys::ggml_threadpool);

/// Owner of a `ggml_threadpool`.
pub(super) struct ThreadPool {
    pool: NonNull<sys::ggml_threadpool>,
    free: Free,
}

impl ThreadPool {
    pub(super) fn new(n_threads: usize) -> Result<Self, MullamaError> {
        let missing = || MullamaError::Internal("the CPU backend offers no thread pool".to_owned());
        let new = cpu_proc(c"ggml_threadpool_new").ok_or_else(missing)?;
        let free = cpu_proc(c"ggml_threadpool_free").ok_or_else(missing)?;
        // SAFETY: ggml-cpu registers its `ggml_threadpool_new` under this name.
        let new = unsafe { transmute::<*mut c_void, New>(new.as_ptr()) };
        // SAFETY: likewise for `ggml_threadpool_free`.
        let free = unsafe { transmute::<*mut c_void, Free>(free.as_ptr()) };
        let n_threads = c_int::try_from(n_threads).unwrap_or(c_int::MAX);
        // SAFETY: a pure function of its argument.
        let mut params = unsafe { sys::ggml_threadpool_params_default(n_threads) };
        params.poll = POLL;
        // SAFETY: `params` is valid and only read; `n_threads` was clamped to
        // the processors of the process by `ModelOptions::effective_threads`.
        let pool = unsafe { new(&raw mut params) };
        NonNull::new(pool)
            .map(|pool| Self { pool, free })
            .ok_or_else(|| MullamaError::Context("could not start the decode threads".to_owned()))
    }

    pub(super) fn as_ptr(&self) -> *mut sys::ggml_threadpool {
        self.pool.as_ptr()
    }
}

impl Drop for ThreadPool {
    fn drop(&mut self) {
        // SAFETY: the pool is live and `Context` detaches it before this runs.
        unsafe { (self.free)(self.pool.as_ptr()) };
    }
}

/// A function of ggml-cpu by name: it may be a module that is loaded at run
/// time, so it is never linked.
fn cpu_proc(name: &std::ffi::CStr) -> Option<NonNull<c_void>> {
    // SAFETY: the name ends in a zero byte.
    let registry = unsafe { sys::ggml_backend_reg_by_name(c"CPU".as_ptr()) };
    if registry.is_null() {
        return None;
    }
    // SAFETY: `registry` is one of ggml's static objects and `name` ends in a
    // zero byte.
    NonNull::new(unsafe { sys::ggml_backend_reg_get_proc_address(registry, name.as_ptr()) })
}
