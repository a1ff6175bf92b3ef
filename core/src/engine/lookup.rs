//! Prompt lookup: guesses what a sequence says next from where its last tokens
//! stood before, in the prompt or the answer, and whether evaluating a guess
//! together with the next token is worth its time. Pure: no FFI, no clock, no
//! channels. One [`Lookup`] a sequence, one [`Curve`] an engine.
//!
//! A guess changes no result: each of its rows is sampled as in plain decode,
//! and counts only as long as the drawn token is the guessed one.
//!
//! How often guesses are right is learned without drafts too, from what plain
//! decode draws, so texts that do not repeat pay nothing.

use crate::TokenId;
use std::{collections::HashMap, time::Duration};

/// Most rows of a step with a draft, the first of which is no guess.
pub(super) const MAX_ROWS: usize = 16;

/// The numbers of rows that steps with a draft have; a measure for each.
const ROWS: [usize; 3] = [4, 8, MAX_ROWS];

/// Tokens that must have stood before in the same order: the longest is tried
/// first.
const GRAMS: [usize; 2] = [5, 3];

/// Matches are told apart by their length, up to these many tokens: one of
/// many tokens goes on far more often than one of few.
const LENGTHS: [usize; 3] = [5, 9, 16];

/// Rights and wrongs of each length that are assumed before any are seen.
const PRIOR: (f64, f64) = (2.0, 2.0);

/// Weight that each observation takes from those before it.
const FADE: f64 = 0.97;

/// How much quicker a draft must promise to be.
const WORTH: f64 = 1.15;

/// Share of the cost of plain steps that a row costs in a step that was never
/// measured.
const UNKNOWN_ROW: f64 = 0.6;

/// Weight of the newest step in the mean of its number of rows.
const NEWEST: f64 = 0.2;

/// What steps of one sequence cost, by their number of rows.
#[derive(Debug, Clone, Default)]
pub(super) struct Curve {
    /// Seconds of a plain step; `None` until measured.
    plain: Option<f64>,
    /// What a step of each of `ROWS` costs, in plain steps.
    drafted: [Option<f64>; ROWS.len()],
}

impl Curve {
    /// A step of one sequence took `elapsed`.
    pub(super) fn observe(&mut self, n_rows: usize, elapsed: Duration) {
        let seconds = elapsed.as_secs_f64();
        if n_rows == 1 {
            mix(&mut self.plain, seconds);
        } else if let (Some(plain), Some(index)) = (self.plain, ROWS.iter().position(|&rows| rows == n_rows)) {
            mix(&mut self.drafted[index], seconds / plain);
        }
    }

    /// Tokens to guess where each is right with a chance of `right`, and at
    /// most `most` may be; 0 where a plain step is the better one.
    fn best(&self, right: f64, most: usize) -> usize {
        if self.plain.is_none() {
            return 0;
        }
        let mut best = (WORTH, 0);
        for (&rows, cost) in ROWS.iter().zip(self.drafted).filter(|(rows, _)| **rows <= most + 1) {
            // The mean number of tokens: those before the first wrong one,
            // and the one that is drawn in its place.
            let tokens = (0..rows).fold((0.0, 1.0), |(sum, share), _| (sum + share, share * right)).0;
            let gain = tokens / cost.unwrap_or(UNKNOWN_ROW * rows as f64);
            if gain > best.0 {
                best = (gain, rows - 1);
            }
        }
        best.1
    }
}

fn mix(mean: &mut Option<f64>, value: f64) {
    *mean = Some(mean.map_or(value, |mean| mean + NEWEST * (value - mean)));
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Lookup {
    /// For each length of `GRAMS`, the place after the latest of its kind.
    places: [HashMap<u64, usize>; GRAMS.len()],
    /// Tokens whose groups are in `places`.
    n_indexed: usize,
    /// Rights and wrongs of each of `LENGTHS`.
    seen: [Option<(f64, f64)>; LENGTHS.len()],
    /// The place of the token that is guessed to come next, and which of
    /// `LENGTHS` the match has.
    guess: Option<(usize, usize)>,
}

impl Lookup {
    /// Looks for what comes after `tokens`, and takes the newest of them for
    /// the answer to the guess before it. Call it before each step.
    pub(super) fn update(&mut self, tokens: &[TokenId]) {
        // All but the newest group, which would find itself.
        if self.n_indexed == 0 {
            self.places.iter_mut().for_each(|places| places.reserve(tokens.len()));
        }
        for end in self.n_indexed..tokens.len() {
            if end == tokens.len() - 1 {
                self.guess = self.find(tokens);
            }
            self.index(tokens, end + 1);
        }
        self.n_indexed = tokens.len();
    }

    /// The token after `known` was drawn: whether the guess was right counts.
    pub(super) fn drawn(&mut self, known: &[TokenId], token: TokenId) {
        let Some((place, length)) = self.guess.take() else { return };
        let is_right = known.get(place) == Some(&token);
        let (right, wrong) = self.seen[length].unwrap_or(PRIOR);
        self.seen[length] =
            Some((right * FADE + f64::from(u8::from(is_right)), wrong * FADE + f64::from(u8::from(!is_right))));
        // Within a draft the same match goes on.
        if is_right && place + 1 < known.len() {
            self.guess = Some((place + 1, length));
        }
    }

    /// The places in `tokens` of what to draft: at most `most` tokens, none
    /// where a plain step is the better one.
    pub(super) fn draft(&self, tokens: &[TokenId], curve: &Curve, most: usize) -> std::ops::Range<usize> {
        let Some((place, length)) = self.guess else { return 0..0 };
        let (right, wrong) = self.seen[length].unwrap_or(PRIOR);
        let n = curve.best(right / (right + wrong), most.min(tokens.len() - place));
        place..place + n
    }

    fn find(&self, tokens: &[TokenId]) -> Option<(usize, usize)> {
        GRAMS.iter().zip(&self.places).find_map(|(&n, places)| {
            let place = *places.get(&hash(tokens.get(tokens.len().checked_sub(n)?..)?))?;
            let most = LENGTHS[LENGTHS.len() - 1];
            let before = tokens[..place].iter().rev().zip(tokens.iter().rev());
            let length = before.take(most).take_while(|(a, b)| a == b).count();
            // Fewer than were looked up: another group has the same hash.
            let index = LENGTHS.iter().position(|&limit| length <= limit).unwrap_or(LENGTHS.len() - 1);
            (length >= n).then_some((place, index))
        })
    }

    fn index(&mut self, tokens: &[TokenId], end: usize) {
        for (&n, places) in GRAMS.iter().zip(&mut self.places) {
            if let Some(start) = end.checked_sub(n) {
                places.insert(hash(&tokens[start..end]), end);
            }
        }
    }
}

/// FNV-1a over the tokens.
fn hash(tokens: &[TokenId]) -> u64 {
    tokens.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &token| {
        (hash ^ u64::from(token.unsigned_abs())).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: Duration = Duration::from_millis(10);

    fn curve() -> Curve {
        let mut curve = Curve::default();
        curve.observe(1, STEP);
        curve.observe(4, STEP * 2);
        curve.observe(8, STEP * 3);
        curve.observe(16, STEP * 5);
        curve
    }

    /// A lookup over a text, told of one token after the other from `from` on.
    fn learned(text: &[TokenId], from: usize) -> Lookup {
        let mut lookup = Lookup::default();
        for n in from..text.len() {
            lookup.update(&text[..n]);
            lookup.drawn(&text[..n], text[n]);
        }
        lookup.update(text);
        lookup
    }

    #[test]
    fn a_text_that_repeats_is_continued_from_its_latest_place() {
        // Long enough for the guesses to be known as right.
        let text: Vec<TokenId> = (0..200).chain(0..150).collect();
        let lookup = learned(&text, 200);
        assert_eq!(lookup.draft(&text, &curve(), 100), 150..165);
        assert_eq!(lookup.draft(&text, &curve(), 8), 150..157);
        assert_eq!(lookup.draft(&text, &curve(), 2), 150..150);
    }

    #[test]
    fn a_text_that_does_not_repeat_is_never_drafted() {
        let text: Vec<TokenId> = (0..200).collect();
        assert!(learned(&text, 3).draft(&text, &curve(), 100).is_empty());
    }

    #[test]
    fn guesses_that_were_wrong_are_not_drafted() {
        // Each group comes again, and goes on in another way.
        let mut text = Vec::new();
        for round in 0..40 {
            text.extend([1, 2, 3, 100 + round, 200 + round]);
        }
        text.extend([1, 2, 3]);
        assert!(learned(&text, 1).draft(&text, &curve(), 100).is_empty());
    }

    #[test]
    fn nothing_is_drafted_before_a_step_was_measured() {
        let text: Vec<TokenId> = (0..40).chain(0..30).collect();
        assert!(learned(&text, 40).draft(&text, &Curve::default(), 100).is_empty());
    }

    #[test]
    fn drafts_that_cost_too_much_are_given_up() {
        let mut curve = curve();
        assert!(curve.best(0.95, 100) > 0);
        for _ in 0..50 {
            ROWS.iter().for_each(|&rows| curve.observe(rows, STEP * u32::try_from(rows).unwrap()));
        }
        assert_eq!(curve.best(0.95, 100), 0);
    }

    #[test]
    fn a_guess_goes_on_within_a_draft() {
        let text: Vec<TokenId> = (0..40).chain(0..20).collect();
        let mut lookup = learned(&text, 40);
        let mut known = text.clone();
        for token in 20..25 {
            lookup.drawn(&known, token);
            known.push(token);
        }
        lookup.update(&known);
        assert_eq!(lookup.draft(&known, &curve(), 100).start, 25);
    }
}
