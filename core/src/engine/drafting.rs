//! How a step takes guessed tokens along and how the memory drops those that
//! were wrong. What is guessed, and whether, is `lookup`'s. Part of
//! [`Worker`], on the engine's thread.

use super::{lookup::MAX_ROWS, worker::Worker};
use std::sync::atomic::Ordering::Relaxed;

impl Worker {
    /// Guesses what the sequence says next that has the only row of a step.
    /// Beside others a row costs them time, and drafts pay less.
    pub(super) fn guess(&mut self, rows: &[usize]) {
        self.draft.clear();
        let has_room = self.cells_wanted() + MAX_ROWS < self.limits.cache_size;
        if !self.drafts || !has_room || rows.iter().sum::<usize>() != 1 {
            return;
        }
        let Some(index) = rows.iter().position(|&n| n == 1) else { return };
        let sequence = &mut self.active[index];
        // The last token of a prompt is no answer yet, but costs the same.
        if sequence.n_pending() == 1 {
            sequence.draft(&self.curve, self.limits.context_size, &mut self.draft);
            self.shared.metrics.drafted_tokens.fetch_add(self.draft.len() as u64, Relaxed);
        }
    }

    /// Takes the rows of guesses that were wrong out of the memory.
    pub(super) fn drop_guesses(&mut self, rows: &[usize]) {
        if self.draft.is_empty() {
            return;
        }
        self.draft.clear();
        for (sequence, _) in self.active.iter_mut().zip(rows).filter(|(_, n)| **n > 0) {
            let n_past = sequence.n_past();
            if self.context.sequence_len(sequence.seq_id) > n_past {
                let kept = self.context.keep_first(sequence.seq_id, n_past);
                sequence.rewind(kept);
            }
        }
    }
}
