//! [`BlockingModelPool`], for code without a runtime. Its calls block the
//! calling thread.

use super::{PoolStats, load, stats, timed_out};
use crate::{
    Model, ModelOptions, MullamaError,
    engine::{Lease, Leases},
};
use std::{
    fmt,
    ops::Deref,
    path::Path,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
    time::{Duration, Instant},
};

/// A number of leases on one loaded model, for synchronous code: what
/// `ModelPool` is for async code.
///
/// Cheap to clone; all clones are one pool, which threads share.
///
/// ```no_run
/// # fn main() -> Result<(), mullama::MullamaError> {
/// use mullama::{BlockingModelPool, ModelOptions};
///
/// let pool = BlockingModelPool::new("model.gguf", ModelOptions::default(), 4)?;
/// let model = pool.acquire()?;
/// println!("{}", model.generate("Once upon a time", 40)?);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct BlockingModelPool {
    leases: Arc<Leases>,
}

impl BlockingModelPool {
    /// Loads a GGUF file, for `size` leases (1 to 256). `max_concurrent` of the
    /// options is not used: `size` stands in its place.
    ///
    /// # Errors
    /// `InvalidInput` (field `size`), and those of [`Model::load_with`].
    pub fn new(path: impl AsRef<Path>, options: ModelOptions, size: usize) -> Result<Self, MullamaError> {
        Ok(Self { leases: pollster::block_on(load(path.as_ref(), options, size))? })
    }

    /// Waits for a lease, first come first served.
    ///
    /// # Errors
    /// `Closed`, also when the pool is closed while this waits; `Unsupported`
    /// in a forked child.
    pub fn acquire(&self) -> Result<BlockingPooledModel, MullamaError> {
        Ok(BlockingPooledModel::new(pollster::block_on(self.leases.acquire())?, &self.leases))
    }

    /// A lease if one is free and nobody waits for it. Never waits.
    ///
    /// # Errors
    /// `Closed`; `Unsupported` in a forked child.
    pub fn try_acquire(&self) -> Result<Option<BlockingPooledModel>, MullamaError> {
        let lease = self.leases.try_acquire()?;
        Ok(lease.map(|lease| BlockingPooledModel::new(lease, &self.leases)))
    }

    /// As [`BlockingModelPool::acquire`], for at most `limit`.
    ///
    /// # Errors
    /// `Timeout`, and those of [`BlockingModelPool::acquire`].
    pub fn acquire_timeout(&self, limit: Duration) -> Result<BlockingPooledModel, MullamaError> {
        let lease = block_on_for(self.leases.acquire(), limit).ok_or_else(|| timed_out(limit))??;
        Ok(BlockingPooledModel::new(lease, &self.leases))
    }

    /// Figures of the pool, now. Never waits.
    #[must_use]
    pub fn stats(&self) -> PoolStats {
        stats(&self.leases)
    }

    /// Changes how many leases may be out (1 to 256). Growing serves those who
    /// wait at once; shrinking takes no lease away.
    ///
    /// # Errors
    /// `InvalidInput` (field `size`), `OutOfMemory`, `Context`, `Closed`; the
    /// size is as it was then.
    pub fn resize(&self, size: usize) -> Result<(), MullamaError> {
        pollster::block_on(self.leases.resize(size))
    }

    /// Ends the pool: waiting calls and requests under way end as `Closed`,
    /// then the memory is freed. Blocks until that is done; may be called
    /// again.
    pub fn close(&self) {
        pollster::block_on(self.leases.close());
    }
}

impl fmt::Debug for BlockingModelPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlockingModelPool").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

/// A lease of a [`BlockingModelPool`]; all that a [`Model`] does, it does.
///
/// It goes back when it is dropped and its last request has ended. Its
/// requests are served one after the other. A clone of the model inside does
/// not prolong it: after the lease is back, its calls fail with `Closed`.
/// `close` of the model ends the lease and not the pool.
pub struct BlockingPooledModel {
    model: Model,
    lease: Arc<Lease>,
}

impl BlockingPooledModel {
    fn new(lease: Arc<Lease>, leases: &Leases) -> Self {
        Self { model: Model::leased(leases.engine().clone(), &lease), lease }
    }
}

impl Deref for BlockingPooledModel {
    type Target = Model;

    fn deref(&self) -> &Model {
        &self.model
    }
}

impl Drop for BlockingPooledModel {
    fn drop(&mut self) {
        self.lease.give_back();
    }
}

impl fmt::Debug for BlockingPooledModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlockingPooledModel").field("model", &self.model).finish_non_exhaustive()
    }
}

/// Runs a future on this thread, for at most `limit`; `None` when that passed.
fn block_on_for<F: Future>(future: F, limit: Duration) -> Option<F::Output> {
    struct Unpark(Thread);

    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }

    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    // A deadline past what the clock can tell is none.
    let deadline = Instant::now().checked_add(limit);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return Some(output);
        }
        match deadline {
            None => thread::park(),
            Some(deadline) => {
                let left = deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())?;
                thread::park_timeout(left);
            }
        }
    }
}
