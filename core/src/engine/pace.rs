//! How many threads a thread's decode steps use: what [`Governor`] decides,
//! fed by what the kernel tells. Owned by the thread that decodes.

use super::{
    cpu_load::{Idle, Waits, thread_ids},
    threads::Governor,
};
use crate::llama::Context;
use std::time::{Duration, Instant};

/// See the module.
pub(super) struct Pace {
    governor: Governor,
    waits: Waits,
    idle: Idle,
    most: usize,
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
        Self {
            governor: Governor::new(most),
            waits: Waits::of_threads_since(before),
            idle: Idle::new(),
            most,
        }
    }

    /// Threads of the next step.
    pub(super) fn threads(&self) -> usize {
        self.governor.threads()
    }

    /// A step begins.
    pub(super) fn start(&mut self) {
        self.waits.read();
    }

    /// A step took `elapsed`: the next uses fewer threads when they were kept
    /// waiting, more when there are processors for them. Gives the new number
    /// when it changed.
    pub(super) fn adapt(&mut self, context: &mut Context, elapsed: Duration) -> Option<usize> {
        if self.most == 1 {
            return None;
        }
        let before = self.governor.threads();
        self.governor.observe_step(elapsed, self.waits.read());
        if !self.governor.wants_more() {
            self.idle.reset();
        } else if let Some(processors) = self.idle.poll(Instant::now()) {
            self.governor.observe_idle(processors);
        }
        let now = self.governor.threads();
        if now == before {
            return None;
        }
        context.set_threads(now);
        tracing::debug!(threads = now, "decode threads changed");
        Some(now)
    }
}
