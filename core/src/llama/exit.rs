//! Runs a hook when the process exits, before the static objects of llama.cpp
//! are destroyed.

use std::{panic::catch_unwind, sync::OnceLock};

static HOOK: OnceLock<fn()> = OnceLock::new();

/// Has `hook` run at exit; only the first hook counts. It may panic: the panic
/// stops here.
///
/// Called again whenever llama.cpp may have made new static objects: handlers
/// run and objects are destroyed in one order, the newest first, so a handler
/// runs before the destruction of what was there when it was registered. The
/// hook runs once for each call, so it must bear that.
pub(crate) fn at_exit(hook: fn()) {
    extern "C" fn run() {
        if let Some(hook) = HOOK.get() {
            let _ = catch_unwind(hook);
        }
    }

    HOOK.get_or_init(|| hook);
    // SAFETY: `run` never unwinds, and the C library drops the handlers of a
    // shared library when it is unloaded.
    unsafe { libc::atexit(run) };
}
