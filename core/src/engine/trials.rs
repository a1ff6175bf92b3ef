//! How many threads a step should use where the kernel doesn't tell: by
//! trying. Pure: no FFI, no clock, no files.
//!
//! A step is compared with the quickest one of its size. When steps take much
//! longer than that, one thread less is tried; after a while, and with
//! back-off, one more. What a few steps with the other number show decides,
//! so a wrong guess, for instance because prompts got longer, costs those
//! steps and no more. Now and then fewer are tried without a reason: the
//! neighbour may have been there from the start.

use std::time::{Duration, Instant};

/// One of `n` threads is worth at most a share of `1 / n` of the speed; more
/// threads than one don't quite share the work evenly.
const WORTH: f64 = 0.8;

/// Steps that a trial takes.
const TRIAL_STEPS: u32 = 3;

/// A trial with steps this much slower than before is over at once.
const HOPELESS: f64 = 2.0;

/// Another number of threads must be better by this to be kept.
const BETTER: f64 = 0.95;

/// Weight of the newest step in the mean of the present cost.
const NEWEST: f64 = 0.3;

/// How much the cost of the quickest step rises with each later one, so that
/// it does not stay for ever what it was once.
const DRIFT: f64 = 1.0005;

/// Time until more threads are tried, at first and at most; doubled by each
/// trial that fails.
const HOLD_MORE: (Duration, Duration) = (Duration::from_millis(300), Duration::from_secs(3));

/// The same for fewer threads without a reason.
const HOLD_FEWER: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(60));

/// Sizes of steps that are told apart: powers of two of their rows.
const SIZES: usize = 16;

/// See the module.
#[derive(Debug, Clone)]
pub(crate) struct Trials {
    most: usize,
    now: usize,
    /// Seconds of the quickest step of each size.
    quickest: [Option<f64>; SIZES],
    /// Mean cost of the last steps with `now` threads, in quickest steps.
    cost: Option<f64>,
    trial: Option<Trial>,
    more: Hold,
    fewer: Hold,
}

/// Another number of threads, for some steps.
#[derive(Debug, Clone)]
struct Trial {
    /// The number before, and what a step cost with it.
    from: usize,
    before: f64,
    steps: u32,
    sum: f64,
}

/// When to try next, and how long to wait after a failure.
#[derive(Debug, Clone)]
struct Hold {
    bounds: (Duration, Duration),
    length: Duration,
    until: Option<Instant>,
}

impl Hold {
    fn new(bounds: (Duration, Duration)) -> Self {
        Self { bounds, length: bounds.0, until: None }
    }

    /// Whether its time has come; it begins with the first question.
    fn is_over(&mut self, at: Instant) -> bool {
        at >= *self.until.get_or_insert(at + self.length)
    }

    fn again(&mut self, at: Instant, failed: bool) {
        self.length = if failed { (self.length * 2).min(self.bounds.1) } else { self.bounds.0 };
        self.until = Some(at + self.length);
    }
}

impl Trials {
    /// Starts with all `most` threads.
    pub(crate) fn new(most: usize) -> Self {
        Self {
            most,
            now: most,
            quickest: [None; SIZES],
            cost: None,
            trial: None,
            more: Hold::new(HOLD_MORE),
            fewer: Hold::new(HOLD_FEWER),
        }
    }

    pub(crate) fn threads(&self) -> usize {
        self.now
    }

    /// From now on at most so many, since the process may use no more
    /// processors; at least one.
    pub(crate) fn limit(&mut self, most: usize) {
        self.most = most.max(1);
        if self.now > self.most {
            self.now = self.most;
            (self.trial, self.cost) = (None, None);
        }
    }

    /// A step of so many rows, which ended at `at`, took `elapsed`.
    pub(crate) fn observe_step(&mut self, at: Instant, n_rows: usize, elapsed: Duration) {
        let seconds = elapsed.as_secs_f64();
        let size = (n_rows.max(1).ilog2() as usize).min(SIZES - 1);
        let quickest = match &mut self.quickest[size] {
            // The first of a size prepares much that the later ones find.
            first @ None => {
                *first = Some(seconds);
                return;
            }
            // A trial needs the same measure as what went before it.
            Some(quickest) if self.trial.is_some() => *quickest,
            Some(quickest) => {
                *quickest = seconds.min(*quickest * DRIFT);
                *quickest
            }
        };
        let cost = seconds / quickest;
        if let Some(trial) = &mut self.trial {
            trial.steps += 1;
            trial.sum += cost;
            let mean = trial.sum / f64::from(trial.steps);
            if trial.steps >= TRIAL_STEPS || cost > trial.before * HOPELESS {
                let (from, before) = (trial.from, trial.before);
                self.conclude(at, from, before, mean);
            }
            return;
        }
        let mean = self.cost.map_or(cost, |mean| mean + NEWEST * (cost - mean));
        self.cost = Some(mean);
        // What the work costs at best with fewer threads than all.
        let share = self.most as f64 / self.now as f64;
        let lost = 1.0 - share / mean;
        if self.now > 1 && (lost > WORTH / self.now as f64 || self.fewer.is_over(at)) {
            // Half of them when most of the time is lost: as long as one too
            // many is left, fewer don't help.
            let fewer = if lost > 0.5 { self.now / 2 } else { self.now - 1 };
            self.try_threads(fewer.max(1), mean);
        } else if self.now < self.most && self.more.is_over(at) {
            self.try_threads(self.now + 1, mean);
        }
    }

    fn try_threads(&mut self, threads: usize, before: f64) {
        self.trial = Some(Trial { from: self.now, before, steps: 0, sum: 0.0 });
        self.now = threads;
    }

    /// A trial showed `mean` where `before` had been the cost.
    fn conclude(&mut self, at: Instant, from: usize, before: f64, mean: f64) {
        self.trial = None;
        let was_more = self.now > from;
        let is_better = mean < before * BETTER;
        let hold = if was_more { &mut self.more } else { &mut self.fewer };
        hold.again(at, !is_better);
        if is_better {
            self.cost = Some(mean);
            // To go on in the same direction, or to go back, both soon.
            self.more.until = None;
            return;
        }
        self.now = from;
        self.cost = Some(before);
        if !was_more {
            // It is not for the threads that the steps take so long: it is
            // what they cost now.
            let factor = (before * from as f64 / self.most as f64).max(1.0);
            self.quickest.iter_mut().flatten().for_each(|quickest| *quickest *= factor);
            self.cost = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two processors, or more, of which some are taken.
    struct Machine {
        trials: Trials,
        now: Instant,
        processors: usize,
        taken: usize,
        /// Seconds of a step with one thread.
        work: f64,
    }

    impl Machine {
        fn new(processors: usize) -> Self {
            Self { trials: Trials::new(processors), now: Instant::now(), processors, taken: 0, work: 0.02 }
        }

        /// Runs for so long and gives the speed, as the share of what the best
        /// number of threads would give.
        fn run(&mut self, seconds: f64, n_rows: usize) -> f64 {
            let best = self.step_time(self.processors.saturating_sub(self.taken).max(1));
            let (mut spent, mut steps) = (0.0, 0.0);
            while spent < seconds {
                let elapsed = self.step_time(self.trials.threads());
                self.now += Duration::from_secs_f64(elapsed);
                self.trials.observe_step(self.now, n_rows, Duration::from_secs_f64(elapsed));
                spent += elapsed;
                steps += 1.0;
            }
            steps * best / spent
        }

        fn step_time(&self, threads: usize) -> f64 {
            let scaled = self.work / threads as f64;
            // Threads that share a processor wait for one another.
            if threads + self.taken > self.processors { scaled * 8.0 } else { scaled }
        }
    }

    #[test]
    fn a_quiet_machine_is_used_whole() {
        for processors in [1, 2, 4, 16] {
            let mut machine = Machine::new(processors);
            assert!(machine.run(20.0, 1) > 0.95, "{processors}");
            assert_eq!(machine.trials.threads(), processors);
        }
    }

    #[test]
    fn a_busy_neighbour_is_noticed_within_a_few_steps_and_its_end_within_seconds() {
        let mut machine = Machine::new(2);
        machine.run(2.0, 1);
        machine.taken = 1;
        machine.run(0.5, 1);
        assert_eq!(machine.trials.threads(), 1);
        assert!(machine.run(10.0, 1) > 0.9);
        machine.taken = 0;
        machine.run(4.0, 1);
        assert!(machine.run(10.0, 1) > 0.9);
    }

    #[test]
    fn a_neighbour_that_was_there_from_the_start_is_found() {
        let mut machine = Machine::new(2);
        machine.taken = 1;
        machine.run(2.0, 1);
        assert!(machine.run(10.0, 1) > 0.9);
    }

    #[test]
    fn several_neighbours_take_several_threads() {
        let mut machine = Machine::new(8);
        machine.run(2.0, 1);
        machine.taken = 3;
        machine.run(2.0, 1);
        assert!(machine.run(10.0, 1) > 0.85);
        machine.taken = 0;
        machine.run(8.0, 1);
        assert!(machine.run(10.0, 1) > 0.9);
    }

    #[test]
    fn steps_that_take_longer_for_what_they_do_keep_their_threads() {
        let mut machine = Machine::new(2);
        machine.work = 0.004;
        machine.run(2.0, 1);
        for _ in 0..4 {
            machine.work *= 3.0;
            assert!(machine.run(30.0, 1) > 0.9);
        }
        // Steps of another size are compared with their own kind.
        machine.work *= 3.0;
        assert!(machine.run(60.0, 64) > 0.9);
        assert_eq!(machine.trials.threads(), 2);
    }

    #[test]
    fn a_lower_limit_holds_at_once_and_a_higher_one_is_tried() {
        let mut machine = Machine::new(4);
        machine.run(1.0, 1);
        machine.trials.limit(2);
        assert_eq!(machine.trials.threads(), 2);
        machine.run(1.0, 1);
        assert!(machine.trials.threads() <= 2);
        machine.trials.limit(4);
        machine.run(5.0, 1);
        assert_eq!(machine.trials.threads(), 4);
    }
}
