//! Whose prompt is computed aside next, and which prompts together. Part of
//! [`Worker`], on the engine's thread.
//!
//! A long prompt is computed by itself, in as many decodes as it needs. Short
//! ones that are new are computed together when they are so many that steps
//! with the others would have to take a few at a time: a burst.

use super::{aside::Aside, scheduler::TILE, sequence::Sequence, worker::Worker};

/// Fewest tokens that are worth it, of one prompt or of a burst. Fewer fit into
/// a step or two with the others.
const WORTH: usize = 128;

/// Most rows of a decode: with more a row costs no less, but a cancelled or
/// failed decode loses more.
pub(super) const ROWS: usize = 256;

/// Rows of a sequence that are computed aside in one decode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Part {
    /// The sequence's age.
    pub(super) age: u64,
    /// Its tokens that were evaluated before.
    pub(super) from: usize,
    /// Rows.
    pub(super) n: usize,
}

impl Worker {
    /// Whether any prompt is computed aside.
    pub(super) fn computes_aside(&self) -> bool {
        !self.aside.is_refused() && self.context.has_parts() && self.shared.options.gpu_layers == 0
    }

    /// Whether an active sequence takes no part in steps, because its prompt is
    /// computed aside; `burst` is what [`Self::burst`] gives.
    pub(super) fn goes_aside(&self, index: usize, burst: &[usize]) -> bool {
        self.computes_aside() && (is_long(&self.active[index]) || burst.contains(&index))
    }

    /// What is computed aside next; nothing when there is no need. The shortest
    /// and the oldest have the turn alternately, so that a short prompt does not
    /// wait for a long one and none waits for ever.
    pub(super) fn next_aside(&self) -> Vec<Part> {
        if !self.computes_aside() {
            return Vec::new();
        }
        let long = || {
            self.active
                .iter()
                .filter(|sequence| sequence.follows.is_none() && !sequence.ticket.is_full() && is_long(sequence))
        };
        let part = |sequence: &Sequence, n: usize| Part { age: sequence.age, from: sequence.n_past(), n };
        let most = ROWS.min(self.limits.batch_size);
        let in_one = |sequence: &Sequence| vec![part(sequence, rows(sequence.n_pending() - 1, most))];
        let oldest = || long().min_by_key(|sequence| sequence.age).map(in_one);
        let burst = self.burst();
        if burst.is_empty() {
            let shortest = || long().min_by_key(|sequence| (sequence.n_pending(), sequence.age)).map(in_one);
            return if self.aside.oldest_had_turn() { shortest() } else { oldest() }.unwrap_or_default();
        }
        if !self.aside.oldest_had_turn()
            && let Some(part) = oldest()
        {
            return part;
        }
        let prompts: Vec<usize> = burst.iter().map(|&index| self.active[index].n_pending() - 1).collect();
        let n = together(&prompts, most, Aside::most_together(&self.limits));
        burst[..n].iter().map(|&index| part(&self.active[index], self.active[index].n_pending() - 1)).collect()
    }

    /// Short prompts that are computed together, oldest first; none when they
    /// are too few for that, or would wait for the decode of a long one, beside
    /// which steps serve them sooner, or when a step can take enough of them.
    pub(super) fn burst(&self) -> Vec<usize> {
        let is_short = |sequence: &Sequence| {
            sequence.n_past() == 0
                && (2..=WORTH).contains(&sequence.n_pending())
                && !sequence.is_aside
                && sequence.follows.is_none()
                && !sequence.ticket.is_full()
        };
        let short: Vec<usize> = (0..self.active.len()).filter(|&index| is_short(&self.active[index])).collect();
        let n: usize = short.iter().map(|&index| self.active[index].n_pending() - 1).sum();
        let n_decode = self.active.iter().filter(|s| s.n_pending() == 1 && !s.ticket.is_full()).count();
        let waits = self.aside.computes_long
            || n < WORTH
            || self.limits.batch_size < WORTH
            || self.cost.rows_of_burst(n_decode).is_some();
        if waits { Vec::new() } else { short }
    }
}

/// Whether the rest of this prompt is computed aside for its length, or is part
/// of the decode under way.
pub(super) fn is_long(sequence: &Sequence) -> bool {
    let n = sequence.n_pending() - 1;
    n >= WORTH || (n > 0 && sequence.is_aside)
}

/// Rows of the next decode, of `left` ones: as few decodes as can be, none with
/// few rows, and whole tiles.
fn rows(left: usize, most: usize) -> usize {
    let n_decodes = left.div_ceil(most).max(1);
    left.div_ceil(n_decodes).next_multiple_of(TILE).min(most).min(left)
}

/// How many of these prompts the next decode takes, at most `most_prompts`:
/// as few decodes as can be, with about as many rows each.
fn together(prompts: &[usize], most: usize, most_prompts: usize) -> usize {
    let all: usize = prompts.iter().sum();
    let share = all.div_ceil(all.div_ceil(most).max(1));
    let mut sum = 0;
    let fit = prompts.iter().take(most_prompts).take_while(|&&n| {
        let goes_on = sum < share && sum + n <= most;
        sum += n;
        goes_on
    });
    fit.count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prompt_is_computed_in_few_decodes_of_whole_tiles() {
        assert_eq!(rows(2000, 256), 256);
        assert_eq!(rows(257, 256), 192);
        assert_eq!(rows(65, 256), 65);
        assert_eq!(rows(1, 256), 1);
        assert_eq!(rows(100, 32), 32);
    }

    #[test]
    fn all_rows_are_computed() {
        for most in [16, 100, 256] {
            for whole in 1..1100 {
                let mut left = whole;
                let mut n = 0;
                while left > 0 {
                    left -= rows(left, most);
                    n += 1;
                }
                assert_eq!(n, whole.div_ceil(most), "{whole} of {most}");
            }
        }
    }

    #[test]
    fn a_burst_is_computed_in_few_decodes_of_about_the_same_size() {
        assert_eq!(together(&[16; 9], 256, 32), 9);
        assert_eq!(together(&[16; 17], 256, 32), 9);
        assert_eq!(together(&[16; 32], 256, 32), 16);
        assert_eq!(together(&[100; 3], 256, 32), 2);
        assert_eq!(together(&[127; 40], 256, 32), 2);
        assert_eq!(together(&[1; 200], 256, 32), 32);
    }

    #[test]
    fn a_decode_of_a_burst_is_never_empty_nor_too_large() {
        for n in 1..=128 {
            for count in 1..40 {
                let prompts: Vec<usize> = (0..count).map(|i| 1 + (n * (i + 1)) % 128).collect();
                let taken = together(&prompts, 128, 8);
                assert!(taken > 0 && taken <= 8);
                assert!(prompts[..taken].iter().sum::<usize>() <= 128);
            }
        }
    }
}
