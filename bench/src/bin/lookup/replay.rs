//! What the core's lookup gains on an answer, given what steps cost: the
//! guesses are the core's own, the times are not measured. Tells noise from
//! what is so.

use crate::{
    costs::{Costs, MAX_ROWS},
    curve::Curve,
    lookup::Lookup,
};
use std::time::Duration;

/// The length of a plain step; any would do.
const STEP: Duration = Duration::from_millis(10);

/// Drafts of each size before the answer: the engine has served others.
const WARM: usize = 30;

/// How many times as fast as plain decode: `tokens` is the prompt and the
/// answer, which begins at `n_prompt`.
pub(crate) fn gain(tokens: &[i32], n_prompt: usize, costs: &Costs) -> f64 {
    let mut curve = Curve::default();
    curve.observe(1, STEP);
    for _ in 0..WARM {
        (2..=MAX_ROWS).for_each(|n_rows| curve.observe(n_rows, STEP.mul_f64(costs.of(n_rows) + costs.change)));
    }
    let mut lookup = Lookup::default();
    let mut draft = Vec::new();
    // The first token of an answer is the prefill's.
    let first = n_prompt + 1;
    let (mut at, mut taken, mut rows_before) = (first, 0.0, 1);
    while at < tokens.len() {
        lookup.update(&tokens[..at]);
        lookup.draft(&tokens[..at], &curve, tokens.len() - at - 1, &mut draft);
        let n_rows = draft.len() + 1;
        let cost = costs.of(n_rows) + if n_rows == rows_before { 0.0 } else { costs.change };
        rows_before = n_rows;
        taken += cost;
        curve.observe(n_rows, STEP.mul_f64(cost));
        for offset in 0..=draft.len() {
            lookup.drawn(&tokens[..at], tokens[at]);
            at += 1;
            if draft.get(offset) != tokens.get(at - 1) {
                break;
            }
        }
    }
    if taken > 0.0 {
        tokens.len().saturating_sub(first) as f64 / taken
    } else {
        1.0
    }
}
