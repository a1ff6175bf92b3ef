//! [`ModelPool`], for async code on any executor.

use super::{PoolStats, load, stats, timed_out};
use crate::{
    AsyncConfig, AsyncModel, ModelOptions, MullamaError,
    engine::{Lease, Leases},
    runtime::timer,
};
use std::{fmt, future::poll_fn, ops::Deref, path::Path, pin::pin, sync::Arc, task::Poll, time::Duration};

/// A number of leases on one loaded model.
///
/// A lease is a guarantee: its requests never wait for those of another one,
/// because there are never more leases out than the engine serves sequences at
/// once. All share one copy of the weights; the KV cache is what a larger pool
/// costs. Whoever finds no lease free waits, first come first served.
///
/// Cheap to clone; all clones are one pool.
///
/// ```no_run
/// # async fn example() -> Result<(), mullama::MullamaError> {
/// use mullama::{AsyncConfig, ModelPool};
///
/// let config = AsyncConfig { model_path: "model.gguf".into(), ..Default::default() };
/// let pool = ModelPool::new(config, 4).await?;
/// let model = pool.acquire().await?;
/// println!("{}", model.generate("Once upon a time", 40).await?);
/// drop(model);
/// assert_eq!(pool.stats().available, 4);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct ModelPool {
    leases: Arc<Leases>,
}

impl ModelPool {
    /// Loads the model that the configuration names, for `size` leases (1 to
    /// 256). `max_concurrent` of the configuration is not used: `size` stands
    /// in its place. Dropping the future stops the load.
    ///
    /// # Errors
    /// `InvalidInput` (field `size`), and those of [`AsyncModel::load_with`].
    pub async fn new(config: AsyncConfig, size: usize) -> Result<Self, MullamaError> {
        let (path, options) = config.into_options();
        Self::with_options(path, options, size).await
    }

    /// As [`ModelPool::new`], with every option of a load.
    ///
    /// # Errors
    /// As [`ModelPool::new`].
    pub async fn with_options(
        path: impl AsRef<Path>,
        options: ModelOptions,
        size: usize,
    ) -> Result<Self, MullamaError> {
        Ok(Self { leases: load(path.as_ref(), options, size).await? })
    }

    /// Waits for a lease, first come first served; the place in the queue is
    /// taken at the first poll. Dropping the future gives it up.
    ///
    /// # Errors
    /// `Closed`, also when the pool is closed while this waits; `Unsupported`
    /// in a forked child.
    pub async fn acquire(&self) -> Result<PooledModel, MullamaError> {
        Ok(PooledModel::new(self.leases.acquire().await?, &self.leases))
    }

    /// A lease if one is free and nobody waits for it. Never waits.
    ///
    /// # Errors
    /// `Closed`; `Unsupported` in a forked child.
    pub fn try_acquire(&self) -> Result<Option<PooledModel>, MullamaError> {
        let lease = self.leases.try_acquire()?;
        Ok(lease.map(|lease| PooledModel::new(lease, &self.leases)))
    }

    /// As [`ModelPool::acquire`], for at most `limit`.
    ///
    /// # Errors
    /// `Timeout`, and those of [`ModelPool::acquire`].
    pub async fn acquire_timeout(&self, limit: Duration) -> Result<PooledModel, MullamaError> {
        if let Some(lease) = self.try_acquire()? {
            return Ok(lease);
        }
        let (mut timer, mut acquire) = (pin!(timer::sleep(limit)?), pin!(self.acquire()));
        poll_fn(|context| match acquire.as_mut().poll(context) {
            Poll::Pending => timer.as_mut().poll(context).map(|()| Err(timed_out(limit))),
            ready => ready,
        })
        .await
    }

    /// Figures of the pool, now. Never waits.
    #[must_use]
    pub fn stats(&self) -> PoolStats {
        stats(&self.leases)
    }

    /// Changes how many leases may be out (1 to 256).
    ///
    /// Growing serves those who wait at once, as soon as the engine has room
    /// for them; what it computes goes on, and the weights are not loaded
    /// again. For a moment the old and the new KV cache are both there.
    /// Shrinking takes no lease away: those past the new size end as their
    /// holders give them back, and then the memory is given back.
    ///
    /// Dropping the future leaves the pool at the old or the new size.
    ///
    /// # Errors
    /// `InvalidInput` (field `size`), `OutOfMemory`, `Context`, `Closed`; the
    /// size is as it was then.
    pub async fn resize(&self, size: usize) -> Result<(), MullamaError> {
        self.leases.resize(size).await
    }

    /// Ends the pool: waiting calls and requests under way end as `Closed`,
    /// then the memory is freed. Waits for that; may be called again.
    pub async fn close(&self) {
        self.leases.close().await;
    }
}

impl fmt::Debug for ModelPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ModelPool").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

/// A lease of a [`ModelPool`]; all that an [`AsyncModel`] does, it does.
///
/// It goes back when it is dropped and its last request has ended. Its
/// requests are served one after the other. A clone of the model inside does
/// not prolong it: after the lease is back, its calls fail with `Closed`.
/// `close` of the model ends the lease and not the pool.
pub struct PooledModel {
    model: AsyncModel,
    lease: Arc<Lease>,
}

impl PooledModel {
    fn new(lease: Arc<Lease>, leases: &Leases) -> Self {
        Self { model: AsyncModel::leased(leases.engine().clone(), &lease), lease }
    }
}

impl Deref for PooledModel {
    type Target = AsyncModel;

    fn deref(&self) -> &AsyncModel {
        &self.model
    }
}

impl Drop for PooledModel {
    fn drop(&mut self) {
        self.lease.give_back();
    }
}

impl fmt::Debug for PooledModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PooledModel").field("model", &self.model).finish_non_exhaustive()
    }
}
