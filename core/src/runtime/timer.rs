//! A clock for mullama's own waits. It is the shared runtime's, whose time is
//! always on, so that a wait works on any executor and on a runtime that was
//! built without `enable_time`.

use crate::{MullamaError, MullamaRuntime};
use std::time::Duration;
use tokio::time::Sleep;

/// A future that is ready after `duration`. May be awaited anywhere.
///
/// # Errors
/// As [`MullamaRuntime::shared`].
pub(crate) fn sleep(duration: Duration) -> Result<Sleep, MullamaError> {
    // The future takes its clock from the context that makes it.
    let _context = MullamaRuntime::shared()?.tokio().enter();
    Ok(tokio::time::sleep(duration))
}
