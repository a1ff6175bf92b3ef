//! Which rows the next step evaluates. Pure: no FFI, no clock, no channels.
//!
//! Decodes come first, all of them; then prefill under a budget of rows that
//! keeps a step near its target time. Short prompts go before long ones, so
//! that none waits behind a long one; the oldest long prompt gets a share of
//! every step, so that it always moves.

use std::time::Duration;

/// How long a step with prefill should take while streams run: it is the gap
/// that their readers see.
const TARGET_BESIDE_STREAMS: Duration = Duration::from_millis(80);

/// How long it should take while none runs: what the first token of a short
/// prompt may have to wait for.
const TARGET_ALONE: Duration = Duration::from_millis(250);

/// Rows of a step with prefill come in multiples of this. From so many rows on
/// ggml's CPU attention works in tiles (`GGML_FA_TILE_Q` in its `common.h`)
/// and a row costs half as much; fewer rows take no less time.
const TILE: usize = 64;

/// Fewest prefill rows of a step: a budget of nothing would starve prompts
/// beside many streams.
const MIN_PREFILL: usize = 16;

/// Prompts (or their rests) of at most this many tokens are never split. A
/// split costs a step of its own, and the matrix kernels reach their full
/// speed at about so many rows.
const WHOLE: usize = 64;

/// Weight of the newest step in the running mean of the cost of a row.
const NEWEST: f64 = 0.3;

/// One active sequence as the scheduler sees it, in order of age.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Candidate {
    /// Tokens that are not evaluated yet; at least 1. With exactly 1 the
    /// sequence decodes, with more it is in prefill.
    pub(crate) n_pending: usize,
    /// A sequence whose reader is slow takes no part.
    pub(crate) paused: bool,
}

/// Rows for each candidate: `plan(..)[i]` belongs to candidate `i`.
/// `capacity` is the most rows of a batch, at least the number of candidates;
/// `prefill_budget` the most rows of prefill.
pub(crate) fn plan(candidates: &[Candidate], prefill_budget: usize, capacity: usize) -> Vec<usize> {
    let mut rows = vec![0; candidates.len()];
    let mut free = capacity;
    let mut prompts = Vec::new();
    for (index, candidate) in candidates.iter().enumerate().filter(|(_, candidate)| !candidate.paused) {
        if candidate.n_pending == 1 && free > 0 {
            rows[index] = 1;
            free -= 1;
        } else if candidate.n_pending > 1 {
            prompts.push(index);
        }
    }
    let budget = prefill_budget.min(free);
    let mut given = 0;
    let (mut short, long): (Vec<usize>, Vec<usize>) =
        prompts.into_iter().partition(|&index| candidates[index].n_pending <= WHOLE);
    // Stable: among equally short ones the older goes first.
    short.sort_by_key(|&index| candidates[index].n_pending);
    for index in short {
        let n = candidates[index].n_pending;
        if given + n <= budget || (given == 0 && n <= free) {
            rows[index] = n;
            given += n;
        }
    }
    let Some(&oldest) = long.first() else { return rows };
    let left = budget.saturating_sub(given);
    let share = left.div_ceil(2).max(budget / 4).min(free - given).min(candidates[oldest].n_pending);
    rows[oldest] = share;
    let mut left = left.saturating_sub(share);
    let mut by_length = long;
    by_length.sort_by_key(|&index| candidates[index].n_pending);
    for index in by_length {
        let n = (candidates[index].n_pending - rows[index]).min(left);
        rows[index] += n;
        left -= n;
    }
    rows
}

/// Learns what a row costs and derives the prefill budget from it.
#[derive(Debug, Clone)]
pub(crate) struct StepCost {
    /// Seconds a row of a step with prefill costs; 0 until one was measured.
    row: f64,
}

impl StepCost {
    pub(crate) fn new() -> Self {
        Self { row: 0.0 }
    }

    /// Takes the measure of a step. Steps with little prefill say nothing
    /// about what a row of prefill costs.
    pub(crate) fn observe(&mut self, n_prefill: usize, n_rows: usize, elapsed: Duration) {
        if n_prefill < MIN_PREFILL {
            return;
        }
        let row = elapsed.as_secs_f64() / n_rows as f64;
        self.row = if self.row == 0.0 { row } else { self.row + NEWEST * (row - self.row) };
    }

    /// Prefill rows that keep a step with `n_decode` decodes near the target.
    pub(crate) fn prefill_budget(&self, n_decode: usize) -> usize {
        let least = (n_decode + MIN_PREFILL).next_multiple_of(TILE);
        if self.row == 0.0 {
            // The least; the next step knows better.
            return least - n_decode;
        }
        let target = if n_decode > 0 { TARGET_BESIDE_STREAMS } else { TARGET_ALONE };
        let rows = (target.as_secs_f64() / self.row) as usize;
        (rows - rows % TILE).max(least) - n_decode
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pending(n: &[usize]) -> Vec<Candidate> {
        n.iter().map(|&n_pending| Candidate { n_pending, paused: false }).collect()
    }

    #[test]
    fn decodes_come_first_and_all_of_them() {
        assert_eq!(plan(&pending(&[1, 500, 1, 1]), 64, 512), [1, 64, 1, 1]);
    }

    #[test]
    fn a_short_prompt_does_not_wait_behind_a_long_one() {
        assert_eq!(plan(&pending(&[2000, 3]), 64, 512), [61, 3]);
    }

    #[test]
    fn the_oldest_long_prompt_always_moves() {
        assert_eq!(plan(&pending(&[2000, 100, 100]), 64, 512), [32, 32, 0]);
        assert_eq!(plan(&pending(&[2000, 60, 60]), 64, 512), [16, 60, 0]);
    }

    #[test]
    fn equal_prompts_are_served_by_age() {
        assert_eq!(plan(&pending(&[90, 90, 90]), 128, 512), [90, 38, 0]);
        assert_eq!(plan(&pending(&[30, 30, 30]), 64, 512), [30, 30, 0]);
    }

    #[test]
    fn a_short_prompt_is_never_split() {
        assert_eq!(plan(&pending(&[40, 40, 40]), 64, 512), [40, 0, 0]);
        assert_eq!(plan(&pending(&[64]), 16, 512), [64]);
    }

    #[test]
    fn the_capacity_of_a_batch_is_never_passed() {
        for capacity in [16, 40, 100] {
            let rows = plan(&pending(&[1, 1, 1, 12, 30, 500, 500]), 64, capacity);
            assert!(rows.iter().sum::<usize>() <= capacity, "{rows:?} of {capacity}");
            assert_eq!(rows[..3], [1, 1, 1]);
            assert!(rows[3..].iter().any(|&n| n > 0), "{rows:?} of {capacity}");
        }
    }

    #[test]
    fn a_paused_sequence_takes_no_part() {
        let mut candidates = pending(&[1, 10]);
        candidates[0].paused = true;
        assert_eq!(plan(&candidates, 64, 512), [0, 10]);
    }

    #[test]
    fn no_candidate_gets_more_rows_than_it_has_tokens() {
        assert_eq!(plan(&pending(&[5, 7]), 512, 512), [5, 7]);
    }

    #[test]
    fn the_budget_follows_the_measured_cost() {
        let mut cost = StepCost::new();
        assert_eq!(cost.prefill_budget(0), 64);
        cost.observe(64, 64, Duration::from_millis(64));
        assert_eq!(cost.prefill_budget(0), 192);
        assert_eq!(cost.prefill_budget(30), 64 - 30);
        assert_eq!(cost.prefill_budget(50), 128 - 50, "some prefill, and whole tiles");
        for _ in 0..50 {
            cost.observe(64, 64, Duration::from_millis(640));
        }
        assert_eq!(cost.prefill_budget(0), TILE);
        for _ in 0..50 {
            cost.observe(64, 64, Duration::from_micros(6400));
        }
        assert!(cost.prefill_budget(4) >= 512);
    }

    #[test]
    fn a_step_with_little_prefill_teaches_nothing() {
        let mut cost = StepCost::new();
        cost.observe(3, 19, Duration::from_secs(1));
        assert_eq!(cost.prefill_budget(0), StepCost::new().prefill_budget(0));
    }
}
