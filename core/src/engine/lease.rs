//! A pool's leases: permits on one engine, each good for one of its sequences.
//!
//! There are never more leases out than the engine has sequences, and each has
//! one request served at a time (`Worker::admit`), so none waits for another.
//! A lease is back when its handle is dropped and its last request has left
//! the engine. Any thread may call what is here.

use super::{Engine, latch::Latch, permits::Permits};
use crate::{MullamaError, config::MAX_SEQUENCES};
use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

/// An engine whose requests need a lease.
pub(crate) struct Leases {
    engine: Arc<Engine>,
    permits: Arc<Permits>,
    /// One permit: who changes the size goes after the one before.
    turn: Arc<Permits>,
    /// The engine is being enlarged for a size that the permits do not have
    /// yet, so it must not be made smaller to fit theirs.
    growing: Mutex<bool>,
}

/// The right to one sequence. Held by the handle and by each of its requests.
pub(crate) struct Lease {
    leases: Arc<Leases>,
    /// Set when the handle was dropped: nothing more may be submitted.
    returned: AtomicBool,
    /// Requests that have not left the engine.
    n_requests: AtomicUsize,
}

/// What a request holds of its lease, until it has left the engine.
pub(crate) struct Hold {
    lease: Arc<Lease>,
    is_first: bool,
}

impl Leases {
    pub(crate) fn new(engine: Arc<Engine>, size: usize) -> Arc<Self> {
        let leases = Self {
            engine,
            permits: Arc::new(Permits::new(size, "the pool")),
            turn: Arc::new(Permits::new(1, "the pool")),
            growing: Mutex::new(false),
        };
        Arc::new(leases)
    }

    pub(crate) fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    pub(crate) fn permits(&self) -> &Permits {
        &self.permits
    }

    /// Waits for a lease.
    ///
    /// # Errors
    /// `Closed`; `Unsupported` in a forked child.
    pub(crate) async fn acquire(self: &Arc<Self>) -> Result<Arc<Lease>, MullamaError> {
        crate::process::check()?;
        self.permits.acquire().await?;
        Ok(self.lease())
    }

    /// A lease if one is free and nobody waits for it.
    ///
    /// # Errors
    /// As [`Leases::acquire`].
    pub(crate) fn try_acquire(self: &Arc<Self>) -> Result<Option<Arc<Lease>>, MullamaError> {
        crate::process::check()?;
        Ok(self.permits.try_acquire()?.then(|| self.lease()))
    }

    fn lease(self: &Arc<Self>) -> Arc<Lease> {
        Arc::new(Lease { leases: self.clone(), returned: AtomicBool::new(false), n_requests: AtomicUsize::new(0) })
    }

    /// Changes how many leases there may be. Growing waits until the engine
    /// has sequences for them.
    ///
    /// # Errors
    /// `InvalidInput`, `OutOfMemory`, `Context`, `Closed`; the size stays then.
    pub(crate) async fn resize(&self, size: usize) -> Result<(), MullamaError> {
        check_size(size)?;
        crate::process::check()?;
        self.turn.acquire().await?;
        let _turn = Turn(&self.turn);
        if size > self.permits.counts().size {
            let _growing = Growing::begin(self, size);
            self.engine.grow(size)?.wait().await?;
            self.permits.resize(size);
        } else {
            self.permits.resize(size);
            self.shrink_engine(self.engine.max_concurrent());
        }
        Ok(())
    }

    /// Ends all waits and the engine.
    pub(crate) async fn close(&self) {
        if crate::process::is_forked_child() {
            return;
        }
        self.turn.close();
        self.permits.close();
        self.engine.close().await;
    }

    /// Gives back the memory of sequences that no lease can use any more.
    /// `n` is how many the engine has, or is about to have.
    fn shrink_engine(&self, n: usize) {
        // Held until the engine knows, so that what grows it comes after.
        let growing = self.lock_growing();
        let counts = self.permits.counts();
        if !*growing && counts.in_use <= counts.size && counts.size < n {
            self.engine.shrink(counts.size);
        }
    }

    /// Nothing that can panic runs under the lock, so a poisoned one is whole.
    fn lock_growing(&self) -> MutexGuard<'_, bool> {
        self.growing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// # Errors
/// `InvalidInput`.
pub(crate) fn check_size(size: usize) -> Result<(), MullamaError> {
    if (1..=MAX_SEQUENCES).contains(&size) {
        return Ok(());
    }
    Err(MullamaError::invalid("size", size, format!("use 1 to {MAX_SEQUENCES}")))
}

/// The result of a change of an engine's size.
pub(crate) type Resized = Latch<Result<(), MullamaError>>;

struct Turn<'a>(&'a Permits);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if crate::process::is_forked_child() {
            return;
        }
        self.0.release();
    }
}

struct Growing<'a> {
    leases: &'a Leases,
    size: usize,
}

impl<'a> Growing<'a> {
    fn begin(leases: &'a Leases, size: usize) -> Self {
        *leases.lock_growing() = true;
        Self { leases, size }
    }
}

impl Drop for Growing<'_> {
    fn drop(&mut self) {
        if crate::process::is_forked_child() {
            return;
        }
        *self.leases.lock_growing() = false;
        // After a wait that was given up, the engine is larger than the permits
        // are, or will be when it comes to what was asked.
        self.leases.shrink_engine(self.size.max(self.leases.engine.max_concurrent()));
    }
}

impl Lease {
    pub(crate) fn give_back(&self) {
        self.returned.store(true, Ordering::Release);
    }

    pub(crate) fn is_returned(&self) -> bool {
        self.returned.load(Ordering::Acquire)
    }
}

impl Hold {
    pub(super) fn new(lease: Arc<Lease>) -> Self {
        let is_first = lease.n_requests.fetch_add(1, Ordering::AcqRel) == 0;
        Self { lease, is_first }
    }

    /// Whether the lease had no other request, so that its sequence is free
    /// for this one.
    pub(super) fn is_first(&self) -> bool {
        self.is_first
    }

    /// Whether both are of one lease.
    pub(super) fn is_of(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.lease, &other.lease)
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.lease.n_requests.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if crate::process::is_forked_child() {
            return;
        }
        self.leases.permits.release();
        self.leases.shrink_engine(self.leases.engine.max_concurrent());
    }
}
