//! How many threads a step should use. Pure: no FFI, no clock, no files.
//!
//! ggml's threads meet at a barrier after every operation, so one thread that
//! waits for a processor holds up all others: on two cores, a busy neighbour
//! makes two threads ten times slower than one. The threads shrink when they
//! were kept waiting, and grow when processors have stood idle, so no step is
//! spent on trying.

use std::time::Duration;

/// Share of a step that a thread may wait for a processor before that counts
/// as being kept waiting.
const LATE: f64 = 0.2;

/// Late steps in a row after which a thread is given up. One could be chance.
const LATE_STEPS: usize = 2;

/// A single late step this long is enough.
const LATE_AT_ONCE: Duration = Duration::from_millis(60);

/// Processors that must have stood idle before a thread is added; a little
/// less than one, since nothing is ever wholly idle.
const IDLE: f64 = 0.75;

/// See the module.
#[derive(Debug, Clone)]
pub(crate) struct Governor {
    most: usize,
    now: usize,
    late_steps: usize,
}

impl Governor {
    /// Starts with all `most` threads.
    pub(crate) fn new(most: usize) -> Self {
        Self { most, now: most, late_steps: 0 }
    }

    pub(crate) fn threads(&self) -> usize {
        self.now
    }

    /// From now on at most so many, since the process may use no more
    /// processors; at least one.
    pub(crate) fn limit(&mut self, most: usize) {
        self.most = most.max(1);
        self.now = self.now.min(self.most);
    }

    /// Whether idle processors would be of use.
    pub(crate) fn wants_more(&self) -> bool {
        self.now < self.most
    }

    /// A step took `elapsed`, and these are the times that each thread waited
    /// for a processor meanwhile.
    pub(crate) fn observe_step(&mut self, elapsed: Duration, waits: &[Duration]) {
        let limit = elapsed.mul_f64(LATE);
        let n_late = waits.iter().filter(|wait| **wait > limit).count();
        if n_late == 0 || self.now == 1 {
            self.late_steps = 0;
            return;
        }
        self.late_steps += 1;
        if self.late_steps >= LATE_STEPS || elapsed >= LATE_AT_ONCE {
            self.now = self.now.saturating_sub(n_late).max(1);
            self.late_steps = 0;
        }
    }

    /// So many processors stood idle over the last while.
    pub(crate) fn observe_idle(&mut self, processors: f64) {
        // 1.9 idle processors are two that did next to nothing.
        let more = (processors + 1.0 - IDLE).max(0.0) as usize;
        self.now = (self.now + more).min(self.most);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUICK: Duration = Duration::from_millis(10);

    fn late(n: usize) -> Vec<Duration> {
        vec![QUICK.mul_f64(0.5); n]
    }

    #[test]
    fn one_late_step_is_no_reason_but_two_are() {
        let mut governor = Governor::new(4);
        governor.observe_step(QUICK, &late(1));
        assert_eq!(governor.threads(), 4);
        governor.observe_step(QUICK, &[Duration::ZERO]);
        governor.observe_step(QUICK, &late(1));
        assert_eq!(governor.threads(), 4);
        governor.observe_step(QUICK, &late(1));
        assert_eq!(governor.threads(), 3);
    }

    #[test]
    fn a_long_late_step_is_enough() {
        let mut governor = Governor::new(2);
        governor.observe_step(Duration::from_millis(100), &[Duration::from_millis(50), Duration::ZERO]);
        assert_eq!(governor.threads(), 1);
    }

    #[test]
    fn as_many_threads_go_as_were_late_but_one_stays() {
        let mut governor = Governor::new(8);
        governor.observe_step(QUICK, &late(3));
        governor.observe_step(QUICK, &late(3));
        assert_eq!(governor.threads(), 5);
        for _ in 0..10 {
            governor.observe_step(QUICK, &late(8));
        }
        assert_eq!(governor.threads(), 1);
    }

    #[test]
    fn threads_come_back_when_processors_are_idle() {
        let mut governor = Governor::new(4);
        for _ in 0..10 {
            governor.observe_step(QUICK, &late(4));
        }
        assert!(governor.wants_more());
        governor.observe_idle(0.5);
        assert_eq!(governor.threads(), 1);
        governor.observe_idle(0.9);
        assert_eq!(governor.threads(), 2);
        governor.observe_idle(1.9);
        assert_eq!(governor.threads(), 4);
        governor.observe_idle(9.0);
        assert_eq!(governor.threads(), 4);
        assert!(!governor.wants_more());
    }
    #[test]
    fn a_lower_limit_holds_at_once_and_a_higher_one_when_processors_are_idle() {
        let mut governor = Governor::new(4);
        governor.limit(2);
        assert_eq!(governor.threads(), 2);
        governor.observe_idle(4.0);
        assert_eq!(governor.threads(), 2);
        governor.limit(0);
        assert_eq!(governor.threads(), 1);
        governor.limit(4);
        assert_eq!(governor.threads(), 1);
        assert!(governor.wants_more());
        governor.observe_idle(3.0);
        assert_eq!(governor.threads(), 4);
    }
}
