//! How callers reach an engine's thread: requests go in, and a bell wakes the
//! thread for cancellations, room in a buffer, and the end.

use super::{
    lease::{Hold, Resized},
    request::Request,
    ticket::Bell,
};
use crate::MullamaError;
use std::{
    collections::VecDeque,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Instant,
};

/// See the module.
pub(crate) struct Inbox {
    state: Mutex<State>,
    bell: Condvar,
    /// Set once; read inside steps, so it is kept beside the lock.
    closing: AtomicBool,
    /// Requests that are submitted and not admitted, in this inbox and in the
    /// engine's own queue. Bounds the queue.
    n_waiting: AtomicUsize,
    /// Sequences that are served, as the engine last told.
    n_active: AtomicUsize,
    /// Sequences that may be served at once.
    max_concurrent: AtomicUsize,
    max_queue: usize,
}

/// A change of how many sequences are served at once.
pub(super) struct Resize {
    pub(super) n: usize,
    /// Who waits for more; whoever wants fewer does not wait.
    pub(super) done: Option<Arc<Resized>>,
}

impl Drop for Resize {
    fn drop(&mut self) {
        // Nothing happens when it was told already.
        if let Some(done) = &self.done {
            done.set(Err(MullamaError::model_closed()));
        }
    }
}

#[derive(Default)]
struct State {
    requests: VecDeque<Request>,
    resizes: VecDeque<Resize>,
    /// The bell was rung since the engine last looked.
    rung: bool,
}

impl Bell for Inbox {
    fn notify(&self) {
        self.lock().rung = true;
        self.bell.notify_one();
    }
}

impl Inbox {
    pub(crate) fn new(max_concurrent: usize, max_queue: usize) -> Self {
        Self {
            state: Mutex::default(),
            bell: Condvar::new(),
            closing: AtomicBool::new(false),
            n_waiting: AtomicUsize::new(0),
            n_active: AtomicUsize::new(0),
            max_concurrent: AtomicUsize::new(max_concurrent),
            max_queue,
        }
    }

    /// Hands a request to the engine.
    ///
    /// # Errors
    /// `Closed`, or `QueueFull` when all sequences are taken and `max_queue`
    /// requests wait. One that a free sequence is about to take does not wait:
    /// not that of a lease without another, whatever other leases line up.
    pub(crate) fn submit(&self, request: Request) -> Result<(), MullamaError> {
        let mut state = self.lock();
        // Under the lock: the engine's last look takes everything that was
        // accepted before it.
        if self.is_closing() {
            return Err(MullamaError::model_closed());
        }
        let has_own = request.lease.as_ref().is_some_and(Hold::is_first);
        let n_free = self.max_concurrent().saturating_sub(self.n_active.load(Ordering::Acquire));
        if !has_own && self.n_waiting.load(Ordering::Acquire) >= self.max_queue.saturating_add(n_free) {
            return Err(MullamaError::QueueFull { limit: self.max_queue });
        }
        self.n_waiting.fetch_add(1, Ordering::AcqRel);
        state.requests.push_back(request);
        state.rung = true;
        drop(state);
        self.bell.notify_one();
        Ok(())
    }

    /// Asks the engine for another number of sequences.
    ///
    /// # Errors
    /// `Closed`.
    pub(super) fn resize(&self, resize: Resize) -> Result<(), MullamaError> {
        let mut state = self.lock();
        if self.is_closing() {
            return Err(MullamaError::model_closed());
        }
        state.resizes.push_back(resize);
        state.rung = true;
        drop(state);
        self.bell.notify_one();
        Ok(())
    }

    /// The oldest change that was asked for.
    pub(super) fn next_resize(&self) -> Option<Resize> {
        self.lock().resizes.pop_front()
    }

    pub(super) fn max_concurrent(&self) -> usize {
        self.max_concurrent.load(Ordering::Acquire)
    }

    /// So many sequences are served at once from now on.
    pub(super) fn set_max_concurrent(&self, n: usize) {
        self.max_concurrent.store(n, Ordering::Release);
    }

    /// Lets nothing more in and tells the engine to end.
    pub(crate) fn close(&self) {
        {
            let mut state = self.lock();
            self.closing.store(true, Ordering::Release);
            state.rung = true;
        }
        self.bell.notify_one();
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    /// How many requests wait for admission.
    pub(crate) fn n_waiting(&self) -> usize {
        self.n_waiting.load(Ordering::Acquire)
    }

    /// So many sequences are served now.
    pub(super) fn set_active(&self, n: usize) {
        self.n_active.store(n, Ordering::Release);
    }

    /// A request left the queue: admitted, or over before that.
    pub(super) fn left_queue(&self) {
        self.n_waiting.fetch_sub(1, Ordering::AcqRel);
    }

    /// Moves what has arrived to `waiting`.
    pub(super) fn drain(&self, waiting: &mut VecDeque<Request>) {
        let mut state = self.lock();
        state.rung = false;
        waiting.append(&mut state.requests);
    }

    /// Sleeps until the bell rings, or until `deadline`.
    pub(super) fn sleep(&self, deadline: Option<Instant>) {
        let mut state = self.lock();
        while !state.rung {
            match deadline {
                None => state = self.bell.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(deadline) => {
                    let now = Instant::now();
                    let Some(left) = deadline.checked_duration_since(now).filter(|left| !left.is_zero()) else {
                        return;
                    };
                    state = self.bell.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
                }
            }
        }
    }

    /// Nothing that can panic runs under the lock, so a poisoned one is whole.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
