//! What belongs to one JavaScript environment: the main thread's, or that of
//! one worker thread.
//!
//! An environment that ends cancels its own work. Only when the last one ends
//! are all models closed; until then those of other environments go on.

use mullama::close_all;
use napi::bindgen_prelude::*;
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::atomic::{AtomicUsize, Ordering},
};
use tokio_util::sync::CancellationToken;

/// Environments that have loaded the add-on and not ended.
static LIVE: AtomicUsize = AtomicUsize::new(0);

/// Kept as the environment's instance data.
struct Environment {
    /// Cancelled when the environment ends; parent of all its tokens.
    ending: CancellationToken,
}

pub(crate) fn register(env: &Env) -> Result<()> {
    let ending = CancellationToken::new();
    env.set_instance_data(Environment { ending: ending.clone() }, (), |_| ())?;
    LIVE.fetch_add(1, Ordering::SeqCst);
    env.add_env_cleanup_hook(ending, |ending| {
        ending.cancel();
        if LIVE.fetch_sub(1, Ordering::SeqCst) == 1 {
            // The hook is called from C, which a panic must not reach.
            let _ = catch_unwind(AssertUnwindSafe(close_all));
        }
    })?;
    Ok(())
}

/// The token that is cancelled when the environment ends.
pub(crate) fn ending(env: &Env) -> Result<CancellationToken> {
    let environment = env.get_instance_data::<Environment>()?;
    Ok(environment.map_or_else(CancellationToken::new, |it| it.ending.clone()))
}
