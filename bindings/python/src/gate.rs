//! Keeps threads from entering Python once the interpreter is about to end.
//!
//! Before Python 3.14 a thread that asks for the GIL during finalization is
//! ended by `pthread_exit`; unwinding Rust frames that way aborts the process.
//! So every thread of ours that is about to ask for the GIL passes the gate
//! first. `atexit` closes it and waits until those inside are through; who
//! comes later never gets to ask.

use std::{
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, ThreadId},
};

/// The gate of the process, closed by `shutdown`.
pub(crate) static EXIT: Gate = Gate::new();

pub(crate) struct Gate {
    state: Mutex<State>,
    /// Told each time that a ticket is given back.
    left: Condvar,
}

struct State {
    /// Threads that hold a ticket: they may be asking for the GIL.
    inside: usize,
    /// The thread that closed the gate. It runs the interpreter's end, so it
    /// alone may still pass: an exit handler that runs later may use mullama.
    closed_by: Option<ThreadId>,
}

/// The right to ask for the GIL, until it is dropped.
pub(crate) struct Ticket<'g>(&'g Gate);

impl Gate {
    const fn new() -> Self {
        Self { state: Mutex::new(State { inside: 0, closed_by: None }), left: Condvar::new() }
    }

    /// Whether the thread may still pass.
    pub(crate) fn is_open_to(&self, thread: ThreadId) -> bool {
        self.lock().is_open_to(thread)
    }

    /// `None` when the gate is closed: the thread must not ask for the GIL.
    pub(crate) fn try_pass(&self) -> Option<Ticket<'_>> {
        let mut state = self.lock();
        if !state.is_open_to(thread::current().id()) {
            return None;
        }
        state.inside += 1;
        Some(Ticket(self))
    }

    /// Like `try_pass`, for a Python thread that has released the GIL: there
    /// is nothing it may return to, so a closed gate holds it until the
    /// process ends.
    pub(crate) fn pass(&self) -> Ticket<'_> {
        loop {
            if let Some(ticket) = self.try_pass() {
                return ticket;
            }
            thread::park();
        }
    }

    /// Lets nobody in any more and waits until those inside are out. The
    /// caller must not hold the GIL: they are waiting for it.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.closed_by = Some(thread::current().id());
        while state.inside > 0 {
            state = self.left.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn is_open_to(&self, thread: ThreadId) -> bool {
        self.closed_by.is_none_or(|closer| closer == thread)
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        self.0.lock().inside -= 1;
        self.0.left.notify_all();
    }
}
