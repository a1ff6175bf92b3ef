//! llama.cpp's log, routed to `tracing` (target `llama.cpp`). Nothing reaches
//! stderr: without a `tracing` subscriber the log is silent. Errors of the
//! current thread are kept too, as the reason of a failed load.

use llama_cpp_sys_2 as sys;
use std::{
    cell::RefCell,
    ffi::{CStr, c_char, c_void},
    panic::catch_unwind,
};

thread_local! {
    /// Error lines since `take_errors`; at most a few, since only loading and
    /// context creation log errors and both take them.
    static ERRORS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// How many error lines are kept.
const MAX_ERRORS: usize = 8;

/// Installs the callback. The log is global to the process, so this is done
/// once, before anything else of llama.cpp runs.
pub(super) fn install() {
    // SAFETY: `on_log` has the signature llama.cpp asks for, never unwinds,
    // and uses no user data.
    unsafe { sys::llama_log_set(Some(on_log), std::ptr::null_mut()) };
}

/// The error lines that llama.cpp logged on this thread, and forgets them.
pub(super) fn take_errors() -> String {
    let lines = ERRORS.with(|errors| std::mem::take(&mut *errors.borrow_mut()));
    lines.join("; ")
}

unsafe extern "C" fn on_log(level: sys::ggml_log_level, text: *const c_char, _: *mut c_void) {
    if text.is_null() {
        return;
    }
    // SAFETY: llama.cpp passes a string that ends in a zero byte and lives
    // through the call.
    let line = unsafe { CStr::from_ptr(text) }.to_string_lossy();
    let line = line.trim();
    if line.is_empty() {
        return;
    }
    // A subscriber is foreign code: if it panics, the panic stops here.
    let _ = catch_unwind(|| match level {
        sys::GGML_LOG_LEVEL_ERROR => {
            tracing::error!(target: "llama.cpp", "{line}");
            ERRORS.with(|errors| {
                let mut errors = errors.borrow_mut();
                if errors.len() < MAX_ERRORS {
                    errors.push(line.to_owned());
                }
            });
        }
        sys::GGML_LOG_LEVEL_WARN => tracing::warn!(target: "llama.cpp", "{line}"),
        sys::GGML_LOG_LEVEL_INFO => tracing::debug!(target: "llama.cpp", "{line}"),
        _ => tracing::trace!(target: "llama.cpp", "{line}"),
    });
}
