//! How many threads a step should use, from what the kernel tells. Pure: no
//! FFI, no clock, no files.
//!
//! ggml's threads meet at a barrier after every operation, so one thread that
//! waits for a processor holds up all others: on two cores, a busy neighbour
//! makes two threads ten times slower than one. The threads shrink when the
//! waiting costs more than a thread is worth, and grow when processors have
//! stood idle, so no step is spent on trying. Growth that soon proves wrong is
//! tried again only after a while.
//!
//! Deliberately absent: systems whose kernel tells nothing (`trials`).

use std::time::{Duration, Instant};

/// Over which the waiting is weighed, in seconds: a host that takes a
/// processor for some milliseconds now and then is no reason to give it up.
const MEMORY: f64 = 0.08;

/// One of `n` threads is worth at most a share of `1 / n` of the speed; more
/// threads than one don't quite share the work evenly.
pub(super) const WORTH: f64 = 0.8;

/// Share of a step that a single thread may wait without being counted among
/// those to give up.
const LATE: f64 = 0.25;

/// Processors that must have stood idle before a thread is added: a little
/// less than one, since nothing is ever wholly idle, and more than where the
/// waiting that it meets would make it go again.
const IDLE: f64 = 0.7;

/// Growth that is taken back within this was wrong.
const SETTLED: Duration = Duration::from_secs(2);

/// How long the next growth waits after one that was wrong, at first and at
/// most: each one doubles it. The end of a load must not go unnoticed for long.
const HOLD: (Duration, Duration) = (Duration::from_millis(200), Duration::from_millis(600));

/// See the module.
#[derive(Debug, Clone)]
pub(crate) struct Governor {
    most: usize,
    now: usize,
    /// Seconds of the last steps, and those lost in them; older ones weigh
    /// less.
    total: f64,
    lost: f64,
    grown_at: Option<Instant>,
    hold: Duration,
    hold_until: Option<Instant>,
}

impl Governor {
    /// Starts with all `most` threads.
    pub(crate) fn new(most: usize) -> Self {
        let hold = Duration::ZERO;
        Self { most, now: most, total: MEMORY, lost: 0.0, grown_at: None, hold, hold_until: None }
    }

    pub(crate) fn threads(&self) -> usize {
        self.now
    }

    /// Whether idle processors would be of use.
    pub(crate) fn wants_more(&self) -> bool {
        self.now < self.most
    }

    /// From now on at most so many, since the process may use no more
    /// processors; at least one.
    pub(crate) fn limit(&mut self, most: usize) {
        self.most = most.max(1);
        self.now = self.now.min(self.most);
    }

    /// A step that ended at `at` took `elapsed`, and these are the times that
    /// each thread waited for a processor meanwhile.
    pub(crate) fn observe_step(&mut self, at: Instant, elapsed: Duration, waits: &[Duration]) {
        let seconds = elapsed.as_secs_f64();
        // While one waits, the others wait for it; seldom do two wait at once.
        let waited: f64 = waits.iter().map(Duration::as_secs_f64).sum();
        let fading = (-seconds / MEMORY).exp();
        self.total = self.total * fading + seconds;
        self.lost = self.lost * fading + waited.min(seconds);
        if self.now == 1 || self.lost < self.total * WORTH / self.now as f64 {
            return;
        }
        let limit = elapsed.mul_f64(LATE);
        let n_late = waits.iter().filter(|wait| **wait > limit).count();
        self.now = self.now.saturating_sub(n_late.max(1)).max(1);
        self.forget();
        if self.grown_at.take().is_some_and(|grown| at.saturating_duration_since(grown) < SETTLED) {
            self.hold = (self.hold * 2).clamp(HOLD.0, HOLD.1);
            self.hold_until = Some(at + self.hold);
        } else {
            self.hold = Duration::ZERO;
        }
    }

    /// So many processors stood idle over the last while, which ended at `at`.
    pub(crate) fn observe_idle(&mut self, at: Instant, processors: f64) {
        // 1.9 idle processors are two that did next to nothing.
        let more = (processors + 1.0 - IDLE).max(0.0) as usize;
        let now = (self.now + more).min(self.most);
        if now == self.now || self.hold_until.is_some_and(|until| at < until) {
            return;
        }
        self.now = now;
        self.grown_at = Some(at);
        self.forget();
    }

    /// The threads are others now: what was lost before says little.
    fn forget(&mut self) {
        (self.total, self.lost) = (MEMORY, 0.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUICK: Duration = Duration::from_millis(10);

    /// A governor, the time, and how to spend it.
    struct Run {
        governor: Governor,
        now: Instant,
    }

    impl Run {
        fn new(most: usize) -> Self {
            Self { governor: Governor::new(most), now: Instant::now() }
        }

        /// `n` steps of `elapsed` in which these threads waited so much of it.
        fn steps(&mut self, n: usize, elapsed: Duration, shares: &[f64]) -> usize {
            let waits: Vec<Duration> = shares.iter().map(|share| elapsed.mul_f64(*share)).collect();
            for _ in 0..n {
                self.now += elapsed;
                self.governor.observe_step(self.now, elapsed, &waits);
            }
            self.governor.threads()
        }

        fn idle(&mut self, after_ms: u64, processors: f64) -> usize {
            self.now += Duration::from_millis(after_ms);
            self.governor.observe_idle(self.now, processors);
            self.governor.threads()
        }
    }

    #[test]
    fn a_thread_that_waits_most_of_the_time_is_given_up_within_a_few_steps() {
        let mut run = Run::new(2);
        assert_eq!(run.steps(50, QUICK, &[0.0, 0.01]), 2);
        assert_eq!(run.steps(1, QUICK, &[0.8, 0.0]), 2, "one such step could be chance");
        assert_eq!(run.steps(8, QUICK, &[0.8, 0.0]), 1);
    }

    #[test]
    fn a_single_long_late_step_is_enough() {
        let mut run = Run::new(2);
        run.steps(50, QUICK, &[0.0, 0.0]);
        assert_eq!(run.steps(1, Duration::from_millis(100), &[0.9, 0.0]), 1);
    }

    #[test]
    fn waiting_that_costs_less_than_a_thread_is_worth_is_borne() {
        assert_eq!(Run::new(2).steps(500, QUICK, &[0.15, 0.15]), 2);
        assert_eq!(Run::new(8).steps(500, QUICK, &[0.11, 0.0]), 7, "one of eight is worth less");
        // Ten of every fifty milliseconds.
        let mut run = Run::new(2);
        for _ in 0..50 {
            run.steps(4, QUICK, &[0.0]);
            assert_eq!(run.steps(1, QUICK, &[0.95, 0.0]), 2);
        }
    }

    #[test]
    fn as_many_threads_go_as_were_late_but_one_stays() {
        let mut run = Run::new(8);
        assert_eq!(run.steps(1, QUICK.mul_f64(5.0), &[0.5, 0.5, 0.5]), 5);
        assert_eq!(run.steps(10, QUICK, &[0.5; 8]), 1);
    }

    #[test]
    fn threads_come_back_when_processors_are_idle() {
        let mut run = Run::new(4);
        assert_eq!(run.steps(20, QUICK, &[0.9; 4]), 1);
        assert!(run.governor.wants_more());
        assert_eq!(run.idle(200, 0.5), 1);
        assert_eq!(run.idle(200, 0.9), 2);
        assert_eq!(run.idle(200, 1.9), 4);
        assert_eq!(run.idle(200, 9.0), 4);
        assert!(!run.governor.wants_more());
    }

    #[test]
    fn growth_that_proves_wrong_is_tried_less_often_but_soon_enough() {
        let mut run = Run::new(2);
        let mut tries = 0;
        for _ in 0..50 {
            run.steps(20, QUICK, &[0.9, 0.0]);
            tries += usize::from(run.idle(0, 0.9) == 2);
        }
        assert!((8..20).contains(&tries), "{tries} in ten seconds");
        run.steps(20, QUICK, &[0.9, 0.0]);
        assert_eq!(run.idle(600, 0.9), 2);
        assert_eq!(run.steps(300, QUICK, &[0.0, 0.0]), 2);
        // It held, so the next load and its end are seen at once.
        assert_eq!(run.steps(20, QUICK, &[0.9, 0.0]), 1);
        assert_eq!(run.idle(200, 0.9), 2);
    }

    #[test]
    fn a_lower_limit_holds_at_once_and_a_higher_one_when_processors_are_idle() {
        let mut run = Run::new(4);
        run.governor.limit(2);
        assert_eq!(run.governor.threads(), 2);
        assert_eq!(run.idle(200, 4.0), 2);
        run.governor.limit(0);
        assert_eq!(run.governor.threads(), 1);
        run.governor.limit(4);
        assert_eq!(run.governor.threads(), 1);
        assert_eq!(run.idle(200, 3.0), 4);
    }
}
