//! Counters of one engine. Its thread writes, anybody reads.

use crate::{EngineMetrics, Histogram};
use std::{
    sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
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
    pub(super) steps: AtomicU64,
    pub(super) step_time: Buckets,
    pub(super) first_token: Buckets,
    pub(super) threads: AtomicUsize,
    pub(super) cache_tokens: AtomicUsize,
}

impl Metrics {
    /// A reading. The fields are read one after the other, so sums may differ
    /// by what happens meanwhile.
    pub(crate) fn read(&self, queued: usize, kv_bytes_per_token: u64) -> EngineMetrics {
        EngineMetrics {
            queued,
            active: self.active.load(Relaxed),
            completed: self.completed.load(Relaxed),
            cancelled: self.cancelled.load(Relaxed),
            failed: self.failed.load(Relaxed),
            prompt_tokens: self.prompt_tokens.load(Relaxed),
            cached_tokens: self.cached_tokens.load(Relaxed),
            generated_tokens: self.generated_tokens.load(Relaxed),
            steps: self.steps.load(Relaxed),
            step_time: self.step_time.read(),
            time_to_first_token: self.first_token.read(),
            threads: self.threads.load(Relaxed),
            cache_bytes: self.cache_tokens.load(Relaxed) as u64 * kv_bytes_per_token,
        }
    }
}

/// Counts of a histogram.
#[derive(Default)]
pub(super) struct Buckets {
    counts: [AtomicU64; BOUNDS_MS.len() + 1],
    sum_us: AtomicU64,
}

impl Buckets {
    pub(super) fn observe(&self, duration: Duration) {
        let bucket = BOUNDS_MS.partition_point(|&ms| Duration::from_millis(ms) < duration);
        self.counts[bucket].fetch_add(1, Relaxed);
        self.sum_us.fetch_add(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX), Relaxed);
    }

    fn read(&self) -> Histogram {
        Histogram {
            bounds: BOUNDS_MS.map(Duration::from_millis).to_vec(),
            counts: self.counts.iter().map(|count| count.load(Relaxed)).collect(),
            sum: Duration::from_micros(self.sum_us.load(Relaxed)),
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
}
