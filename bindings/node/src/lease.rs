//! A model as JavaScript holds it: its own, or one on lease from a pool.
//!
//! A call holds the lease from the moment that it is made, so one that was
//! made before the lease was released, or lost sight of, still runs.

use mullama::{AsyncModel, MullamaError, PooledModel};
use std::{
    ops::Deref,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

pub(crate) struct Handle {
    model: AsyncModel,
    lease: Option<Mutex<Lease>>,
}

/// `None` once it was released.
type Lease = Option<Arc<PooledModel>>;

/// A model for one call. With the last one of a released lease that goes back.
pub(crate) struct Held {
    model: AsyncModel,
    _lease: Lease,
}

impl Handle {
    /// # Errors
    /// `Closed` when the lease was released.
    pub(crate) fn hold(&self) -> Result<Held, MullamaError> {
        let lease = self.lease().map(|lease| lease.clone().ok_or_else(|| MullamaError::Closed("the lease".to_owned())));
        Ok(Held { model: self.model.clone(), _lease: lease.transpose()? })
    }

    /// Idempotent.
    pub(crate) fn release(&self) {
        let released = self.lease().and_then(|mut lease| lease.take());
        // Not under the lock: whoever waits for the lease gets it now.
        drop(released);
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.lease().is_none_or(|lease| lease.is_some()) && self.model.is_ready()
    }

    fn lease(&self) -> Option<MutexGuard<'_, Lease>> {
        self.lease.as_ref().map(|lease| lease.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl From<AsyncModel> for Handle {
    fn from(model: AsyncModel) -> Self {
        Self { model, lease: None }
    }
}

impl From<PooledModel> for Handle {
    fn from(lease: PooledModel) -> Self {
        Self { model: lease.clone(), lease: Some(Mutex::new(Some(Arc::new(lease)))) }
    }
}

/// For facts, which a lease that was released still tells.
impl Deref for Handle {
    type Target = AsyncModel;

    fn deref(&self) -> &AsyncModel {
        &self.model
    }
}

impl Deref for Held {
    type Target = AsyncModel;

    fn deref(&self) -> &AsyncModel {
        &self.model
    }
}
