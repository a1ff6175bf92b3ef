//! How many threads a thread's decode steps use: what [`Governor`] decides from
//! what the kernel tells, or, where it tells nothing, [`Trials`] from the times
//! of the steps. Owned by the thread that decodes.

use super::{
    cpu_load::{Idle, Waits, thread_ids},
    threads::Governor,
    trials::Trials,
};
use crate::{config::available_threads, llama::Context};
use std::time::{Duration, Instant};

/// How often the affinity mask and the cgroup quota are looked at: they may
/// change while the process runs.
const LIMIT_INTERVAL: Duration = Duration::from_millis(500);

/// See the module.
pub(super) struct Pace {
    control: Control,
    /// Threads of the pool.
    most: usize,
    limit_read_at: Instant,
    step_start: Instant,
    n_rows: usize,
}

enum Control {
    Kernel { governor: Governor, waits: Waits, idle: Box<Idle> },
    Steps(Box<Trials>),
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
        let control = match (Waits::of_threads_since(before), Idle::new()) {
            (Some(waits), Some(idle)) if waits.len() == most => {
                Control::Kernel { governor: Governor::new(most), waits, idle: Box::new(idle) }
            }
            _ => Control::Steps(Box::new(Trials::new(most))),
        };
        if most > 1 && matches!(control, Control::Steps(_)) {
            tracing::debug!("the kernel does not tell of waiting threads; step times decide how many are used");
        }
        let now = Instant::now();
        Self { control, most, limit_read_at: now, step_start: now, n_rows: 0 }
    }

    /// A step of `n_rows` begins.
    pub(super) fn start(&mut self, n_rows: usize) {
        if self.most == 1 {
            return;
        }
        self.n_rows = n_rows;
        self.step_start = Instant::now();
        if let Control::Kernel { waits, idle, .. } = &mut self.control {
            waits.read();
            idle.rested_until(self.step_start);
        }
    }

    /// A step took `elapsed`: the next uses fewer threads when they were kept
    /// waiting, more when there are processors for them. Gives the new number
    /// when it changed.
    pub(super) fn adapt(&mut self, context: &mut Context, elapsed: Duration) -> Option<usize> {
        if self.most == 1 {
            return None;
        }
        let at = self.step_start + elapsed;
        let before = self.threads();
        if at.saturating_duration_since(self.limit_read_at) >= LIMIT_INTERVAL {
            self.limit_read_at = at;
            self.limit(available_threads().min(self.most));
        }
        match &mut self.control {
            Control::Steps(trials) => trials.observe_step(at, self.n_rows, elapsed),
            Control::Kernel { governor, waits, idle } => {
                governor.observe_step(at, elapsed, waits.read());
                idle.worked(at, before);
                if !governor.wants_more() || governor.threads() < before {
                    idle.reset();
                } else if let Some(processors) = idle.poll(at) {
                    governor.observe_idle(at, processors);
                }
            }
        }
        let now = self.threads();
        if now == before {
            return None;
        }
        context.set_threads(now);
        tracing::debug!(threads = now, "decode threads changed");
        Some(now)
    }

    fn threads(&self) -> usize {
        match &self.control {
            Control::Kernel { governor, .. } => governor.threads(),
            Control::Steps(trials) => trials.threads(),
        }
    }

    fn limit(&mut self, most: usize) {
        match &mut self.control {
            Control::Kernel { governor, .. } => governor.limit(most),
            Control::Steps(trials) => trials.limit(most),
        }
    }
}
