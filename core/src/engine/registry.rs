//! All engines of the process, so that they can be ended before it exits.
//! Their threads run llama.cpp's code, which must not go on while the exit
//! destroys llama.cpp's static objects.

use super::Shared;
#[cfg(feature = "tokio-runtime")]
use super::kv_bytes_per_token;
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

struct State {
    running: BTreeMap<u64, Weak<Shared>>,
    next_id: u64,
}

static STATE: Mutex<State> = Mutex::new(State { running: BTreeMap::new(), next_id: 0 });

/// Rung when an engine's thread has ended.
static ENDED: Condvar = Condvar::new();

/// An engine's entry; dropping it, at the end of the engine's thread, takes
/// the entry out.
pub(super) struct Entry(u64);

/// Has all engines closed at exit. Called when llama.cpp was started and after
/// each load, both of which make static objects of its own.
pub(super) fn close_at_exit() {
    at_exit(close_all);
}

/// Enters an engine whose thread is about to run.
pub(super) fn enter(engine: Weak<Shared>) -> Entry {
    let mut state = lock();
    let id = state.next_id;
    state.next_id += 1;
    state.running.insert(id, engine);
    Entry(id)
}

impl Drop for Entry {
    fn drop(&mut self) {
        lock().running.remove(&self.0);
        ENDED.notify_all();
    }
}

/// Closes every model of the process and waits, at most two seconds, until
/// their threads have ended. Runs by itself when the process exits; a host
/// that tears itself down before that (an interpreter) calls it first. Models
/// can be loaded again afterwards. Does nothing in a forked child.
pub fn close_all() {
    if process::is_forked_child() {
        return;
    }
    let mut state = lock();
    for engine in state.running.values().filter_map(Weak::upgrade) {
        engine.inbox.close();
    }
    let limit = Instant::now() + EXIT_LIMIT;
    while !state.running.is_empty() {
        let Some(left) = limit.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) else { return };
        state = ENDED.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
    }
}

#[derive(Debug)]
/// One engine's figures, with its model's name and its number in the process.
#[cfg(feature = "tokio-runtime")]
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
    let engines: Vec<(u64, Arc<Shared>)> =
        lock().running.iter().filter_map(|(&id, engine)| Some((id, engine.upgrade()?))).collect();
    let figures = |(number, engine): (u64, Arc<Shared>)| {
        let model = engine.model()?;
        let metrics = engine.read_metrics(kv_bytes_per_token(&model, &engine.options));
        Some(Figures { number, model: model.info().name.clone(), metrics })
    };
    engines.into_iter().filter_map(figures).collect()
}

/// Nothing that can panic runs under the lock, so a poisoned one is whole.
fn lock() -> MutexGuard<'static, State> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}
