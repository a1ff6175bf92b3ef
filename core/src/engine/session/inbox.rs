//! How callers reach a session's thread: work goes in, in the order of the
//! calls, and a bell wakes the thread for cancellations, room in a stream's
//! buffer, and the end.

use super::work::Work;
use crate::{MullamaError, engine::ticket::Bell};
use std::{
    collections::VecDeque,
    sync::{
        Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

/// See the module. Unbounded on purpose: calls take a context by `&mut`, so
/// more than a few wait only where a caller lines them up itself.
#[derive(Default)]
pub(super) struct Inbox {
    state: Mutex<State>,
    bell: Condvar,
    /// Set once; read inside steps, so it is kept beside the lock.
    closing: AtomicBool,
}

#[derive(Default)]
struct State {
    work: VecDeque<Work>,
    /// The bell was rung since the thread last slept.
    rung: bool,
}

impl Bell for Inbox {
    fn notify(&self) {
        self.lock().rung = true;
        self.bell.notify_one();
    }
}

impl Inbox {
    /// Lines up work.
    ///
    /// # Errors
    /// `Closed`.
    pub(super) fn submit(&self, work: Work) -> Result<(), MullamaError> {
        let mut state = self.lock();
        // Under the lock: the thread's last look takes everything that was
        // accepted before it.
        if self.is_closing() {
            return Err(MullamaError::context_closed());
        }
        state.work.push_back(work);
        state.rung = true;
        drop(state);
        self.bell.notify_one();
        Ok(())
    }

    /// Lets nothing more in and tells the thread to end.
    pub(super) fn close(&self) {
        {
            let mut state = self.lock();
            self.closing.store(true, Ordering::Release);
            state.rung = true;
        }
        self.bell.notify_one();
    }

    pub(super) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    /// Waits for the next work; `None` when the session closes.
    pub(super) fn next(&self) -> Option<Work> {
        let mut state = self.lock();
        loop {
            if self.is_closing() {
                return None;
            }
            if let Some(work) = state.work.pop_front() {
                return Some(work);
            }
            state = self.bell.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Takes out all that waits.
    pub(super) fn drain(&self) -> VecDeque<Work> {
        std::mem::take(&mut self.lock().work)
    }

    /// Whether work waits that somebody still wants.
    pub(super) fn has_work(&self) -> bool {
        self.lock().work.iter().any(|work| !work.is_abandoned())
    }

    /// Sleeps until the bell rings, or until `deadline`.
    pub(super) fn sleep(&self, deadline: Option<Instant>) {
        let mut state = self.lock();
        while !std::mem::take(&mut state.rung) {
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
