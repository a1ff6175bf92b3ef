//! How many threads a thread's decode steps use: what [`Governor`] decides,
//! fed by what the kernel tells. Owned by the thread that decodes.

use super::{
    cpu_load::{Idle, Waits, thread_ids},
    threads::Governor,
};
use crate::{config::available_threads, llama::Context};
use std::time::{Duration, Instant};

/// How often the affinity mask and the cgroup quota are looked at: both may
/// change while the process runs.
const LIMIT_INTERVAL: Duration = Duration::from_millis(200);

/// A longer time between two steps was not for work: the thread slept.
const WORK_BETWEEN_STEPS: Duration = Duration::from_millis(5);

/// See the module.
pub(super) struct Pace {
    governor: Governor,
    waits: Waits,
    idle: Idle,
    /// Threads of the pool.
    most: usize,
    limit_read_at: Instant,
    /// When the last step ended.
    step_end: Instant,
}

/// The threads of the process before a context with its pool is made, for
/// [`Pace::new`].
pub(super) fn threads_before() -> Vec<u32> {
    thread_ids()
}

impl Pace {
    /// For the calling thread and the pool of `most` threads, itself included,
    /// that it has started since `before`.
    pub(super) fn new(most: usize, before: &[u32]) -> Self {
        let now = Instant::now();
        Self {
            governor: Governor::new(most),
            waits: Waits::of_threads_since(before),
            idle: Idle::new(),
            most,
            limit_read_at: now,
            step_end: now,
        }
    }

    /// A step begins.
    pub(super) fn start(&mut self) {
        if self.most == 1 {
            return;
        }
        let rest = self.step_end.elapsed();
        if rest > WORK_BETWEEN_STEPS {
            self.idle.rested(self.governor.threads(), rest);
        }
        self.waits.read();
    }

    /// A step took `elapsed`: the next uses fewer threads when they were kept
    /// waiting or may no longer use as many processors, more when there are
    /// processors for them. Gives the new number when it changed.
    pub(super) fn adapt(&mut self, context: &mut Context, elapsed: Duration) -> Option<usize> {
        if self.most == 1 {
            return None;
        }
        let now = Instant::now();
        let before = self.governor.threads();
        if now.saturating_duration_since(self.limit_read_at) >= LIMIT_INTERVAL {
            self.limit_read_at = now;
            self.governor.limit(available_threads().min(self.most));
        }
        self.step_end = now;
        // The others of the pool aren't in the way of the step.
        let waits = self.waits.read();
        self.governor.observe_step(elapsed, &waits[..before.min(waits.len())]);
        if !self.governor.wants_more() {
            self.idle.reset();
        } else if let Some(processors) = self.idle.poll(now) {
            self.governor.observe_idle(processors);
        }
        let threads = self.governor.threads();
        if threads == before {
            return None;
        }
        context.set_threads(threads);
        tracing::debug!(threads, "decode threads changed");
        Some(threads)
    }
}
