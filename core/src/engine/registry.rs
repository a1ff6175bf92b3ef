//! All engines and contexts of the process, so that they can be ended before it exits.
//! Their threads run llama.cpp's code, which must not go on while the exit
//! destroys llama.cpp's static objects.

#[cfg(feature = "tokio-runtime")]
use crate::EngineMetrics;
use crate::{llama::at_exit, process};
#[cfg(feature = "tokio-runtime")]
use std::sync::Arc;
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

    /// The name of a model's engine and its figures; `None` for what is none.
    #[cfg(feature = "tokio-runtime")]
    fn figures(&self) -> Option<(String, EngineMetrics)> {
        None
    }
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

/// One engine's figures, with its model's name and its number in the process.
#[cfg(feature = "tokio-runtime")]
#[derive(Debug)]
pub(crate) struct Figures {
    pub(crate) number: u64,
    pub(crate) model: String,
    pub(crate) metrics: EngineMetrics,
}

/// The figures of all engines whose model is loaded, oldest first. Nothing in
/// a forked child.
#[cfg(feature = "tokio-runtime")]
pub(crate) fn all_metrics() -> Vec<Figures> {
    if process::is_forked_child() {
        return Vec::new();
    }
    // Collected first, so that no other lock is taken under this one.
    let owners: Vec<(u64, Arc<dyn Close>)> =
        lock().running.iter().filter_map(|(&id, owner)| Some((id, owner.upgrade()?))).collect();
    let figures = |(number, owner): (u64, Arc<dyn Close>)| {
        let (model, metrics) = owner.figures()?;
        Some(Figures { number, model, metrics })
    };
    owners.into_iter().filter_map(figures).collect()
}

/// Nothing that can panic runs under the lock, so a poisoned one is whole.
fn lock() -> MutexGuard<'static, State> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}
