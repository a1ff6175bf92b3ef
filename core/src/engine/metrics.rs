//! Counters of one engine. Its thread writes, anybody reads.

use crate::{EngineMetrics, Histogram, process};
use std::{
    sync::atomic::{
        AtomicBool, AtomicU64, AtomicUsize,
        Ordering::{Relaxed, SeqCst},
    },
    time::Duration,
};

/// Upper bounds of the histograms in milliseconds: from a fast decode to a
/// prompt that waits a minute.
const BOUNDS_MS: [u64; 14] = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 20_000, 60_000];

/// See the module.
#[derive(Default)]
pub(crate) struct Metrics {
    pub(super) active: AtomicUsize,
    pub(super) completed: AtomicU64,
    pub(super) cancelled: AtomicU64,
    pub(super) failed: AtomicU64,
    pub(super) prompt_tokens: AtomicU64,
    pub(super) cached_tokens: AtomicU64,
    pub(super) generated_tokens: AtomicU64,
    pub(super) drafted_tokens: AtomicU64,
    pub(super) accepted_tokens: AtomicU64,
    pub(super) steps: AtomicU64,
    pub(super) step_time: Buckets,
    pub(super) first_token: Buckets,
    pub(super) threads: AtomicUsize,
    pub(super) cache_tokens: AtomicUsize,
    pub(super) prefix_cache_bytes: AtomicU64,
    pub(super) preemptions: AtomicU64,
    pub(super) load_time_us: AtomicU64,
    pub(super) weights_shared: AtomicBool,
}

impl Metrics {
    /// A reading of what is counted here. The fields are read one after the
    /// other, so sums may differ by what happens meanwhile.
    pub(crate) fn read(&self, kv_bytes_per_token: u64) -> EngineMetrics {
        EngineMetrics {
            active: self.active.load(Relaxed),
            completed: self.completed.load(Relaxed),
            cancelled: self.cancelled.load(Relaxed),
            failed: self.failed.load(Relaxed),
            prompt_tokens: self.prompt_tokens.load(Relaxed),
            cached_tokens: self.cached_tokens.load(Relaxed),
            generated_tokens: self.generated_tokens.load(Relaxed),
            drafted_tokens: self.drafted_tokens.load(Relaxed),
            accepted_tokens: self.accepted_tokens.load(Relaxed),
            steps: self.steps.load(Relaxed),
            step_time: self.step_time.read(),
            time_to_first_token: self.first_token.read(),
            threads: self.threads.load(Relaxed),
            cache_bytes: self.cache_tokens.load(Relaxed) as u64 * kv_bytes_per_token,
            prefix_cache_bytes: self.prefix_cache_bytes.load(Relaxed),
            preemptions: self.preemptions.load(Relaxed),
            load_time: Duration::from_micros(self.load_time_us.load(Relaxed)),
            weights_shared: self.weights_shared.load(Relaxed),
            ..EngineMetrics::default()
        }
    }
}

/// Counts of a histogram. One thread writes, and takes no lock for it: a
/// reader that is interrupted must not hold up a step.
#[derive(Default)]
pub(super) struct Buckets {
    counts: [AtomicU64; BOUNDS_MS.len() + 1],
    sum_us: AtomicU64,
    /// Odd while an observation is written, so that a reading's sum is that of
    /// its counts.
    version: AtomicU64,
}

impl Buckets {
    /// Only the engine's thread calls it.
    pub(super) fn observe(&self, duration: Duration) {
        let bucket = BOUNDS_MS.partition_point(|&ms| Duration::from_millis(ms) < duration);
        self.version.fetch_add(1, SeqCst);
        self.counts[bucket].fetch_add(1, SeqCst);
        self.sum_us.fetch_add(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX), SeqCst);
        self.version.fetch_add(1, SeqCst);
    }

    fn read(&self) -> Histogram {
        let mut histogram = Histogram { bounds: BOUNDS_MS.map(Duration::from_millis).to_vec(), ..Histogram::default() };
        loop {
            let version = self.version.load(SeqCst);
            histogram.counts = self.counts.iter().map(|count| count.load(SeqCst)).collect();
            histogram.sum = Duration::from_micros(self.sum_us.load(SeqCst));
            let is_whole = version.is_multiple_of(2) && self.version.load(SeqCst) == version;
            // In a forked child the writer may be gone in the midst.
            if is_whole || process::is_forked_child() {
                return histogram;
            }
            std::thread::yield_now();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_falls_into_the_bucket_of_its_upper_bound() {
        let buckets = Buckets::default();
        for ms in [0, 1, 2, 3, 100, 100_000] {
            buckets.observe(Duration::from_millis(ms));
        }
        let histogram = buckets.read();
        assert_eq!(histogram.counts[..3], [2, 1, 1]);
        assert_eq!(histogram.counts[6], 1);
        assert_eq!(histogram.counts[14], 1);
        assert_eq!(histogram.sum, Duration::from_millis(100_106));
    }
    #[test]
    fn a_reading_is_of_whole_observations() {
        let buckets = Buckets::default();
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| (0..200_000).for_each(|_| buckets.observe(Duration::from_millis(3))));
            while !writer.is_finished() {
                let histogram = buckets.read();
                let count: u64 = histogram.counts.iter().sum();
                assert_eq!(histogram.sum, Duration::from_millis(3 * count));
            }
        });
    }
}
