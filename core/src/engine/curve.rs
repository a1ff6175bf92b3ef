//! What steps of one sequence cost by their number of rows, learned from the
//! steps themselves. Pure. One a worker.

use std::time::Duration;

/// The numbers of rows that steps with a draft have; a measure for each. The
/// first row is no guess.
pub(super) const ROWS: [usize; 4] = [4, 6, 8, 16];

/// Most rows of a step with a draft.
pub(super) const MAX_ROWS: usize = ROWS[ROWS.len() - 1];

/// Share of a plain step that each row more costs where no draft was measured.
const UNKNOWN_ROW: f64 = 0.45;

/// What more rows than were measured are hoped to cost a row against the
/// nearest measured number: few enough to be tried. Fewer rows cost as much a
/// row at least, since the first ones cost most.
const HOPE: f64 = 0.9;

/// Weight of the newest step in the mean of its number of rows,
const NEWEST: f64 = 0.2;

/// and of the first one against what was hoped: it may be slow by chance.
const FIRST: f64 = 0.5;

/// A step may be slow by chance: it counts for no more than so many times what
/// was known.
const MOST: f64 = 2.0;

/// Plain steps after which a measure that promised nothing is hoped to be a
/// little better, so that what was slow while the machine was busy is tried
/// again some time. It is not forgotten: finding the same again costs drafts.
const STALE: u32 = 300;

/// How much better.
const RECOVERY: f64 = 0.1;

/// See the module.
#[derive(Debug, Clone, Default)]
pub(super) struct Curve {
    /// Seconds of a plain step; `None` until measured.
    plain: Option<f64>,
    /// What a step of each of `ROWS` costs, in plain steps, and how many plain
    /// steps ago it was measured.
    drafted: [Option<(f64, u32)>; ROWS.len()],
}

impl Curve {
    /// A step of one sequence took `elapsed`.
    pub(super) fn observe(&mut self, n_rows: usize, elapsed: Duration) {
        let seconds = elapsed.as_secs_f64();
        if n_rows == 1 {
            self.plain = Some(self.plain.map_or(seconds, |plain| mix(plain, seconds, NEWEST)));
            for index in 0..ROWS.len() {
                let hoped = self.hoped(index);
                if let Some((cost, age)) = &mut self.drafted[index] {
                    *age += 1;
                    if *age >= STALE {
                        (*cost, *age) = (mix(*cost, hoped.min(*cost), RECOVERY), 0);
                    }
                }
            }
        } else if let (Some(plain), Some(index)) = (self.plain, ROWS.iter().position(|&rows| rows == n_rows)) {
            let cost = seconds / plain;
            self.drafted[index] = Some(match self.drafted[index] {
                Some((before, _)) => (mix(before, cost.min(MOST * before), NEWEST), 0),
                None => (mix(self.hoped(index), cost.min(MOST * self.hoped(index)), FIRST), 0),
            });
        }
    }

    /// What a step of `n_rows` costs, in plain steps; `None` where steps do not
    /// have that many or none was measured.
    pub(super) fn cost(&self, n_rows: usize) -> Option<f64> {
        self.plain?;
        let index = ROWS.iter().position(|&rows| rows == n_rows)?;
        Some(self.drafted[index].map_or_else(|| self.hoped(index), |(cost, _)| cost))
    }

    /// What the others of `ROWS` make hope for.
    fn hoped(&self, index: usize) -> f64 {
        let others = (0..ROWS.len()).filter(|&other| other != index);
        let known = others.filter_map(|other| Some((ROWS[other], self.drafted[other]?.0)));
        let nearest = known.min_by_key(|(rows, _)| rows.abs_diff(ROWS[index]));
        let row = |(rows, cost): (usize, f64)| {
            let hope = if rows < ROWS[index] { HOPE } else { 1.0 };
            hope * (cost - 1.0).max(0.0) / (rows - 1) as f64
        };
        1.0 + nearest.map_or(UNKNOWN_ROW, row) * (ROWS[index] - 1) as f64
    }
}

fn mix(mean: f64, value: f64, weight: f64) -> f64 {
    mean + weight * (value - mean)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: Duration = Duration::from_millis(10);

    fn measured(rows: usize, cost: f64) -> Curve {
        let mut curve = Curve::default();
        curve.observe(1, STEP);
        (0..50).for_each(|_| curve.observe(rows, STEP.mul_f64(cost)));
        curve
    }

    #[test]
    fn costs_are_told_in_plain_steps_and_only_for_what_steps_have() {
        let mut curve = Curve::default();
        curve.observe(8, STEP);
        assert_eq!(curve.cost(8), None, "before a plain step");
        let curve = measured(8, 3.0);
        assert!((curve.cost(8).unwrap() - 3.0).abs() < 0.01);
        assert_eq!(curve.cost(5), None);
    }

    #[test]
    fn what_was_never_measured_is_hoped_to_be_a_little_cheaper_than_its_neighbour() {
        let mut curve = Curve::default();
        curve.observe(1, STEP);
        assert!(curve.cost(4).unwrap() > 2.0);
        let hoped = measured(8, 8.0).cost(16).unwrap();
        assert!(12.0 < hoped && hoped < 16.0, "{hoped}");
    }

    #[test]
    fn a_measure_that_was_chance_counts_for_little_and_less_with_time() {
        let mut curve = measured(4, 3.0);
        curve.observe(4, STEP * 100);
        let after = curve.cost(4).unwrap();
        assert!((3.1..4.0).contains(&after), "{after}");
        for _ in 0..STALE * 4 {
            curve.observe(1, STEP);
        }
        assert!(curve.cost(4).unwrap() < after);
    }

    #[test]
    fn what_was_measured_is_not_forgotten_while_nothing_is_drafted() {
        let mut curve = measured(4, 3.0);
        (0..=STALE).for_each(|_| curve.observe(1, STEP));
        assert!(curve.cost(4).unwrap() > 2.9);
    }
}
