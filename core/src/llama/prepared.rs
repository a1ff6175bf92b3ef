//! Memory that is cleared while something else is done, for a context that is
//! made later. Owned by the thread that makes the context; threads of its own
//! clear it.

use super::shim;
use std::ptr::NonNull;

/// Dropping it frees what no context has taken.
pub(crate) struct PreparedMemory(NonNull<shim::RawPrepared>);

impl PreparedMemory {
    /// Begins to clear so many bytes on some threads. `None` where there is too
    /// little memory, and in a build whose ggml has no such function. llama.cpp
    /// must have been started.
    pub(crate) fn new(bytes: u64, n_threads: usize) -> Option<Self> {
        let bytes = usize::try_from(bytes).ok()?;
        // SAFETY: it takes any size, and lets no exception out.
        NonNull::new(unsafe { shim::mullama_prepare(bytes, n_threads) }).map(Self)
    }

    pub(super) fn as_ptr(&self) -> *mut shim::RawPrepared {
        self.0.as_ptr()
    }
}

impl Drop for PreparedMemory {
    fn drop(&mut self) {
        // SAFETY: it is live and freed only here; a context that took the
        // memory owns that by itself.
        if unsafe { shim::mullama_prepared_free(self.0.as_ptr()) } {
            tracing::debug!("the memory of a context was cleared before it was made");
        } else {
            tracing::debug!("memory was cleared for a context that did not take it");
        }
    }
}
