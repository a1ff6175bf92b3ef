//! Prompt lookup: guesses what a sequence says next from where its last tokens
//! stood before, in the prompt or the answer, and whether evaluating a guess
//! together with the next token is worth its time. Pure: no FFI, no clock, no
//! channels. One [`Lookup`] a sequence; what steps cost is [`Curve`]'s.
//!
//! A guess changes no result: each of its rows is sampled as in plain decode,
//! and counts only as long as the drawn token is the guessed one.
//!
//! How often guesses are right is learned without drafts too, from what plain
//! decode draws, so texts that do not repeat pay nothing. What drafts may lose
//! in all is bounded, whatever the text.
//!
//! [`Curve`]: super::curve::Curve

use super::curve::{Curve, MAX_ROWS};
use crate::TokenId;
use std::collections::HashMap;

/// Tokens that must have stood before in the same order: the longest is tried
/// first.
const GRAMS: [usize; 3] = [8, 5, 3];

/// Matches are told apart by their length: these are the fewest tokens of each
/// class, and the chance that the next token is wrong before anything is
/// known of the text.
const CLASSES: [(usize, f64); 6] = [(0, 0.6), (3, 0.6), (4, 0.25), (5, 0.11), (8, 0.1), (16, 0.08)];

/// Guesses that the chance of a class counts for.
const WEIGHT: f64 = 6.0;

/// Wrong guesses of any class that it takes to learn how much more, or less,
/// often than `CLASSES` says they are wrong in this text.
const TEXT_WEIGHT: f64 = 4.0;

/// No guess is thought to be wrong more often.
const MOST_WRONG: f64 = 0.95;

/// Weight that each observation takes from those before it.
const FADE: f64 = 0.98;

/// Longest match that is looked at.
const LONGEST: usize = 16;

/// Where a match ended, the same text often goes on after a changed part: so
/// many tokens before and after the place are looked at,
const NEAR: (usize, usize) = (3, 10);

/// for a match of at least so many tokens,
const NEAR_GRAM: usize = 2;

/// which is as good as one with so many more.
const NEAR_BONUS: usize = 2;

/// How much quicker a draft must promise to be.
const WORTH: f64 = 1.2;

/// Share of the tokens that a draft promises which is sure enough to be no
/// loss, as long as a text's drafts have lost nothing.
const SURE: f64 = 0.4;

/// Plain steps that all drafts of a text may lose,
const MAY_LOSE: f64 = 1.2;

/// what they may lose, however sure they are, before guesses like them were
/// right `WEIGHT` times,
const MAY_LOSE_UNSEEN: f64 = 1.9;

/// and what they may lose of a long text.
const MAY_LOSE_SHARE: f64 = 0.015;

/// A guess at the next token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Guess {
    /// Where the token stands.
    place: usize,
    /// Tokens before it that match.
    length: usize,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Lookup {
    /// For each length of `GRAMS`, the place after the latest of its kind.
    places: [HashMap<u64, usize>; GRAMS.len()],
    /// Tokens whose groups are in `places`.
    n_indexed: usize,
    /// Rights and wrongs of each of `CLASSES`.
    seen: [(f64, f64); CLASSES.len()],
    /// Wrongs of all classes, and how many `CLASSES` made expect.
    wrong: (f64, f64),
    guess: Option<Guess>,
    /// Where the text would go on that the latest match was of.
    lost: Option<usize>,
    /// Guessed tokens of the step that were not drawn yet.
    n_drafted: usize,
    /// Tokens that were drawn.
    n_drawn: usize,
    /// Plain steps that drafts took more than they saved.
    lost_steps: f64,
}

impl Default for Lookup {
    fn default() -> Self {
        Self {
            places: Default::default(),
            n_indexed: 0,
            seen: Default::default(),
            wrong: (0.0, 0.0),
            guess: None,
            lost: None,
            n_drafted: 0,
            n_drawn: 0,
            lost_steps: 0.0,
        }
    }
}

impl Lookup {
    /// Looks for what comes after `tokens`. Call it before each step.
    pub(super) fn update(&mut self, tokens: &[TokenId]) {
        self.n_drafted = 0;
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
        self.n_drawn += 1;
        let was_drafted = self.n_drafted > 0;
        self.n_drafted = self.n_drafted.saturating_sub(1);
        let Some(Guess { place, length }) = self.guess.take() else {
            self.lost = self.lost.map(|place| place + 1);
            return;
        };
        let is_right = known.get(place) == Some(&token);
        let class = class(length);
        let fade = |sum: &mut f64, newest: f64| *sum = *sum * FADE + newest;
        let [newest_right, newest_wrong] = [is_right, !is_right].map(|is| f64::from(u8::from(is)));
        fade(&mut self.seen[class].0, newest_right);
        fade(&mut self.seen[class].1, newest_wrong);
        fade(&mut self.wrong.0, newest_wrong);
        fade(&mut self.wrong.1, CLASSES[class].1);
        self.lost = Some(place + 1);
        if is_right {
            if was_drafted {
                self.lost_steps -= 1.0;
            }
            // Within a draft the same match goes on.
            if place + 1 < known.len() {
                self.guess = Some(Guess { place: place + 1, length: length + 1 });
            }
        }
    }

    /// Puts what to draft after `tokens` into `draft`: at most `most` tokens,
    /// none where a plain step is the better one.
    pub(super) fn draft(&mut self, tokens: &[TokenId], curve: &Curve, most: usize, draft: &mut Vec<TokenId>) {
        draft.clear();
        let Some(Guess { place, length }) = self.guess else { return };
        let of_text = MAY_LOSE_SHARE * self.n_drawn as f64;
        let [may_lose, may_lose_unseen] = [MAY_LOSE, MAY_LOSE_UNSEEN].map(|steps| steps.max(of_text) - self.lost_steps);
        let is_seen = self.seen[class(length)].0 >= WEIGHT;
        let sure = if self.lost_steps > 0.0 { 0.0 } else { SURE };
        let (mut best, mut loss) = (WORTH, 0.0);
        // The mean number of tokens: those before the first wrong one, and the
        // one that is drawn in its place.
        let (mut mean, mut chance) = (0.0, 1.0);
        for n in 0..=most.min(MAX_ROWS - 1) {
            mean += chance;
            chance *= self.right(length + n);
            let Some(cost) = curve.cost(n + 1) else { continue };
            let wrong = cost - 1.0;
            let at_risk = wrong - sure * (mean - 1.0);
            if mean / cost > best && at_risk <= may_lose && (is_seen || wrong <= may_lose_unseen) {
                best = mean / cost;
                loss = wrong;
                self.n_drafted = n;
            }
        }
        self.lost_steps += loss;
        // What reaches the end of the tokens goes on with what it guessed: it
        // is a text that repeats itself over and over.
        draft.extend(tokens[place..].iter().cycle().take(self.n_drafted));
    }

    /// The chance that the token after a match of that length is right.
    fn right(&self, length: usize) -> f64 {
        let class = class(length);
        let of_text = (TEXT_WEIGHT + self.wrong.0) / (TEXT_WEIGHT + self.wrong.1);
        let expected = (CLASSES[class].1 * of_text).min(MOST_WRONG);
        let (right, wrong) = self.seen[class];
        1.0 - (WEIGHT * expected + wrong) / (WEIGHT + right + wrong)
    }

    fn find(&self, tokens: &[TokenId]) -> Option<Guess> {
        let is_near =
            |place: usize| self.lost.is_some_and(|lost| (lost.saturating_sub(NEAR.0)..=lost + NEAR.1).contains(&place));
        let of_group = GRAMS.iter().zip(&self.places).find_map(|(&n, places)| {
            let place = *places.get(&hash(tokens.get(tokens.len().checked_sub(n)?..)?))?;
            let length = matching(tokens, place);
            // Fewer than were looked up: another group has the same hash.
            (length >= n).then_some(Guess { place, length: length + if is_near(place) { NEAR_BONUS } else { 0 } })
        });
        of_group.or_else(|| {
            let lost = self.lost?;
            let last = (lost + NEAR.1).min(tokens.len() - 1);
            let places = lost.saturating_sub(NEAR.0)..=last;
            let place = places.into_iter().find(|&place| matching(tokens, place) >= NEAR_GRAM)?;
            Some(Guess { place, length: matching(tokens, place) + NEAR_BONUS })
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

/// How many of the last tokens stand before `place` too.
fn matching(tokens: &[TokenId], place: usize) -> usize {
    tokens[..place].iter().rev().zip(tokens.iter().rev()).take(LONGEST).take_while(|(a, b)| a == b).count()
}

/// Which of `CLASSES` a match of that length has.
fn class(length: usize) -> usize {
    CLASSES.iter().rposition(|&(least, _)| least <= length).unwrap_or(0)
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
    use std::time::Duration;

    const STEP: Duration = Duration::from_millis(10);

    fn curve() -> Curve {
        let mut curve = Curve::default();
        curve.observe(1, STEP);
        for _ in 0..30 {
            [(4, 2), (6, 3), (8, 3), (16, 5)].iter().for_each(|&(rows, cost)| curve.observe(rows, STEP * cost));
        }
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

    fn draft(lookup: &mut Lookup, text: &[TokenId], curve: &Curve, most: usize) -> Vec<TokenId> {
        let mut draft = vec![7; 3];
        lookup.draft(text, curve, most, &mut draft);
        draft
    }

    /// Decodes `text` from `from` on with drafts. Gives the plain steps that
    /// it took less than without.
    fn gained(text: &[TokenId], from: usize, cost: impl Fn(usize) -> f64) -> f64 {
        let (mut lookup, mut curve, mut n, mut taken) = (Lookup::default(), Curve::default(), from, 0.0);
        while n < text.len() {
            lookup.update(&text[..n]);
            let draft = draft(&mut lookup, &text[..n], &curve, text.len() - n - 1);
            curve.observe(draft.len() + 1, STEP.mul_f64(cost(draft.len() + 1)));
            taken += cost(draft.len() + 1);
            for offset in 0..=draft.len() {
                lookup.drawn(&text[..n], text[n]);
                n += 1;
                if draft.get(offset) != Some(&text[n - 1]) {
                    break;
                }
            }
        }
        (text.len() - from) as f64 - taken
    }

    #[test]
    fn a_text_that_repeats_is_continued_from_where_it_stood() {
        let text: Vec<TokenId> = (0..200).chain(0..150).collect();
        let guessed = |most| draft(&mut learned(&text, 200), &text, &curve(), most);
        assert_eq!(guessed(8), (150..157).collect::<Vec<_>>(), "as long as a step that was measured");
        assert_eq!(guessed(3), [150, 151, 152]);
        assert!(guessed(2).is_empty());
    }

    #[test]
    fn a_text_that_does_not_repeat_is_never_drafted() {
        let text: Vec<TokenId> = (0..200).collect();
        assert!(draft(&mut learned(&text, 3), &text, &curve(), 100).is_empty());
    }

    #[test]
    fn guesses_that_were_wrong_are_not_drafted() {
        // Each group comes again, and goes on in another way.
        let mut text = Vec::new();
        for round in 0..40 {
            text.extend([1, 2, 3, 100 + round, 200 + round]);
        }
        text.extend([1, 2, 3]);
        assert!(draft(&mut learned(&text, 1), &text, &curve(), 100).is_empty());
    }

    #[test]
    fn drafts_lose_no_more_than_a_few_steps_whatever_the_text_and_their_cost() {
        // Long matches that always end when the next draft is made.
        let mut trap: Vec<TokenId> = (0..20).collect();
        for round in 0..40 {
            trap.extend((0..20).chain([100 + round]));
        }
        for row in [0.1, 0.4, 1.0] {
            for (text, from) in [(&trap, 20), (&trap, 21)] {
                let gained = gained(text, from, |rows| 1.0 + row * (rows - 1) as f64);
                assert!(gained > -0.03 * text.len() as f64, "{gained} with rows of {row}");
            }
        }
        let mut numbers: Vec<TokenId> = vec![1];
        for n in 0..600 {
            numbers.push((numbers[n] * 75 + 74) % 65_537 / 7 % 6);
        }
        let gained = gained(&numbers, 100, |rows| 1.0 + 0.4 * (rows - 1) as f64);
        assert!(gained > -0.03 * 500.0, "{gained} of noise");
    }

    #[test]
    fn before_guesses_were_right_a_draft_risks_less_than_two_steps_however_sure_it_is() {
        let text: Vec<TokenId> = (0..200).chain(0..20).collect();
        let mut lookup = Lookup::default();
        lookup.update(&text);
        let curve = curve();
        let first = draft(&mut lookup, &text, &curve, 100);
        assert!(!first.is_empty());
        assert!(curve.cost(first.len() + 1).unwrap() - 1.0 <= MAY_LOSE_UNSEEN, "{first:?}");
    }

    #[test]
    fn a_copy_gains_from_its_first_tokens_on() {
        let text: Vec<TokenId> = (0..200).chain(0..30).collect();
        let gained = gained(&text, 205, |rows| 1.0 + 0.4 * (rows - 1) as f64);
        assert!(gained > 8.0, "{gained} of 25 steps");
    }

    #[test]
    fn a_copy_goes_on_after_a_changed_token() {
        let mut text: Vec<TokenId> = (0..200).chain(0..40).collect();
        text[220] = 777;
        let mut lookup = learned(&text[..223], 200);
        assert_eq!(draft(&mut lookup, &text[..223], &curve(), 100)[..3], [23, 24, 25]);
    }

    #[test]
    fn what_is_said_over_and_over_is_guessed_past_its_end() {
        let text: Vec<TokenId> = (0..3).cycle().take(60).collect();
        let guessed = draft(&mut learned(&text, 3), &text, &curve(), 7);
        assert_eq!(guessed, [0, 1, 2, 0, 1, 2, 0]);
    }

    #[test]
    fn nothing_is_drafted_before_a_step_was_measured() {
        let text: Vec<TokenId> = (0..40).chain(0..30).collect();
        assert!(draft(&mut learned(&text, 40), &text, &Curve::default(), 100).is_empty());
    }

    #[test]
    fn drafts_that_cost_too_much_are_given_up() {
        let text: Vec<TokenId> = (0..200).chain(0..150).collect();
        let mut curve = curve();
        for _ in 0..50 {
            [4, 6, 8, 16].iter().for_each(|&rows| curve.observe(rows, STEP * u32::try_from(rows).unwrap()));
        }
        assert!(draft(&mut learned(&text, 200), &text, &curve, 100).is_empty());
    }

    #[test]
    fn one_slow_draft_does_not_end_all() {
        let text: Vec<TokenId> = (0..200).chain(0..150).collect();
        let mut curve = Curve::default();
        curve.observe(1, STEP);
        curve.observe(4, STEP * 5);
        assert!(!draft(&mut learned(&text, 200), &text, &curve, 100).is_empty());
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
        assert_eq!(draft(&mut lookup, &known, &curve(), 100)[0], 25);
    }
}
