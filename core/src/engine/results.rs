//! What becomes of a step's logits: a token for each row that was to be drawn
//! from. Many rows are drawn from on all threads of the step, which wait for the
//! next one anyway. Part of [`Worker`], on the engine's thread.
//!
//! Deliberately absent: how a token is drawn (`sampler`).

use super::{
    sequence::{Drawn, Sequence},
    worker::Worker,
};
use crate::MullamaError;
use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};

/// Least work for each thread. To share it out costs some ten microseconds.
const SHARE: Duration = Duration::from_micros(60);

/// Weight of the newest step in the running mean of the cost of a row.
const NEWEST: f64 = 0.2;

/// Learns what drawing from a row costs.
#[derive(Debug, Default)]
pub(super) struct Drawing {
    /// Seconds; 0 until measured.
    row: f64,
}

impl Drawing {
    /// How many of at most `most` threads draw from so many rows.
    fn threads(&self, n_rows: usize, most: usize) -> usize {
        let shares = n_rows as f64 * self.row / SHARE.as_secs_f64();
        (shares as usize).min(n_rows).clamp(1, most.max(1))
    }

    /// Drawing from so many rows took `took`, all threads together.
    fn observe(&mut self, n_rows: usize, took: Duration) {
        if n_rows > 0 {
            let row = took.as_secs_f64() / n_rows as f64;
            self.row = if self.row == 0.0 { row } else { self.row + NEWEST * (row - self.row) };
        }
    }
}

impl Worker {
    /// Draws from each row that was to be drawn from, hands the tokens over, and
    /// lets go of who is done.
    pub(super) fn take_results(&mut self, rows: &[usize], outputs: &[Option<usize>]) {
        let now = Instant::now();
        let model = self.context.model().clone();
        let mut drawn = self.draw(outputs);
        let mut over = Vec::new();
        for (index, (&n, output)) in rows.iter().zip(outputs).enumerate() {
            let sequence = &mut self.active[index];
            let n_prompt = sequence.evaluated(n);
            self.shared.metrics.prompt_tokens.fetch_add(n_prompt as u64, Relaxed);
            let Some(row) = *output else { continue };
            // The row's own token, then one more for each guess that was right.
            for offset in 0..=self.draft.len() {
                let drawn = drawn[index].take().unwrap_or_else(|| {
                    let logits = self.context.logits(row + offset);
                    sequence.draw(logits.ok_or_else(|| MullamaError::Internal("a row has no logits".to_owned()))?)
                });
                match drawn.and_then(|drawn| sequence.take(&model, drawn, self.limits.context_size, now)) {
                    Ok(advance) => {
                        self.shared.metrics.generated_tokens.fetch_add(1, Relaxed);
                        if advance.was_first {
                            self.shared.metrics.first_token.observe(sequence.time_to_first_token());
                        }
                        self.readers.tell_of_token(advance.waker, advance.may_wait, now);
                        if let Some(reason) = advance.finished {
                            over.push((index, Ok(reason)));
                            break;
                        }
                    }
                    Err(error) => {
                        over.push((index, Err(error)));
                        break;
                    }
                }
                if self.draft.get(offset) != Some(&sequence.last_token()) {
                    break;
                }
                // The guess was right, but its row is not drawn from.
                if sequence.ticket.is_full() {
                    break;
                }
                self.shared.metrics.accepted_tokens.fetch_add(1, Relaxed);
                sequence.evaluated(1);
            }
        }
        self.drop_guesses(rows);
        // From the back, so that the indices stay right.
        for (index, end) in over.into_iter().rev() {
            let sequence = self.retire(index);
            let waker = match end {
                Ok(reason) => {
                    self.shared.metrics.completed.fetch_add(1, Relaxed);
                    sequence.finish(reason)
                }
                Err(error) => {
                    self.shared.metrics.failed.fetch_add(1, Relaxed);
                    sequence.fail(error)
                }
            };
            self.readers.tell(waker);
        }
        self.note_load();
    }

    /// A token for each sequence with an output. Nothing where it must be drawn
    /// later.
    fn draw(&mut self, outputs: &[Option<usize>]) -> Vec<Option<Result<Drawn, MullamaError>>> {
        let mut drawn: Vec<_> = outputs.iter().map(|_| None).collect();
        let n_rows = outputs.iter().flatten().count();
        let threads = self.drawing.threads(n_rows, self.pace.threads());
        let each = self.active.iter_mut().zip(&mut drawn).zip(outputs);
        let rows = each.filter_map(|(given, output)| Some(((*output)?, given)));
        // Without what it costs to share it out.
        let nanoseconds = AtomicU64::new(0);
        let work = |(sequence, drawn): (&mut Sequence, &mut Option<_>), logits: &mut [f32]| {
            let started = Instant::now();
            *drawn = Some(sequence.draw(logits));
            nanoseconds.fetch_add(started.elapsed().as_nanos() as u64, Relaxed);
        };
        if self.context.for_each_logits(rows, threads, work) {
            self.drawing.observe(n_rows, Duration::from_nanos(nanoseconds.into_inner()));
        }
        drawn
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_shared_out_once_they_are_known_to_be_enough_work() {
        let mut drawing = Drawing::default();
        assert_eq!(drawing.threads(64, 8), 1, "nothing is known yet");
        drawing.observe(16, Duration::from_micros(320));
        assert_eq!(drawing.threads(1, 8), 1);
        assert_eq!(drawing.threads(5, 8), 1);
        assert_eq!(drawing.threads(6, 8), 2);
        assert_eq!(drawing.threads(64, 8), 8);
        assert_eq!(drawing.threads(64, 1), 1);
        drawing.observe(0, Duration::from_secs(1));
        for _ in 0..40 {
            drawing.observe(2, Duration::from_millis(8));
        }
        assert_eq!(drawing.threads(2, 8), 2, "no more threads than rows");
    }
}
