//! Finds the largest logits of a row without sorting it, and draws from a whole
//! row without listing it. NaN and negative infinity are never selected. Pure.
//!
//! A row is read once, in blocks, by loops that the compiler turns into vector
//! instructions; what follows looks at few blocks only. So a row costs about
//! what reading it from memory does.

use super::sampler::Candidate;
use std::cmp::Ordering;

/// Logits of a block. Large enough that the figures of all blocks are few
/// beside the row, small enough that to look through one again costs little.
const BLOCK: usize = 64;

/// Running figures of a block, for vector instructions of any width.
const LANES: usize = 8;

/// Buffers of a selection; kept to be allocated once.
#[derive(Default)]
pub(crate) struct Blocks {
    /// The largest logit of each block.
    maxima: Vec<f32>,
    /// The same, for reordering.
    ranked: Vec<f32>,
    /// The mass of each block.
    masses: Vec<f64>,
}

/// Order of candidates: the likelier first; of equals, the smaller id.
pub(crate) fn likelier(a: &Candidate, b: &Candidate) -> Ordering {
    b.logit.total_cmp(&a.logit).then(a.token.cmp(&b.token))
}

/// The largest logit; the first of equals. `None` when no logit is usable.
pub(crate) fn argmax(row: &[f32]) -> Option<Candidate> {
    let mut best = (f32::NEG_INFINITY, 0);
    for (index, block) in row.chunks(BLOCK).enumerate() {
        let logit = largest(block);
        if logit > best.0 {
            best = (logit, index);
        }
    }
    let (logit, block) = best;
    let start = block * BLOCK;
    // Not there when no logit is larger than negative infinity.
    let offset = row.iter().skip(start).take(BLOCK).position(|&x| x == logit && x > f32::NEG_INFINITY)?;
    Some(Candidate { token: (start + offset) as i32, logit })
}

/// The largest usable logit of a few; negative infinity without one.
fn largest(block: &[f32]) -> f32 {
    // The comparison is false for NaN.
    let larger = |max: f32, x: f32| if x > max { x } else { max };
    let mut maxima = [f32::NEG_INFINITY; LANES];
    let (chunks, rest) = block.as_chunks::<LANES>();
    for chunk in chunks {
        for (max, &logit) in maxima.iter_mut().zip(chunk) {
            *max = larger(*max, logit);
        }
    }
    maxima.iter().chain(rest).fold(f32::NEG_INFINITY, |max, &x| larger(max, x))
}

impl Blocks {
    /// Sets `best` to the `k` largest logits of a row, likeliest first.
    pub(crate) fn top(&mut self, row: &[f32], k: usize, best: &mut Vec<Candidate>) {
        best.clear();
        let k = k.min(row.len());
        if k == 0 {
            return;
        }
        if k > row.len() / BLOCK {
            top_of_many(row, k, best);
        } else {
            // `k` blocks have a logit of at least the `k`-th largest maximum,
            // so nothing below it is among the `k` largest logits.
            self.maxima.clear();
            self.maxima.extend(row.chunks(BLOCK).map(largest));
            self.ranked.clear();
            self.ranked.extend_from_slice(&self.maxima);
            let (_, least, _) = self.ranked.select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a));
            let least = *least;
            for (index, block) in row.chunks(BLOCK).enumerate() {
                if self.maxima[index] >= least {
                    extend_from(best, block, index * BLOCK, least);
                }
            }
        }
        if best.len() > k {
            best.select_nth_unstable_by(k - 1, likelier);
            best.truncate(k);
        }
        best.sort_unstable_by(likelier);
    }

    /// The mass of a row: the sum of the unnormalized probabilities of its
    /// logits under a temperature, relative to `max`, the largest.
    pub(crate) fn mass(&mut self, row: &[f32], max: f32, temperature: f32) -> f64 {
        self.masses.clear();
        self.masses.extend(row.chunks(BLOCK).map(|block| mass(block, max, 1.0 / temperature)));
        self.masses.iter().sum()
    }

    /// The token of a row at which `share` of its mass is passed, in the order
    /// of the ids; `None` where rounding leaves a crumb of it.
    pub(crate) fn pick(&mut self, row: &[f32], max: f32, temperature: f32, share: f64) -> Option<i32> {
        let mut left = share * self.mass(row, max, temperature);
        let block = self.masses.iter().position(|&mass| {
            let is_here = left < mass;
            left -= if is_here { 0.0 } else { mass };
            is_here
        })?;
        let start = block * BLOCK;
        let offset = row[start..].iter().take(BLOCK).position(|logit| {
            left -= f64::from(exp((logit - max) * (1.0 / temperature)));
            left < 0.0
        })?;
        Some((start + offset) as i32)
    }
}

/// Appends the usable logits of a block, whose first token is `start`, that are
/// at least `least`.
fn extend_from(candidates: &mut Vec<Candidate>, block: &[f32], start: usize, least: f32) {
    for (offset, &logit) in block.iter().enumerate() {
        if logit >= least && logit > f32::NEG_INFINITY {
            candidates.push(Candidate { token: (start + offset) as i32, logit });
        }
    }
}

/// Appends the `k` largest logits of a row and perhaps others, for a `k` that is
/// many beside the row.
fn top_of_many(row: &[f32], k: usize, best: &mut Vec<Candidate>) {
    // Everything above `least` is collected; when there are many, only the
    // best `k` stay and `least` rises.
    let room = (2 * k).max(64);
    let mut least = f32::NEG_INFINITY;
    best.reserve(room.min(row.len()));
    for (index, &logit) in row.iter().enumerate() {
        if logit > least {
            best.push(Candidate { token: index as i32, logit });
            if best.len() == room && k < room {
                best.select_nth_unstable_by(k - 1, likelier);
                best.truncate(k);
                least = best[k - 1].logit;
            }
        }
    }
}

/// Appends every usable logit of a row that is at least `least`: the likeliest
/// first, the others in no useful order.
pub(crate) fn all(row: &[f32], least: f32, candidates: &mut Vec<Candidate>) {
    for (index, block) in row.chunks(BLOCK).enumerate() {
        if largest(block) >= least {
            extend_from(candidates, block, index * BLOCK, least);
        }
    }
    let first = (0..candidates.len()).min_by(|&a, &b| likelier(&candidates[a], &candidates[b]));
    if let Some(first) = first {
        candidates.swap(0, first);
    }
}

/// The mass of at most a block of logits. Each term is right to seven digits:
/// so is what llama.cpp computed the logits with.
fn mass(block: &[f32], max: f32, sharpness: f32) -> f64 {
    // Two loops, since the compiler finds vector instructions for each, but not
    // for both in one.
    let mut terms = [0.0_f32; BLOCK];
    for (term, &logit) in terms.iter_mut().zip(block) {
        *term = exp((logit - max) * sharpness);
    }
    let mut sums = [0.0_f32; LANES];
    for chunk in terms.as_chunks::<LANES>().0 {
        for (sum, &term) in sums.iter_mut().zip(chunk) {
            *sum += term;
        }
    }
    sums.into_iter().map(f64::from).sum()
}

/// `e` to the power of `x`, which is at most 0; 0 for NaN and where a float
/// would lose digits. The standard one can't be vectorized.
#[inline]
fn exp(x: f32) -> f32 {
    /// Added to a small number, leaves its nearest integer in the last bits.
    const ROUND: f32 = 12_582_912.0;
    /// The natural logarithm of 2, as a short number and the rest.
    const LN_2: [f32; 2] = [355.0 / 512.0, -2.121_944_4e-4];
    const LEAST: f32 = -87.0;
    // The comparison is false for NaN.
    let is_seen = x > LEAST;
    let x = if is_seen { x } else { LEAST };
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = x - n * LN_2[0] - n * LN_2[1];
    // The series of the exponential, its last terms adjusted to the range of
    // `r`, half of LN_2 to both sides (Cephes, expf.c).
    let series = 1.987_569_1e-4;
    let series = series * r + 1.398_199_9e-3;
    let series = series * r + 8.333_452e-3;
    let series = series * r + 4.166_579_6e-2;
    let series = series * r + 1.666_666_5e-1;
    let series = series * r + 0.5;
    let power = series * r * r + r + 1.0;
    // Multiplies by 2 to the power of `n`: adds to the exponent.
    let scaled = f32::from_bits(power.to_bits().wrapping_add(shifted.to_bits() << 23));
    if is_seen { scaled } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A fixed sequence that looks random.
    fn row(n: usize) -> Vec<f32> {
        (0..n as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 12) as f32 / 1e5 - 5.0).collect()
    }

    fn by_sorting(row: &[f32], k: usize) -> Vec<Candidate> {
        let mut all: Vec<Candidate> = row
            .iter()
            .enumerate()
            .filter(|(_, logit)| **logit > f32::NEG_INFINITY)
            .map(|(index, &logit)| Candidate { token: index as i32, logit })
            .collect();
        all.sort_by(likelier);
        all.truncate(k);
        all
    }

    #[test]
    fn selection_equals_sorting() {
        for n in [1, 7, 64, 1000, 5003] {
            for k in [1, 2, 40, 63, 64, 65, 1000, 10_000] {
                let row = row(n);
                let mut best = Vec::new();
                Blocks::default().top(&row, k, &mut best);
                assert_eq!(best, by_sorting(&row, k), "{k} of {n}");
            }
        }
    }

    #[test]
    fn equal_logits_are_taken_by_id() {
        let row = vec![1.0; 500];
        let mut best = Vec::new();
        Blocks::default().top(&row, 3, &mut best);
        assert_eq!(best.iter().map(|c| c.token).collect::<Vec<_>>(), [0, 1, 2]);
    }

    #[test]
    fn unusable_logits_are_never_selected() {
        let row = [f32::NAN, f32::NEG_INFINITY, 2.0, f32::NAN, 1.0];
        let mut best = Vec::new();
        Blocks::default().top(&row, 5, &mut best);
        assert_eq!(best.iter().map(|c| c.token).collect::<Vec<_>>(), [2, 4]);
        assert_eq!(argmax(&row).unwrap().token, 2);
        assert!(argmax(&[f32::NAN, f32::NEG_INFINITY]).is_none());
    }

    #[test]
    fn few_usable_logits_among_many_are_all_found() {
        let mut row = vec![f32::NAN; 3 * BLOCK + 5];
        row[BLOCK] = f32::NEG_INFINITY;
        row[7] = 1.0;
        row[3 * BLOCK + 4] = 2.0;
        let mut best = Vec::new();
        Blocks::default().top(&row, 3, &mut best);
        assert_eq!(best.iter().map(|c| c.token as usize).collect::<Vec<_>>(), [3 * BLOCK + 4, 7]);
        best.clear();
        all(&row, f32::NEG_INFINITY, &mut best);
        assert_eq!(best.len(), 2);
        assert_eq!(best[0].logit, 2.0);
    }

    #[test]
    fn the_mass_of_a_row_is_the_sum_of_its_exponentials() {
        let row: Vec<f32> = row(1000).into_iter().chain([f32::NAN, f32::NEG_INFINITY]).collect();
        let max = argmax(&row).unwrap().logit;
        for temperature in [0.1, 1.0, 2.5_f32] {
            let exact: f64 = row
                .iter()
                .filter(|logit| !logit.is_nan())
                .map(|&logit| (f64::from(logit - max) / f64::from(temperature)).exp())
                .sum();
            let mass = Blocks::default().mass(&row, max, temperature);
            assert!((mass / exact - 1.0).abs() < 1e-6, "{mass}, {exact}");
        }
    }

    #[test]
    fn exponentials_are_right_to_the_last_digits() {
        for i in 0..=87_000 {
            let x = -i as f32 / 1000.0;
            let exact = f64::from(x).exp();
            assert!((f64::from(exp(x)) / exact - 1.0).abs() < 3e-7 || x <= -87.0, "{x}: {}, {exact}", exp(x));
        }
        for x in [f32::NAN, f32::NEG_INFINITY, -1e30, -88.0] {
            assert_eq!(exp(x), 0.0);
        }
    }

    #[test]
    fn a_share_of_the_mass_finds_its_token() {
        let mut row = row(5 * BLOCK);
        row[3 * BLOCK] = f32::NAN;
        row[3 * BLOCK + 1] = f32::NEG_INFINITY;
        let max = argmax(&row).unwrap().logit;
        let mut blocks = Blocks::default();
        let total = blocks.mass(&row, max, 1.0);
        let mut before = 0.0;
        for (token, &logit) in row.iter().enumerate() {
            let own = if logit > f32::NEG_INFINITY { f64::from(logit - max).exp() } else { continue };
            let middle = (before + own / 2.0) / total;
            assert_eq!(blocks.pick(&row, max, 1.0, middle), Some(token as i32));
            before += own;
        }
        assert_eq!(blocks.pick(&row, max, 1.0, 0.0), Some(0));
    }

    #[test]
    fn argmax_finds_every_place() {
        for n in (1..40).chain([BLOCK, BLOCK + 1, 3 * BLOCK - 1]) {
            for at in 0..n {
                let mut row = vec![-1.0; n];
                row[at] = 1.0;
                assert_eq!(argmax(&row).unwrap().token as usize, at);
            }
        }
    }
}
