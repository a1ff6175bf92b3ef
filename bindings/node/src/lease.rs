//! A model as calls hold it: with the lease that it belongs to, if it came
//! from a pool.
//!
//! Each call and each stream holds a `Handle`, so a lease that JavaScript has
//! lost sight of goes back only when the last of them has ended.

use mullama::{AsyncModel, PooledModel};
use std::{
    ops::Deref,
    sync::{Arc, Mutex, PoisonError},
};

#[derive(Clone)]
pub(crate) struct Handle {
    model: AsyncModel,
    /// The lease is taken out, and so given back, by the first `release` or
    /// with the last handle.
    lease: Option<Arc<Mutex<Option<PooledModel>>>>,
}

impl Handle {
    pub(crate) fn release(&self) {
        let Some(lease) = &self.lease else { return };
        let taken = lease.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(taken);
    }
}

impl From<AsyncModel> for Handle {
    fn from(model: AsyncModel) -> Self {
        Self { model, lease: None }
    }
}

impl From<PooledModel> for Handle {
    fn from(lease: PooledModel) -> Self {
        Self { model: lease.clone(), lease: Some(Arc::new(Mutex::new(Some(lease)))) }
    }
}

impl Deref for Handle {
    type Target = AsyncModel;

    fn deref(&self) -> &AsyncModel {
        &self.model
    }
}
