//! Runs a hook when the process exits, before the static objects of llama.cpp
//! are destroyed.

use std::{
    panic::catch_unwind,
    sync::{Once, OnceLock},
};

static HOOK: OnceLock<fn()> = OnceLock::new();

/// Registers the hook; only the first one counts. It may panic: the panic
/// stops here.
pub(crate) fn at_exit(hook: fn()) {
    extern "C" fn run() {
        if let Some(hook) = HOOK.get() {
            let _ = catch_unwind(hook);
        }
    }

    static REGISTER: Once = Once::new();
    REGISTER.call_once(|| {
        let _ = HOOK.set(hook);
        // SAFETY: `run` never unwinds, and the C library drops the handlers of
        // a shared library when it is unloaded.
        unsafe { libc::atexit(run) };
    });
}
