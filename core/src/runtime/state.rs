//! What a runtime, its tasks and its threads share: counts, and the way a
//! shutdown reaches them. It does not own the Tokio runtime, so whoever keeps
//! it does not keep the threads alive.
//!
//! Counting takes no lock: every task of the process's bindings passes here.

use super::RuntimeMetrics;
use crate::{
    engine::{Latch, totals},
    process,
};
use std::{
    cell::RefCell,
    collections::BTreeMap,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst},
    },
    time::Instant,
};

thread_local! {
    /// The runtime that this thread belongs to, if generations that start on
    /// it are to end with that runtime.
    static CURRENT: RefCell<Weak<State>> = const { RefCell::new(Weak::new()) };
}

/// The runtime of the calling thread.
pub(crate) fn current() -> Option<Arc<State>> {
    CURRENT.try_with(|current| current.borrow().upgrade()).ok().flatten()
}

/// See the module.
pub(crate) struct State {
    worker_threads: usize,
    started: Instant,
    /// Whether the runtime lives as long as the process. Its generations need
    /// no hook then.
    permanent: bool,
    /// Tasks that were started. Never less than `ended`.
    spawned: AtomicU64,
    /// Tasks that returned, panicked or were dropped.
    ended: AtomicU64,
    /// Threads of the runtime that exist, workers and blocking ones.
    threads: AtomicUsize,
    /// Set once: nothing new is admitted.
    stopping: AtomicBool,
    /// Rung when a thread starts, and when a task ends while stopping.
    changed: Condvar,
    changes: Mutex<()>,
    hooks: Mutex<Hooks>,
    /// Set when the Tokio runtime has been shut down.
    down: Latch<()>,
}

/// What is to be done at the beginning of a shutdown.
#[derive(Default)]
struct Hooks {
    next_id: u64,
    by_id: BTreeMap<u64, Hook>,
    /// The shutdown has begun; a hook that comes now runs at once.
    ran: bool,
}

type Hook = Box<dyn FnOnce() + Send>;

/// A hook's registration; dropping it takes the hook back.
pub(crate) struct OnStop {
    state: Weak<State>,
    id: u64,
}

/// One task's part in the counts; dropping it, with the task, counts the task
/// as ended.
pub(super) struct Counted(Arc<State>);

impl State {
    pub(super) fn new(worker_threads: usize, permanent: bool) -> Arc<Self> {
        Arc::new(Self {
            worker_threads,
            started: Instant::now(),
            permanent,
            spawned: AtomicU64::new(0),
            ended: AtomicU64::new(0),
            threads: AtomicUsize::new(0),
            stopping: AtomicBool::new(false),
            changed: Condvar::new(),
            changes: Mutex::new(()),
            hooks: Mutex::default(),
            down: Latch::new(),
        })
    }

    // Threads.

    /// Runs on each thread of the runtime before its first task.
    pub(super) fn thread_started(self: &Arc<Self>) {
        if !self.permanent {
            CURRENT.with(|current| current.replace(Arc::downgrade(self)));
        }
        self.threads.fetch_add(1, SeqCst);
        self.ring();
    }

    /// Runs on each thread of the runtime after its last task.
    pub(super) fn thread_stopped(&self) {
        self.threads.fetch_sub(1, SeqCst);
    }

    /// Waits until all workers run. From then on, threads beyond their number
    /// are blocking ones.
    pub(super) fn wait_for_workers(&self) {
        let mut guard = lock(&self.changes);
        while self.threads.load(SeqCst) < self.worker_threads {
            guard = self.changed.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
    }

    // Tasks.

    /// Counts a new task; `None` when none is admitted any more.
    pub(super) fn admit(self: &Arc<Self>) -> Option<Counted> {
        if process::is_forked_child() {
            return None;
        }
        // Counted first and checked afterwards: a shutdown either is seen here
        // or sees the task.
        self.spawned.fetch_add(1, SeqCst);
        if self.stopping.load(SeqCst) {
            self.spawned.fetch_sub(1, SeqCst);
            self.ring();
            return None;
        }
        Some(Counted(self.clone()))
    }

    /// Whether tasks are admitted and run.
    pub(crate) fn is_running(&self) -> bool {
        !self.stopping.load(SeqCst) && !process::is_forked_child()
    }

    pub(crate) fn metrics(&self) -> RuntimeMetrics {
        let totals = totals::totals();
        let ended = self.ended.load(SeqCst);
        let mean = totals.time.as_secs_f64() * 1000.0 / totals.generations.max(1) as f64;
        RuntimeMetrics {
            active_tasks: self.active(ended),
            completed_tasks: ended,
            worker_threads: self.worker_threads,
            blocking_threads: self.threads.load(SeqCst).saturating_sub(self.worker_threads),
            total_generations: totals.generations,
            avg_generation_ms: mean,
            uptime_seconds: self.started.elapsed().as_secs(),
        }
    }

    /// Tasks that live, given how many had ended a moment ago.
    fn active(&self, ended: u64) -> usize {
        usize::try_from(self.spawned.load(SeqCst).saturating_sub(ended)).unwrap_or(usize::MAX)
    }

    // The end.

    /// Admits nothing more and cancels what runs in the tasks. May be called
    /// again.
    pub(super) fn stop(&self) {
        if self.stopping.swap(true, SeqCst) {
            return;
        }
        let hooks = {
            let mut hooks = lock(&self.hooks);
            hooks.ran = true;
            std::mem::take(&mut hooks.by_id)
        };
        hooks.into_values().for_each(|hook| hook());
    }

    /// Has `hook` run when a shutdown begins, on the thread that begins it; at
    /// once if one has begun. It must not block.
    pub(crate) fn on_stop(self: &Arc<Self>, hook: impl FnOnce() + Send + 'static) -> OnStop {
        let mut hooks = lock(&self.hooks);
        let id = hooks.next_id;
        hooks.next_id += 1;
        if hooks.ran {
            drop(hooks);
            hook();
        } else {
            hooks.by_id.insert(id, Box::new(hook));
        }
        OnStop { state: Arc::downgrade(self), id }
    }

    /// Waits until at most `n` tasks live, or until `deadline`. Gives how many
    /// live then. Only while stopping: before, an end does not ring.
    pub(super) fn wait_for_tasks(&self, n: usize, deadline: Option<Instant>) -> usize {
        let mut guard = lock(&self.changes);
        loop {
            let active = self.active(self.ended.load(SeqCst));
            if active <= n {
                return active;
            }
            guard = match deadline {
                None => self.changed.wait(guard).unwrap_or_else(PoisonError::into_inner),
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return active;
                    }
                    self.changed.wait_timeout(guard, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    /// The Tokio runtime has been shut down.
    pub(super) fn went_down(&self) {
        self.down.set(());
    }

    /// Waits until the Tokio runtime has been shut down.
    pub(super) async fn wait_until_down(&self) {
        self.down.wait().await;
    }

    fn ring(&self) {
        // The lock orders this after a waiter's look at the counts.
        drop(lock(&self.changes));
        self.changed.notify_all();
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.ended.fetch_add(1, SeqCst);
        // Looked at after the count has changed: who waits has either seen the
        // count or is seen here.
        if self.0.stopping.load(SeqCst) {
            self.0.ring();
        }
    }
}

impl Drop for OnStop {
    fn drop(&mut self) {
        let Some(state) = self.state.upgrade().filter(|_| !process::is_forked_child()) else { return };
        // Dropped after the lock: a hook may own what locks it again.
        let hook = lock(&state.hooks).by_id.remove(&self.id);
        drop(hook);
    }
}

/// Nothing that can panic runs under these locks, so a poisoned one is whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    fn state() -> Arc<State> {
        State::new(1, false)
    }

    #[test]
    fn every_task_is_active_and_then_ended() {
        let state = state();
        let tasks: Vec<_> = (0..3).map(|_| state.admit().expect("admitted")).collect();
        assert_eq!((state.metrics().active_tasks, state.metrics().completed_tasks), (3, 0));
        drop(tasks);
        assert_eq!((state.metrics().active_tasks, state.metrics().completed_tasks), (0, 3));
    }

    #[test]
    fn a_stopping_runtime_admits_nothing_and_counts_nothing() {
        let state = state();
        let task = state.admit();
        state.stop();
        assert!(!state.is_running());
        assert!(state.admit().is_none());
        assert_eq!(state.metrics().active_tasks, 1);
        let waiting = {
            let state = state.clone();
            thread::spawn(move || state.wait_for_tasks(0, None))
        };
        drop(task);
        assert_eq!(waiting.join().unwrap(), 0);
    }

    #[test]
    fn waiting_for_tasks_ends_at_its_deadline() {
        let state = state();
        let _task = state.admit();
        state.stop();
        assert_eq!(state.wait_for_tasks(0, Some(Instant::now())), 1);
    }

    #[test]
    fn hooks_run_once_at_the_stop_and_late_ones_at_once() {
        let state = state();
        let runs = Arc::new(AtomicUsize::new(0));
        let hook = |runs: &Arc<AtomicUsize>| {
            let runs = runs.clone();
            move || _ = runs.fetch_add(1, SeqCst)
        };
        let kept = state.on_stop(hook(&runs));
        drop(state.on_stop(hook(&runs)));
        state.stop();
        state.stop();
        assert_eq!(runs.load(SeqCst), 1, "the one that was taken back does not run");
        let late = state.on_stop(hook(&runs));
        assert_eq!(runs.load(SeqCst), 2);
        drop((kept, late));
    }

    #[test]
    fn a_thread_knows_its_runtime_unless_that_is_permanent() {
        for permanent in [false, true] {
            let state = State::new(1, permanent);
            let thread = {
                let state = state.clone();
                thread::spawn(move || {
                    state.thread_started();
                    current().is_some_and(|current| Arc::ptr_eq(&current, &state))
                })
            };
            assert_eq!(thread.join().unwrap(), !permanent);
        }
        assert!(current().is_none());
    }
}
