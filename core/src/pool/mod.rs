//! Pools: a fixed number of leases on one engine. [`ModelPool`] is for async
//! code, [`BlockingModelPool`] for code without a runtime; both are thin
//! handles on `engine::Leases`.

#[cfg(feature = "tokio-runtime")]
mod asynchronous;
mod blocking;

#[cfg(feature = "tokio-runtime")]
pub use asynchronous::{ModelPool, PooledModel};
pub use blocking::{BlockingModelPool, BlockingPooledModel};

use crate::{
    ModelOptions, MullamaError,
    engine::{Leases, Loading, check_size},
    process,
};
use std::{path::Path, sync::Arc, time::Duration};

/// Figures of a pool, now. All zero in a forked child.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct PoolStats {
    /// Leases that may be out at once.
    pub size: usize,
    /// Leases that can be had without waiting.
    pub available: usize,
    /// Leases that are out. More than `size` for a while after shrinking.
    pub in_use: usize,
    /// Calls that wait for a lease.
    pub waiting: usize,
    /// Leases that were ever given.
    pub acquired_total: u64,
    /// Mean time that these waited for it, in milliseconds.
    pub wait_ms_avg: f64,
}

/// Loads a model with room for `size` requests at once.
async fn load(path: &Path, options: ModelOptions, size: usize) -> Result<Arc<Leases>, MullamaError> {
    check_size(size)?;
    let batch_size = options.batch_size.max(size);
    let options = ModelOptions { max_concurrent: size, batch_size, ..options };
    let engine = Loading::start(path, options)?.wait().await?;
    Ok(Leases::new(Arc::new(engine), size))
}

fn stats(leases: &Leases) -> PoolStats {
    if process::is_forked_child() {
        return PoolStats::default();
    }
    let counts = leases.permits().counts();
    let waited_ms = counts.waited.as_secs_f64() * 1000.0;
    PoolStats {
        size: counts.size,
        available: if counts.waiting == 0 { counts.size.saturating_sub(counts.in_use) } else { 0 },
        in_use: counts.in_use,
        waiting: counts.waiting,
        acquired_total: counts.acquired_total,
        // A pool that never gave a lease has waited for none.
        wait_ms_avg: waited_ms / counts.acquired_total.max(1) as f64,
    }
}

fn timed_out(limit: Duration) -> MullamaError {
    let after_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
    MullamaError::Timeout { partial: String::new(), after_ms }
}
