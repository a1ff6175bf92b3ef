//! Draws a token from logits. One sampler, with its own random numbers, a
//! request. Pure: no FFI, no clock, no channels.
//!
//! The order of the filters is llama.cpp's: bias and penalties, top-k,
//! typical, top-p, min-p, temperature. Each filter looks at the distribution
//! over what the filters before it left. The vocabulary is never sorted: the
//! likeliest candidates are selected first, and a nucleus that is not complete
//! among them selects more.
//!
//! Nothing is allocated for a token, but when a buffer grows for the first time.

use super::{
    adjustment::Adjustment,
    selection::{Blocks, all, argmax},
};
use crate::{MullamaError, StreamConfig, TokenId};
use rand_chacha::{
    ChaCha8Rng,
    rand_core::{Rng, SeedableRng},
};
/// Candidates that a nucleus without top-k selects at first. Nearly every
/// nucleus of a sure model is inside.
const FIRST_NUCLEUS: usize = 256;

/// Random words (of 32 bits) that a draw takes.
const WORDS_OF_DRAW: u128 = 2;

/// A token with its logit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Candidate {
    pub(crate) token: TokenId,
    pub(crate) logit: f32,
}

/// The log-probabilities at one place.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Logprobs {
    pub(crate) chosen: f32,
    /// Likeliest first.
    pub(crate) top: Vec<(TokenId, f32)>,
}

/// The sampler of one request.
pub(crate) struct Sampler {
    config: StreamConfig,
    adjustment: Adjustment,
    rng: ChaCha8Rng,
    /// Whether `rng` stands where the sequence does. Each place of a sequence
    /// has its own random number, so that a generation that goes on with the
    /// same seed draws what an uninterrupted one does.
    is_placed: bool,
    candidates: Vec<Candidate>,
    blocks: Blocks,
}

impl Sampler {
    /// `config` was validated; `eog` are the end-of-generation tokens.
    pub(crate) fn new(config: &StreamConfig, seed: u64, eog: &[TokenId]) -> Self {
        Self {
            config: config.clone(),
            adjustment: Adjustment::new(config, eog),
            rng: ChaCha8Rng::seed_from_u64(seed),
            is_placed: false,
            candidates: Vec::new(),
            blocks: Blocks::default(),
        }
    }

    /// Draws the next token. `history` holds all tokens so far, prompt first.
    /// `logits` are used to work in, and are afterwards as they were.
    ///
    /// # Errors
    /// `Generation` when no token has a finite logit.
    pub(crate) fn sample(&mut self, logits: &mut [f32], history: &[TokenId]) -> Result<TokenId, MullamaError> {
        self.adjustment.apply(logits, history);
        let token = self.choose(logits, history);
        self.adjustment.undo(logits);
        token
    }

    fn choose(&mut self, row: &[f32], history: &[TokenId]) -> Result<TokenId, MullamaError> {
        let config = &self.config;
        if config.temperature == 0.0 {
            return argmax(row).map(|best| best.token).ok_or_else(no_candidate);
        }
        self.candidates.clear();
        let mut top_p_is_due = config.top_p < 1.0;
        if config.top_k > 0 && config.top_k < row.len() {
            self.blocks.top(row, config.top_k, &mut self.candidates);
        } else if config.typical_p < 1.0 {
            all(row, f32::NEG_INFINITY, &mut self.candidates);
        } else {
            let best = argmax(row).ok_or_else(no_candidate)?;
            if top_p_is_due {
                self.blocks.nucleus(row, best, config.top_p, &mut self.candidates);
                top_p_is_due = false;
            } else if config.min_p > 0.0 {
                all(row, best.logit + config.min_p.ln(), &mut self.candidates);
            } else {
                // Nothing is filtered, so nothing need be listed.
                let share = self.share(history);
                let token = self.blocks.pick(row, best.logit, self.config.temperature, share);
                return Ok(token.unwrap_or(best.token));
            }
        }
        if self.candidates.is_empty() {
            return Err(no_candidate());
        }
        if config.typical_p < 1.0 {
            typical(&mut self.candidates, config.typical_p);
        }
        if top_p_is_due {
            let mass = mass(&self.candidates, 1.0);
            cut_nucleus(&mut self.candidates, config.top_p, mass);
        }
        if config.min_p > 0.0 {
            let least = self.candidates[0].logit + config.min_p.ln();
            self.candidates.retain(|candidate| candidate.logit >= least);
        }
        let share = self.share(history);
        Ok(self.draw(share))
    }

    /// The random number of the next place, from 0 up to 1.
    fn share(&mut self, history: &[TokenId]) -> f64 {
        if !self.is_placed {
            self.rng.set_word_pos(history.len() as u128 * WORDS_OF_DRAW);
            self.is_placed = true;
        }
        // 53 random bits.
        (self.rng.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// The candidate at which `share` of all probability under the temperature
    /// is passed.
    fn draw(&self, share: f64) -> TokenId {
        let total = mass(&self.candidates, self.config.temperature);
        let max = self.candidates[0].logit;
        let mut left = share * total;
        for candidate in &self.candidates {
            left -= f64::from((candidate.logit - max) / self.config.temperature).exp();
            if left < 0.0 {
                return candidate.token;
            }
        }
        // Rounding may leave a crumb: the first one has the largest share.
        self.candidates[0].token
    }
}

/// Log-probability of `chosen` and the `n` likeliest tokens of a row, under
/// the model's own distribution.
pub(crate) fn logprobs(logits: &[f32], chosen: TokenId, n: usize) -> Logprobs {
    let mut blocks = Blocks::default();
    let mut best = Vec::new();
    blocks.top(logits, n, &mut best);
    let max = best.first().copied().or_else(|| argmax(logits)).map_or(0.0, |best| best.logit);
    let log_sum = (blocks.mass(logits, max, 1.0).ln() + f64::from(max)) as f32;
    let chosen = logits.get(chosen as usize).map_or(f32::NEG_INFINITY, |logit| logit - log_sum);
    Logprobs { chosen, top: best.into_iter().map(|best| (best.token, best.logit - log_sum)).collect() }
}

fn no_candidate() -> MullamaError {
    MullamaError::Generation("no token has a finite logit; loosen logit_bias or check the model file".to_owned())
}

/// Sum of the unnormalized probabilities of candidates under a temperature,
/// relative to the first, which is the likeliest.
fn mass(candidates: &[Candidate], temperature: f32) -> f64 {
    let max = candidates[0].logit;
    candidates.iter().map(|candidate| f64::from((candidate.logit - max) / temperature).exp()).sum()
}

/// Keeps the likeliest candidates up to the one that completes `p` of `mass`.
/// Gives whether `p` was completed.
fn cut_nucleus(candidates: &mut Vec<Candidate>, p: f32, mass: f64) -> bool {
    let max = candidates[0].logit;
    let mut left = f64::from(p) * mass;
    for index in 0..candidates.len() {
        left -= f64::from(candidates[index].logit - max).exp();
        if left <= 0.0 {
            candidates.truncate(index + 1);
            return true;
        }
    }
    false
}

impl Blocks {
    /// The nucleus of a whole row, whose likeliest token is `best`.
    fn nucleus(&mut self, row: &[f32], best: Candidate, p: f32, candidates: &mut Vec<Candidate>) {
        let mass = self.mass(row, best.logit, 1.0);
        let mut n = FIRST_NUCLEUS;
        loop {
            self.top(row, n, candidates);
            if cut_nucleus(candidates, p, mass) || n >= row.len() {
                return;
            }
            n = n.saturating_mul(8).min(row.len());
        }
    }
}

/// Locally typical sampling (Meister et al., arXiv:2202.00666): keeps the
/// candidates whose surprise is nearest to the entropy, up to `p` of the mass.
fn typical(candidates: &mut Vec<Candidate>, p: f32) {
    let max = f64::from(candidates[0].logit);
    let log_total = mass(candidates, 1.0).ln();
    let surprise = |candidate: &Candidate| log_total - (f64::from(candidate.logit) - max);
    let entropy: f64 = candidates
        .iter()
        .map(|candidate| (-surprise(candidate)).exp() * surprise(candidate))
        .filter(|term| term.is_finite())
        .sum();
    let distance = |candidate: &Candidate| (surprise(candidate) - entropy).abs();
    candidates.sort_by(|a, b| distance(a).total_cmp(&distance(b)));
    let mut left = f64::from(p);
    let mut n = 0;
    while n < candidates.len() && (n == 0 || left > 0.0) {
        left -= (-surprise(&candidates[n])).exp();
        n += 1;
    }
    candidates.truncate(n);
    candidates.sort_by(super::selection::likelier);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Logits of a distribution.
    fn logits(shares: &[f32]) -> Vec<f32> {
        shares.iter().map(|share| share.ln()).collect()
    }

    /// A config that filters nothing.
    fn open() -> StreamConfig {
        StreamConfig::new().temperature(1.0).top_k(0).top_p(1.0).min_p(0.0)
    }

    /// How often each token is drawn in `n` draws.
    fn draws(config: &StreamConfig, row: &[f32], n: usize) -> Vec<usize> {
        let mut sampler = Sampler::new(config, 7, &[]);
        let mut counts = vec![0; row.len()];
        for _ in 0..n {
            counts[sampler.sample(&mut row.to_vec(), &[]).unwrap() as usize] += 1;
        }
        counts
    }

    /// Which tokens are ever drawn.
    fn support(config: &StreamConfig, row: &[f32]) -> Vec<usize> {
        let counts = draws(config, row, 4000);
        (0..row.len()).filter(|&token| counts[token] > 0).collect()
    }

    fn greedy(config: &StreamConfig, row: &[f32], history: &[TokenId]) -> TokenId {
        let mut worked_in = row.to_vec();
        let token = Sampler::new(&config.clone().temperature(0.0), 1, &[4]).sample(&mut worked_in, history).unwrap();
        assert_eq!(worked_in, row, "a row is afterwards as it was");
        token
    }

    const SHARES: [f32; 5] = [0.08, 0.5, 0.3, 0.1, 0.02];

    #[test]
    fn draws_follow_the_distribution() {
        let n = 200_000;
        let counts = draws(&open(), &logits(&SHARES), n);
        for (count, share) in counts.iter().zip(SHARES) {
            let expected = share * n as f32;
            // Five standard deviations of a binomial count.
            let margin = 5.0 * (expected * (1.0 - share)).sqrt();
            assert!((*count as f32 - expected).abs() < margin, "{count} draws for a share of {share}");
        }
    }

    #[test]
    fn temperature_sharpens_the_distribution() {
        let counts = draws(&open().temperature(0.5), &logits(&[0.25, 0.75]), 100_000);
        // Squared shares: 1 to 9.
        let share = counts[1] as f32 / 100_000.0;
        assert!((share - 0.9).abs() < 0.01, "{share}");
    }

    #[test]
    fn each_filter_keeps_what_it_should() {
        let row = logits(&SHARES);
        assert_eq!(support(&open(), &row), [0, 1, 2, 3, 4]);
        assert_eq!(support(&open().top_k(2), &row), [1, 2]);
        assert_eq!(support(&open().top_p(0.79), &row), [1, 2]);
        assert_eq!(support(&open().top_p(0.81), &row), [1, 2, 3]);
        assert_eq!(support(&open().top_p(0.0), &row), [1]);
        assert_eq!(support(&open().min_p(0.5), &row), [1, 2]);
        assert_eq!(support(&open().min_p(1.0), &row), [1]);
    }

    #[test]
    fn top_p_counts_what_top_k_left() {
        // Of 0.5 and 0.3 the first alone is 0.625.
        assert_eq!(support(&open().top_k(2).top_p(0.6), &logits(&SHARES)), [1]);
    }

    #[test]
    fn a_wide_nucleus_is_found_without_top_k() {
        let row = vec![0.0; 5000];
        let mut sampler = Sampler::new(&open().top_p(0.5), 3, &[]);
        sampler.sample(&mut row.clone(), &[]).unwrap();
        assert_eq!(sampler.candidates.len(), 2500);
    }

    #[test]
    fn typical_keeps_the_tokens_near_the_entropy() {
        // Entropy 1.19: token 2 (surprise 1.20) is nearest.
        assert_eq!(support(&open().typical_p(0.2), &logits(&SHARES)), [2]);
    }

    #[test]
    fn the_same_seed_repeats_the_draws() {
        let row = logits(&SHARES);
        let run = |seed| {
            let mut sampler = Sampler::new(&open(), seed, &[]);
            (0..50).map(|_| sampler.sample(&mut row.clone(), &[]).unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(run(5), run(5));
        assert_ne!(run(5), run(6));
    }

    #[test]
    fn greedy_takes_the_likeliest_and_the_first_of_equals() {
        assert_eq!(greedy(&open(), &[1.0, 3.0, 3.0], &[]), 1);
    }

    #[test]
    fn bias_moves_and_bans_tokens() {
        let row = logits(&SHARES);
        assert_eq!(greedy(&open().logit_bias([(4, 100.0)]), &row, &[]), 4);
        assert_eq!(greedy(&open().logit_bias([(1, f32::NEG_INFINITY)]), &row, &[]), 2);
        assert_eq!(support(&open().logit_bias([(1, f32::NEG_INFINITY)]), &row), [0, 2, 3, 4]);
    }

    #[test]
    fn ignore_eos_bans_end_tokens() {
        let row = logits(&[0.1, 0.1, 0.1, 0.1, 0.6]);
        assert_eq!(greedy(&open(), &row, &[]), 4);
        assert_eq!(greedy(&open().ignore_eos(true), &row, &[]), 0);
    }

    #[test]
    fn penalties_look_at_the_last_tokens_only() {
        let row = [2.0, 1.9, -1.0];
        assert_eq!(greedy(&open().repeat_penalty(1.5), &row, &[0]), 1);
        assert_eq!(greedy(&open().repeat_penalty(1.5).repeat_last_n(1), &row, &[0, 2]), 0);
        assert_eq!(greedy(&open().presence_penalty(0.2), &row, &[0]), 1);
        assert_eq!(greedy(&open().frequency_penalty(0.06), &row, &[0]), 0);
        assert_eq!(greedy(&open().frequency_penalty(0.06), &row, &[0, 0]), 1);
        // A negative logit is multiplied, so that it falls too.
        assert_eq!(greedy(&open().repeat_penalty(2.0), &[-1.0, -1.5], &[0]), 1);
    }

    #[test]
    fn rows_without_a_finite_logit_are_an_error() {
        let mut sampler = Sampler::new(&open(), 1, &[]);
        for mut row in [[f32::NAN; 3], [f32::NEG_INFINITY; 3]] {
            assert!(matches!(sampler.sample(&mut row, &[]), Err(MullamaError::Generation(_))));
        }
        assert_eq!(sampler.sample(&mut [f32::NAN, 1.0, f32::NEG_INFINITY], &[]).unwrap(), 1);
    }

    #[test]
    fn logprobs_are_those_of_the_whole_distribution() {
        let got = logprobs(&logits(&SHARES), 3, 2);
        assert!((got.chosen - 0.1_f32.ln()).abs() < 1e-5);
        assert_eq!(got.top.iter().map(|top| top.0).collect::<Vec<_>>(), [1, 2]);
        assert!((got.top[0].1 - 0.5_f32.ln()).abs() < 1e-5);
        assert!(logprobs(&logits(&SHARES), 3, 0).top.is_empty());
    }
}
