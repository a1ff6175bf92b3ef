//! What the best possible lookup would gain on an answer, given what steps
//! cost: one that knows the answer, and guesses only what stood before in the
//! prompt or the answer. A step after one of another size costs it no more.

use crate::costs::{Costs, MAX_ROWS};

/// How many tokens from `at` on stand in the same order somewhere before,
/// after the `gram` tokens that stand before `at`; at most `most`.
fn stands_before(tokens: &[i32], at: usize, gram: usize, most: usize) -> usize {
    (gram..at)
        .filter(|&place| tokens[place - gram..place] == tokens[at - gram..at])
        .map(|place| tokens[place..at].iter().zip(&tokens[at..]).take(most).take_while(|(a, b)| a == b).count())
        .max()
        .unwrap_or(0)
}

/// How many times as fast as plain decode: `tokens` is the prompt and the
/// answer, which begins at `n_prompt`.
pub(crate) fn best_gain(tokens: &[i32], n_prompt: usize, gram: usize, costs: &Costs) -> f64 {
    // The first token of an answer is the prefill's.
    let first = n_prompt + 1;
    // The least time for all tokens from a place on.
    let mut least = vec![0.0; tokens.len() + 1];
    for at in (first..tokens.len()).rev() {
        let most = stands_before(tokens, at, gram, MAX_ROWS - 1).min(tokens.len() - at - 1);
        least[at] = (0..=most).map(|n| costs.of(n + 1) + least[at + n + 1]).fold(f64::INFINITY, f64::min);
    }
    (tokens.len() - first) as f64 / least[first]
}
