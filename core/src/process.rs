//! Tells a forked child from the process that started mullama's threads. A
//! child has none of them, so it must not wait for one, nor take a lock that
//! one may have held.

use crate::MullamaError;
use std::sync::atomic::{AtomicU32, Ordering};

/// The process whose threads run; 0 before there are any.
static OWNER: AtomicU32 = AtomicU32::new(0);

/// Marks this process as the one whose threads run, the first time.
///
/// # Errors
/// `Unsupported` in a forked child of a process that has done so.
pub(crate) fn claim() -> Result<(), MullamaError> {
    let _ = OWNER.compare_exchange(0, std::process::id(), Ordering::AcqRel, Ordering::Acquire);
    check()
}

/// # Errors
/// `Unsupported` in a forked child of a process that has used mullama.
pub(crate) fn check() -> Result<(), MullamaError> {
    if is_forked_child() {
        return Err(MullamaError::Unsupported(
            "mullama was used in this process's parent before it forked; start a new process (spawn) instead"
                .to_owned(),
        ));
    }
    Ok(())
}

/// Whether the threads of mullama belong to another process than this.
pub(crate) fn is_forked_child() -> bool {
    let owner = OWNER.load(Ordering::Acquire);
    owner != 0 && owner != std::process::id()
}
