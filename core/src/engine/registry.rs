//! All engines and contexts of the process, so that they can be ended before it exits.
//! Their threads run llama.cpp's code, which must not go on while the exit
//! destroys llama.cpp's static objects.

use crate::{llama::at_exit, process};
use std::{
    collections::BTreeMap,
    sync::{Condvar, Mutex, MutexGuard, PoisonError, Weak},
    time::{Duration, Instant},
};

/// Longest time that closing all engines may take.
const EXIT_LIMIT: Duration = Duration::from_secs(2);

/// What has a thread that must end before the process does.
pub(super) trait Close: Send + Sync {
    /// Tells the thread to end; does not wait for it.
    fn close(&self);
}

struct State {
    running: BTreeMap<u64, Weak<dyn Close>>,
    next_id: u64,
}

static STATE: Mutex<State> = Mutex::new(State { running: BTreeMap::new(), next_id: 0 });

/// Rung when a thread has ended.
static ENDED: Condvar = Condvar::new();

/// A thread's entry; dropping it, at the end of the thread, takes the entry
/// out.
pub(super) struct Entry(u64);

/// Has all engines closed at exit. Called when llama.cpp was started and after
/// each load, both of which make static objects of its own.
pub(super) fn close_at_exit() {
    at_exit(close_all);
}

/// Enters an engine or a context whose thread is about to run.
pub(super) fn enter(owner: Weak<dyn Close>) -> Entry {
    let mut state = lock();
    let id = state.next_id;
    state.next_id += 1;
    state.running.insert(id, owner);
    Entry(id)
}

impl Drop for Entry {
    fn drop(&mut self) {
        lock().running.remove(&self.0);
        ENDED.notify_all();
    }
}

/// Closes every model and context of the process and waits, at most two seconds, until
/// their threads have ended. Runs by itself when the process exits; a host
/// that tears itself down before that (an interpreter) calls it first. Models
/// can be loaded again afterwards. Does nothing in a forked child.
pub fn close_all() {
    if process::is_forked_child() {
        return;
    }
    let mut state = lock();
    for owner in state.running.values().filter_map(Weak::upgrade) {
        owner.close();
    }
    let limit = Instant::now() + EXIT_LIMIT;
    while !state.running.is_empty() {
        let Some(left) = limit.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) else { return };
        state = ENDED.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
    }
}

/// Nothing that can panic runs under the lock, so a poisoned one is whole.
fn lock() -> MutexGuard<'static, State> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}
