//! [`Handle`]: what a public model holds of its engine. One from a pool works
//! only while its lease is out. Any thread may use it.

use super::{Engine, Lease, Reader};
use crate::{MullamaError, StreamConfig, llama::Model};
use std::{
    ops::Deref,
    sync::{Arc, Weak},
};

/// See the module. Clones share the engine, and the lease if there is one.
#[derive(Clone)]
pub(crate) struct Handle {
    engine: Arc<Engine>,
    /// Weak: a copy of the handle does not prolong the lease.
    lease: Option<Weak<Lease>>,
}

impl Handle {
    pub(crate) fn new(engine: Engine) -> Self {
        Self { engine: Arc::new(engine), lease: None }
    }

    /// Of an engine whose requests need a lease.
    pub(crate) fn leased(engine: Arc<Engine>, lease: &Arc<Lease>) -> Self {
        Self { engine, lease: Some(Arc::downgrade(lease)) }
    }

    /// Keeps the engine alive.
    pub(crate) fn keep(&self) -> Arc<Engine> {
        self.engine.clone()
    }

    /// The engine, for what is made from it.
    ///
    /// # Errors
    /// `Closed` when the lease is back.
    pub(crate) fn engine(&self) -> Result<&Engine, MullamaError> {
        self.lease()?;
        Ok(&self.engine)
    }

    /// As [`Engine::model`].
    ///
    /// # Errors
    /// As there, and `Closed` when the lease is back.
    pub(crate) fn model(&self) -> Result<Arc<Model>, MullamaError> {
        self.lease()?;
        self.engine.model()
    }

    /// As [`Engine::submit`].
    ///
    /// # Errors
    /// As there, and `Closed` when the lease is back.
    pub(crate) fn submit(&self, prompt: &str, config: StreamConfig, stream: bool) -> Result<Reader, MullamaError> {
        self.engine.submit(prompt, config, stream, self.lease()?)
    }

    /// As [`Engine::is_ready`]; not when the lease is back.
    pub(crate) fn is_ready(&self) -> bool {
        self.lease().is_ok() && self.engine.is_ready()
    }

    /// As [`Engine::close`]; of a pool's model it ends the lease alone.
    pub(crate) async fn close(&self) {
        match &self.lease {
            None => self.engine.close().await,
            Some(lease) => drop(lease.upgrade().inspect(|lease| lease.give_back())),
        }
    }

    fn lease(&self) -> Result<Option<Arc<Lease>>, MullamaError> {
        let Some(lease) = &self.lease else { return Ok(None) };
        let lease = lease.upgrade().filter(|lease| !lease.is_returned());
        lease.map(Some).ok_or_else(|| MullamaError::Closed("the lease".to_owned()))
    }
}

impl Deref for Handle {
    type Target = Engine;

    fn deref(&self) -> &Engine {
        &self.engine
    }
}
