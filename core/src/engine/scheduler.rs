//! Which rows the next step evaluates. Pure: no FFI, no clock, no channels.
//!
//! Decodes and prefill share a step under a budget of rows that keeps it near
//! its target time. Short prompts go before long ones, so that none waits behind
//! a long one; the oldest long prompt gets a share of every step, so that it
//! always moves. Where long prompts are computed `aside`, none of them comes
//! here.

use std::time::Duration;

/// Longest that a step with prefill should take while others are served: it is
/// the gap that their readers see.
const LIMIT_BESIDE_OTHERS: Duration = Duration::from_millis(150);

/// How long it should take while no others are served: what the first token of
/// a short prompt that comes then may have to wait for. See [`LEFT_OVER`] too.
const TARGET_ALONE: Duration = Duration::from_millis(250);

/// From so many rows on ggml's CPU attention works in tiles
/// (`GGML_FA_TILE_Q` in its `common.h`) and a row costs much less. So a step
/// has whole tiles of rows, or, where that takes too long, few rows.
pub(super) const TILE: usize = 64;

/// Of the rows of a step beside prompts that wait, decodes have this share for
/// sure. Prompts that come at once then have their first tokens soon after each
/// other, go on as one batch and end as one.
const SHARE_OF_DECODES: usize = 4;

/// Rows of a step that is too small for a tile: between this and a tile a row
/// costs the most.
const SMALL: usize = 16;

/// Fewest prefill rows of a step: a budget of nothing would starve prompts
/// beside many streams.
const MIN_PREFILL: usize = 8;

/// Prompts of at most this many tokens are never split: a split costs a step
/// of its own, and their attention is cheap. The rest of a long prompt is not
/// one of them: its rows look back at all that came before.
const WHOLE: usize = 64;

/// Where only steps of one row were measured, a row of a step with many is
/// thought to cost this part of them: it reads the weights for all. Measured:
/// 0.10 to 0.18 with AMX or AVX-512, with AVX2 0.26 (Q4_0). Too low makes
/// one step long, which nobody is served beside; too high splits what came at
/// once.
const OF_LONE: f64 = 0.15;

/// A step that takes many prompts may take this part of its rows more when no
/// prompt is left then. The others would cost a step of their own, and from then
/// on end a token later than the rest.
const LEFT_OVER: usize = 2;

/// Weight of the newest step in the running mean of the cost of a row.
const NEWEST: f64 = 0.3;

/// One active sequence as the scheduler sees it, in order of age.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Candidate {
    /// Tokens that are not evaluated yet; at least 1. With exactly 1 the
    /// sequence decodes, with more it is in prefill.
    pub(crate) n_pending: usize,
    /// Nothing of it is evaluated yet.
    pub(crate) is_new: bool,
    /// A sequence whose reader is slow takes no part.
    pub(crate) paused: bool,
}

/// What a step has room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Room {
    /// Most rows.
    pub(crate) rows: usize,
    /// Most rows of prefill.
    pub(crate) prefill: usize,
}

/// Rows for each candidate: `plan(..)[i]` belongs to candidate `i`. `turn` is
/// how many rows of decodes all steps had before: where not all fit, they take
/// turns by it.
pub(crate) fn plan(candidates: &[Candidate], room: Room, turn: usize) -> Vec<usize> {
    let mut rows = vec![0; candidates.len()];
    let running = candidates.iter().enumerate().filter(|(_, candidate)| !candidate.paused);
    let (mut decodes, prompts): (Vec<usize>, Vec<usize>) =
        running.map(|(index, _)| index).partition(|&index| candidates[index].n_pending == 1);
    // What prompts don't need is for decodes, and the other way round.
    let wanted: usize = prompts.iter().map(|&index| candidates[index].n_pending).sum();
    let for_decodes = room.rows - wanted.min(room.prefill).min(room.rows - room.rows / SHARE_OF_DECODES);
    if decodes.len() > for_decodes {
        let first = turn % decodes.len();
        decodes.rotate_left(first);
        decodes.truncate(for_decodes);
    }
    for &index in &decodes {
        rows[index] = 1;
    }
    let free = room.rows - decodes.len();
    let budget = room.prefill.min(free);
    let mut given = 0;
    let (mut short, long): (Vec<usize>, Vec<usize>) = prompts
        .into_iter()
        .partition(|&index| candidates[index].is_new && candidates[index].n_pending <= WHOLE.min(free));
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
#[derive(Debug, Clone, Default)]
pub(crate) struct StepCost {
    /// Seconds a row costs in a step of whole tiles; `None` until measured.
    tiled: Option<f64>,
    /// Seconds a row costs in a smaller step.
    small: Option<f64>,
    /// Seconds of a step of one row.
    lone: Option<f64>,
}

impl StepCost {
    /// Takes the measure of a step. Steps with little prefill say nothing
    /// about what a row of prefill costs.
    pub(crate) fn observe(&mut self, n_prefill: usize, n_rows: usize, elapsed: Duration) {
        if n_rows == 1 {
            self.lone = Some(elapsed.as_secs_f64());
        }
        if n_prefill < MIN_PREFILL {
            return;
        }
        let (own, other) = if n_rows >= TILE {
            (&mut self.tiled, &mut self.small)
        } else {
            (&mut self.small, &mut self.tiled)
        };
        let row = elapsed.as_secs_f64() / n_rows as f64;
        let Some(before) = *own else {
            *own = Some(row);
            return;
        };
        let now = before + NEWEST * (row - before);
        *own = Some(now);
        // What changes the one, the depth of the prompts or the load of the
        // machine, changes the other alike, which may not be measured for long.
        *other = other.map(|other| other * now / before);
    }

    /// Rows of a step that takes many short prompts at once beside `n_decode`
    /// decodes, on a machine that computes enough of them in time. On others a
    /// burst is computed aside, which costs about 0.1 s once.
    pub(crate) fn rows_of_burst(&self, n_decode: usize) -> Option<usize> {
        let measured = self.tiled.or(self.small);
        let (time, least, row) = if n_decode == 0 {
            (TARGET_ALONE, 2 * TILE, measured.or(self.lone.map(|lone| OF_LONE * lone))?)
        } else {
            (LIMIT_BESIDE_OTHERS, TILE + TILE / 2, measured?)
        };
        Some((time.as_secs_f64() / row) as usize).filter(|&rows| rows >= least)
    }

    /// What a step of so many decodes, and prompts with so many rows in all,
    /// has room for, of at most `most` rows; `only_short` says that long
    /// prompts are computed aside.
    pub(crate) fn room(&self, n_decode: usize, prompts: &[usize], most: usize, only_short: bool) -> Room {
        if !only_short {
            return Room { rows: most, prefill: self.prefill_budget(n_decode, prompts.len()) };
        }
        if prompts.is_empty() {
            return Room { rows: most.min(TILE - 1), prefill: 0 };
        }
        // A row costs the least where there are many, and the most between a
        // few and a tile.
        let wanted = n_decode + prompts.iter().sum::<usize>();
        let rows = match self.rows_of_burst(n_decode).filter(|_| wanted >= TILE) {
            Some(rows) if n_decode == 0 && wanted <= rows + rows / LEFT_OVER => wanted.min(most),
            Some(rows) => rows.min(most),
            None => {
                let most = most.min(TILE - 1);
                let in_time = |row: f64| (LIMIT_BESIDE_OTHERS.as_secs_f64() / row) as usize;
                self.small.map_or(most, in_time).max(SMALL).min(most)
            }
        };
        Room { rows, prefill: rows - n_decode.min(rows / SHARE_OF_DECODES) }
    }

    /// Prefill rows for a step beside `n_decode` decodes, shared by `n_prompts`.
    fn prefill_budget(&self, n_decode: usize, n_prompts: usize) -> usize {
        let least = (n_decode + MIN_PREFILL).next_multiple_of(TILE);
        // The least of a new engine; the next step knows better.
        let Some(tiled) = self.tiled else { return least - n_decode };
        let target = if n_decode > 0 || n_prompts > 1 { LIMIT_BESIDE_OTHERS } else { TARGET_ALONE };
        let rows = (target.as_secs_f64() / tiled) as usize / TILE * TILE;
        if rows >= least {
            rows - n_decode
        } else if n_decode > 0 {
            SMALL.max(n_decode + MIN_PREFILL) - n_decode
        } else {
            least
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pending(n: &[usize]) -> Vec<Candidate> {
        n.iter().map(|&n_pending| Candidate { n_pending, is_new: n_pending > 1, paused: false }).collect()
    }

    fn planned(candidates: &[Candidate], prefill: usize, rows: usize) -> Vec<usize> {
        plan(candidates, Room { rows, prefill }, 0)
    }

    #[test]
    fn decodes_and_prefill_share_a_step() {
        assert_eq!(planned(&pending(&[1, 500, 1, 1]), 64, 512), [1, 64, 1, 1]);
    }

    #[test]
    fn a_short_prompt_does_not_wait_behind_a_long_one() {
        assert_eq!(planned(&pending(&[2000, 3]), 64, 512), [61, 3]);
    }

    #[test]
    fn the_oldest_long_prompt_always_moves() {
        assert_eq!(planned(&pending(&[2000, 100, 100]), 64, 512), [32, 32, 0]);
        assert_eq!(planned(&pending(&[2000, 60, 60]), 64, 512), [16, 60, 0]);
    }

    #[test]
    fn equal_prompts_are_served_by_age() {
        assert_eq!(planned(&pending(&[90, 90, 90]), 128, 512), [90, 38, 0]);
        assert_eq!(planned(&pending(&[30, 30, 30]), 64, 512), [30, 30, 0]);
    }

    #[test]
    fn a_short_prompt_is_never_split() {
        assert_eq!(planned(&pending(&[40, 40, 40]), 64, 512), [40, 0, 0]);
        assert_eq!(planned(&pending(&[64]), 16, 512), [64]);
    }

    #[test]
    fn the_rest_of_a_long_prompt_is_split() {
        let mut candidates = pending(&[1, 60]);
        candidates[1].is_new = false;
        assert_eq!(planned(&candidates, 15, 512), [1, 15]);
    }

    #[test]
    fn a_prompt_larger_than_the_free_rows_is_split_and_not_left_out() {
        for capacity in 16..80 {
            for n_pending in 2..80 {
                let rows = planned(&pending(&[1, n_pending]), 64, capacity);
                assert!(rows[1] > 0, "{n_pending} of {capacity}");
            }
        }
    }

    #[test]
    fn the_capacity_of_a_batch_is_never_passed() {
        for capacity in [16, 40, 100] {
            let rows = planned(&pending(&[1, 1, 1, 12, 30, 500, 500]), 64, capacity);
            assert!(rows.iter().sum::<usize>() <= capacity, "{rows:?} of {capacity}");
            assert_eq!(rows[..3], [1, 1, 1]);
            assert!(rows[3..].iter().any(|&n| n > 0), "{rows:?} of {capacity}");
        }
    }

    #[test]
    fn a_paused_sequence_takes_no_part() {
        let mut candidates = pending(&[1, 10]);
        candidates[0].paused = true;
        assert_eq!(planned(&candidates, 64, 512), [0, 10]);
    }

    #[test]
    fn no_candidate_gets_more_rows_than_it_has_tokens() {
        assert_eq!(planned(&pending(&[5, 7]), 512, 512), [5, 7]);
    }

    #[test]
    fn decodes_take_turns_where_not_all_fit() {
        let (mut n_rows, mut turn) = ([0; 5], 7);
        for _ in 0..10 {
            let rows = plan(&pending(&[1; 5]), Room { rows: 3, prefill: 0 }, turn);
            assert_eq!(rows.iter().sum::<usize>(), 3);
            turn += 3;
            n_rows.iter_mut().zip(rows).for_each(|(sum, n)| *sum += n);
        }
        assert_eq!(n_rows, [6; 5]);
    }

    #[test]
    fn prompts_that_wait_leave_decodes_a_share() {
        let cost = StepCost::default();
        assert_eq!(cost.room(40, &[], 512, true), Room { rows: 63, prefill: 0 });
        let room = cost.room(40, &[17; 9], 512, true);
        assert_eq!(room, Room { rows: 63, prefill: 48 });
        let candidates = pending(&[[1; 40].as_slice(), &[17; 9]].concat());
        let rows = plan(&candidates, room, 0);
        assert_eq!(rows[40..], [17, 17, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(rows[..40].iter().sum::<usize>(), 15);
        assert_eq!(cost.room(2, &[17; 9], 512, true).prefill, 61);
    }

    #[test]
    fn slow_rows_make_short_steps() {
        let mut cost = StepCost::default();
        cost.observe(20, 20, Duration::from_millis(100));
        assert_eq!(cost.room(8, &[40], 512, true), Room { rows: 30, prefill: 23 });
        cost.observe(20, 20, Duration::from_secs(100));
        assert_eq!(cost.room(8, &[40], 512, true), Room { rows: SMALL, prefill: 12 });
        assert_eq!(cost.room(8, &[40], 12, true), Room { rows: 12, prefill: 9 });
    }

    #[test]
    fn a_fast_machine_takes_a_burst_in_large_steps() {
        let mut cost = StepCost::default();
        assert_eq!(cost.rows_of_burst(1), None, "nothing is known yet");
        cost.observe(50, 50, Duration::from_millis(100));
        assert_eq!(cost.rows_of_burst(1), None);
        cost.observe(50, 50, Duration::ZERO);
        for _ in 0..20 {
            cost.observe(50, 50, Duration::from_millis(50));
        }
        assert_eq!(cost.rows_of_burst(1), Some(149));
        assert_eq!(cost.rows_of_burst(0), Some(249));
        assert_eq!(cost.room(40, &[17; 9], 512, true), Room { rows: 149, prefill: 112 });
        assert_eq!(cost.room(40, &[17; 2], 512, true).rows, 149, "what is left of one");
        assert_eq!(cost.room(40, &[17], 512, true).rows, 63, "less than a tile");
        assert_eq!(cost.room(40, &[], 512, true).rows, 63);
    }

    #[test]
    fn a_burst_that_disturbs_nobody_is_taken_in_larger_steps() {
        let mut cost = StepCost::default();
        cost.observe(256, 256, Duration::from_millis(256));
        assert_eq!(cost.room(0, &[17; 32], 512, true), Room { rows: 250, prefill: 250 });
        assert_eq!(cost.room(0, &[17; 32], 200, true), Room { rows: 200, prefill: 200 });
        assert_eq!(cost.room(0, &[17; 16], 512, true).rows, 272, "a few more, so that none is left");
        assert_eq!(cost.room(0, &[17; 23], 512, true).rows, 250);
        assert_eq!(cost.room(1, &[17; 32], 512, true).rows, 150);
        for _ in 0..20 {
            cost.observe(256, 256, Duration::from_millis(640));
        }
        assert_eq!(cost.rows_of_burst(0), None, "a slow machine");
    }

    #[test]
    fn the_first_burst_goes_by_the_steps_of_one_row() {
        let mut cost = StepCost::default();
        assert_eq!(cost.rows_of_burst(0), None, "nothing is known yet");
        cost.observe(0, 1, Duration::from_millis(300));
        assert_eq!(cost.rows_of_burst(0), None, "a large model");
        cost.observe(0, 1, Duration::from_millis(5));
        assert_eq!(cost.rows_of_burst(0), Some(333));
        assert_eq!(cost.rows_of_burst(1), None, "others would have to wait");
        cost.observe(20, 20, Duration::from_millis(100));
        assert_eq!(cost.rows_of_burst(0), None, "few rows tell more");
    }

    #[test]
    fn the_budget_follows_the_measured_cost() {
        let mut cost = StepCost::default();
        assert_eq!(cost.prefill_budget(0, 1), 64);
        cost.observe(64, 64, Duration::from_millis(64));
        assert_eq!(cost.prefill_budget(0, 1), 192);
        assert_eq!(cost.prefill_budget(30, 1), 128 - 30, "whole tiles, the decodes counted");
        for _ in 0..50 {
            cost.observe(64, 64, Duration::from_micros(6400));
        }
        assert!(cost.prefill_budget(4, 1) >= 512);
    }

    #[test]
    fn slow_tiles_make_small_steps_beside_streams_and_none_without() {
        let mut cost = StepCost::default();
        cost.observe(64, 64, Duration::from_millis(300));
        assert_eq!(cost.prefill_budget(1, 1), 15);
        assert_eq!(cost.prefill_budget(40, 1), MIN_PREFILL);
        assert_eq!(cost.prefill_budget(0, 1), TILE);
    }

    #[test]
    fn small_steps_that_get_quicker_bring_the_tiles_back() {
        let mut cost = StepCost::default();
        cost.observe(63, 64, Duration::from_millis(300));
        cost.observe(15, 16, Duration::from_millis(100));
        assert_eq!(cost.prefill_budget(1, 1), 15);
        for _ in 0..20 {
            cost.observe(15, 16, Duration::from_millis(40));
        }
        assert_eq!(cost.prefill_budget(1, 1), 63);
    }

    #[test]
    fn a_step_with_little_prefill_teaches_nothing() {
        let mut cost = StepCost::default();
        cost.observe(3, 19, Duration::from_secs(1));
        assert_eq!(cost.prefill_budget(0, 1), StepCost::default().prefill_budget(0, 1));
    }
}
