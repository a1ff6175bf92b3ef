//! What a forked child must not touch.
//!
//! `fork` copies the memory but only one thread: in the child the engine's
//! threads are gone and any lock may be held by nobody. So a handle of the
//! parent is refused with a typed error there, and is leaked rather than
//! dropped when the child ends.

use crate::errors;
use mullama::MullamaError;
use pyo3::prelude::*;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// The process that made the first native object; 0 before that.
static FIRST_OWNER: AtomicU32 = AtomicU32::new(0);

/// Whether native objects were made in a process that this one was forked from.
pub(crate) fn was_forked() -> bool {
    let owner = FIRST_OWNER.load(Relaxed);
    owner != 0 && owner != std::process::id()
}

/// A value that only the process which made it uses and drops.
pub(crate) struct Owned<T> {
    process: u32,
    /// Empty only inside `drop`.
    value: Option<T>,
}

impl<T> Owned<T> {
    pub(crate) fn new(value: T) -> Self {
        let process = std::process::id();
        let _ = FIRST_OWNER.compare_exchange(0, process, Relaxed, Relaxed);
        Self { process, value: Some(value) }
    }

    /// # Errors
    /// `UnsupportedError` in a process forked from the owner.
    pub(crate) fn get(&self, py: Python<'_>) -> PyResult<&T> {
        self.peek().ok_or_else(|| errors::to_py(py, forked()))
    }

    /// `None` in a process forked from the owner.
    pub(crate) fn peek(&self) -> Option<&T> {
        self.value.as_ref().filter(|_| self.process == std::process::id())
    }
}

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        if self.process != std::process::id() {
            std::mem::forget(self.value.take());
        }
    }
}

fn forked() -> MullamaError {
    let message = "this process was forked after mullama was used; use it in one process only, \
                   or start processes by 'spawn' or 'forkserver'";
    MullamaError::Unsupported(message.to_owned())
}
