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

/// How often the affinity mask and the cgroup quota are looked at: both may
/// change while the process runs.
const LIMIT_INTERVAL: Duration = Duration::from_millis(200);

/// A longer time between two steps was not for work: the thread slept.
const WORK_BETWEEN_STEPS: Duration = Duration::from_millis(5);

/// See the module.
pub(super) struct Pace {
    control: Control,
    /// Threads of the pool.
    most: usize,
    limit_read_at: Instant,
    /// When the work of the last step ended.
    step_end: Instant,
}

enum Control {
    Kernel { governor: Governor, waits: Waits, idle: Idle },
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
        let waits = Waits::of_threads_since(before);
        let control = if waits.len() == most && Idle::is_known() {
            Control::Kernel { governor: Governor::new(most), waits, idle: Idle::new() }
        } else {
            tracing::debug!("the system tells nothing of waiting threads: the times of steps decide how many are used");
            Control::Steps(Box::new(Trials::new(most)))
        };
        let now = Instant::now();
        Self { control, most, limit_read_at: now, step_end: now }
    }

    /// A step begins.
    pub(super) fn start(&mut self) {
        if self.most == 1 {
            return;
        }
        if let Control::Kernel { governor, waits, idle } = &mut self.control {
            let rest = self.step_end.elapsed();
            if rest > WORK_BETWEEN_STEPS {
                idle.rested(governor.threads(), rest);
            }
            waits.read();
        }
    }

    /// A step of `n_rows`, or with `None` a piece of one, took `elapsed`: the next uses fewer threads when they
    /// were kept waiting or may no longer use as many processors, more when
    /// there are processors for them. Gives the new number when it changed.
    pub(super) fn adapt(&mut self, context: &mut Context, n_rows: Option<usize>, elapsed: Duration) -> Option<usize> {
        if self.most == 1 {
            return None;
        }
        let now = Instant::now();
        self.step_end = now;
        let before = self.threads();
        if now.saturating_duration_since(self.limit_read_at) >= LIMIT_INTERVAL {
            self.limit_read_at = now;
            self.limit(available_threads().min(self.most));
        }
        match &mut self.control {
            Control::Steps(trials) => {
                // Pieces can't be compared.
                if let Some(n_rows) = n_rows {
                    trials.observe_step(now, n_rows, elapsed);
                }
            }
            Control::Kernel { governor, waits, idle } => {
                // The others of the pool aren't in the way of the step.
                let waits = waits.read();
                governor.observe_step(elapsed, &waits[..before.min(waits.len())]);
                if !governor.wants_more() {
                    idle.reset();
                } else if let Some(processors) = idle.poll(now) {
                    governor.observe_idle(processors);
                }
            }
        }
        let threads = self.threads();
        if threads == before {
            return None;
        }
        context.set_threads(threads);
        tracing::debug!(threads, "decode threads changed");
        Some(threads)
    }

    /// What follows a step is done too: from now on its threads rest.
    pub(super) fn rest(&mut self) {
        self.step_end = Instant::now();
    }

    /// Threads of the next step.
    pub(super) fn threads(&self) -> usize {
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
