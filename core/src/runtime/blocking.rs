//! Blocking work that has not begun. A shutdown aborts it by name: Tokio's own
//! would let the threads of ended workers begin it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::{
    runtime,
    task::{AbortHandle, JoinHandle},
};

/// See the module.
#[derive(Default)]
pub(super) struct Blocking {
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    next_id: u64,
    by_id: BTreeMap<u64, AbortHandle>,
}

/// One task's entry; dropped when the work begins, or is given up before.
struct Entry {
    blocking: Arc<Blocking>,
    id: u64,
}

impl Blocking {
    /// As `spawn_blocking` of a Tokio runtime that is not shut down.
    pub(super) fn spawn<R: Send + 'static>(
        self: &Arc<Self>,
        tokio: &runtime::Runtime,
        work: impl FnOnce() -> R + Send + 'static,
    ) -> JoinHandle<R> {
        // Held until the entry is in, so that it is not taken out before.
        let mut waiting = self.lock();
        let entry = Entry { blocking: self.clone(), id: waiting.next_id };
        waiting.next_id += 1;
        let id = entry.id;
        let task = tokio.spawn_blocking(move || {
            drop(entry);
            work()
        });
        waiting.by_id.insert(id, task.abort_handle());
        task
    }

    /// Aborts what has not begun.
    pub(super) fn abort_waiting(&self) {
        // Aborted after the lock: what is dropped by it takes the lock.
        let waiting = std::mem::take(&mut self.lock().by_id);
        waiting.into_values().for_each(|task| task.abort());
    }

    /// Nothing that can panic runs under the lock, so a poisoned one is whole.
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let task = self.blocking.lock().by_id.remove(&self.id);
        drop(task);
    }
}
