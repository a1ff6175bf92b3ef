//! Finds the largest logits of a row without sorting it. NaN and negative
//! infinity are never selected. Pure.

use super::sampler::Candidate;
use std::cmp::Ordering;

/// Order of candidates: the likelier first; of equals, the smaller id.
pub(crate) fn likelier(a: &Candidate, b: &Candidate) -> Ordering {
    b.logit.total_cmp(&a.logit).then(a.token.cmp(&b.token))
}

/// The largest logit; the first of equals. `None` when no logit is usable.
pub(crate) fn argmax(row: &[f32]) -> Option<Candidate> {
    // Eight running maxima let the compiler use vector instructions; the
    // comparison is false for NaN.
    let mut maxima = [f32::NEG_INFINITY; 8];
    let (chunks, rest) = row.as_chunks::<8>();
    for chunk in chunks {
        for (max, &logit) in maxima.iter_mut().zip(chunk) {
            *max = if logit > *max { logit } else { *max };
        }
    }
    let logit = maxima.iter().chain(rest).fold(f32::NEG_INFINITY, |max, &x| if x > max { x } else { max });
    if logit == f32::NEG_INFINITY {
        return None;
    }
    let index = row.iter().position(|&x| x == logit)?;
    Some(Candidate { token: index as i32, logit })
}

/// Appends the `k` largest logits of a row to `best`, likeliest first.
pub(crate) fn top(row: &[f32], k: usize, best: &mut Vec<Candidate>) {
    let k = k.min(row.len());
    if k == 0 {
        return;
    }
    // Everything above `least` is collected; when there are many, only the
    // best `k` stay and `least` rises. Most of a row is then passed over by
    // one comparison.
    let room = (2 * k).max(64);
    let mut least = f32::NEG_INFINITY;
    best.clear();
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
    if best.len() > k {
        best.select_nth_unstable_by(k - 1, likelier);
        best.truncate(k);
    }
    best.sort_unstable_by(likelier);
}

/// Appends every usable logit of a row: the likeliest first, the others in no
/// useful order.
pub(crate) fn all(row: &[f32], candidates: &mut Vec<Candidate>) {
    candidates.extend(
        row.iter()
            .enumerate()
            .filter(|(_, logit)| **logit > f32::NEG_INFINITY)
            .map(|(index, &logit)| Candidate { token: index as i32, logit }),
    );
    let first = (0..candidates.len()).min_by(|&a, &b| likelier(&candidates[a], &candidates[b]));
    if let Some(first) = first {
        candidates.swap(0, first);
    }
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
                top(&row, k, &mut best);
                assert_eq!(best, by_sorting(&row, k), "{k} of {n}");
            }
        }
    }

    #[test]
    fn equal_logits_are_taken_by_id() {
        let row = vec![1.0; 500];
        let mut best = Vec::new();
        top(&row, 3, &mut best);
        assert_eq!(best.iter().map(|c| c.token).collect::<Vec<_>>(), [0, 1, 2]);
    }

    #[test]
    fn unusable_logits_are_never_selected() {
        let row = [f32::NAN, f32::NEG_INFINITY, 2.0, f32::NAN, 1.0];
        let mut best = Vec::new();
        top(&row, 5, &mut best);
        assert_eq!(best.iter().map(|c| c.token).collect::<Vec<_>>(), [2, 4]);
        assert_eq!(argmax(&row).unwrap().token, 2);
        assert!(argmax(&[f32::NAN, f32::NEG_INFINITY]).is_none());
    }

    #[test]
    fn argmax_finds_every_place() {
        for n in 1..40 {
            for at in 0..n {
                let mut row = vec![-1.0; n];
                row[at] = 1.0;
                assert_eq!(argmax(&row).unwrap().token as usize, at);
            }
        }
    }
}
