//! A session's history together with the native memory that follows it:
//! evaluates rows step by step and puts the two in line again after a step
//! that did not come to its end. Owned by the session's thread.

use super::history::{History, Row};
use crate::{
    MullamaError,
    engine::pace::Pace,
    llama::{Batch, Context, DecodeError},
    memory,
};
use std::{cell::RefCell, rc::Rc, time::Instant};

/// Says whether the work under way should stop. Asked between steps and within
/// them, so it must be quick and must not block.
pub(super) type StopCheck = Rc<dyn Fn() -> bool>;

/// Why an evaluation ended early. The rows that were evaluated before are
/// marked as such; the native memory is in line with that.
#[derive(Debug)]
pub(super) enum Halt {
    /// The stop check asked for it.
    Stopped,
    /// There was no room, which the limits should have told before.
    Full,
    Failed(MullamaError),
}

/// See the module.
pub(super) struct Memory {
    context: Context,
    history: History,
    batch: Batch,
    batch_size: usize,
    n_outputs_max: usize,
    pace: Pace,
    /// What the context's abort check asks.
    stop: Rc<RefCell<Option<StopCheck>>>,
}

impl Memory {
    pub(super) fn new(
        mut context: Context,
        pace: Pace,
        n_sequences: usize,
        batch_size: usize,
        n_outputs_max: usize,
    ) -> Self {
        let stop: Rc<RefCell<Option<StopCheck>>> = Rc::default();
        let asked = stop.clone();
        context.set_abort_check(move |_| asked.borrow().as_ref().is_some_and(|stop| stop()));
        Self {
            context,
            history: History::new(n_sequences),
            batch: Batch::new(batch_size),
            batch_size,
            n_outputs_max,
            pace,
            stop,
        }
    }

    pub(super) fn context(&self) -> &Context {
        &self.context
    }

    pub(super) fn history(&self) -> &History {
        &self.history
    }

    /// The history, to append to. What shortens it goes through this type.
    pub(super) fn history_mut(&mut self) -> &mut History {
        &mut self.history
    }

    /// Evaluates rows in their order. `on_output` gets the logits of each row
    /// that asked for them.
    pub(super) fn evaluate(
        &mut self,
        rows: &[Row],
        stop: &StopCheck,
        mut on_output: impl FnMut(&mut [f32]) -> Result<(), MullamaError>,
    ) -> Result<(), Halt> {
        let mut rest = rows;
        while !rest.is_empty() {
            if stop() {
                return Err(Halt::Stopped);
            }
            let (chunk, others) = rest.split_at(chunk_len(rest, self.batch_size, self.n_outputs_max));
            self.step(chunk, stop)?;
            for (index, _) in chunk.iter().enumerate().filter(|(_, row)| row.output) {
                let logits = self.context.logits(index).ok_or_else(|| no_logits(index));
                logits.and_then(&mut on_output).map_err(Halt::Failed)?;
            }
            rest = others;
        }
        Ok(())
    }

    /// One decode.
    fn step(&mut self, chunk: &[Row], stop: &StopCheck) -> Result<(), Halt> {
        for row in chunk.iter().filter(|row| row.seq_ids.len() > 1) {
            self.align(row);
        }
        self.batch.clear();
        for row in chunk {
            self.batch.push_shared(row.token, row.position, &row.seq_ids, row.output);
        }
        *self.stop.borrow_mut() = Some(stop.clone());
        self.pace.start();
        let started = Instant::now();
        let result = self.context.decode(&mut self.batch);
        *self.stop.borrow_mut() = None;
        match result {
            Ok(()) => {
                self.pace.adapt(&mut self.context, Some(chunk.len()), started.elapsed());
                for row in chunk {
                    row.seq_ids.iter().for_each(|&id| self.history.mark_evaluated(id, row.position + 1));
                }
                Ok(())
            }
            Err(DecodeError::NoCells) => Err(Halt::Full),
            Err(DecodeError::Aborted) => {
                self.resync(chunk);
                Err(Halt::Stopped)
            }
            Err(DecodeError::Failed(error)) => {
                self.resync(chunk);
                Err(Halt::Failed(error))
            }
        }
    }

    /// llama.cpp takes a shared row only of sequences whose memories span the
    /// same positions. Those that came to hold the same tokens one by one may
    /// not: they then share the cells of the first, which is cheaper too.
    fn align(&mut self, row: &Row) {
        let Some((&first, others)) = row.seq_ids.split_first() else { return };
        let n = self.history.evaluated(first);
        // Only before a chunk's first row of these sequences; later ones find
        // them aligned.
        if n == 0 || n > row.position {
            return;
        }
        let last_row = |id: usize| self.history.sequences()[id].cells[n - 1].row;
        let apart: Vec<usize> = others.iter().copied().filter(|&id| last_row(id) != last_row(first)).collect();
        for id in apart {
            self.context.clear_sequence(id);
            self.context.share_sequence(first, id);
            self.history.share(first, id, n);
        }
    }

    /// Puts the native memory in line with the history after a step that may
    /// have left some of its rows there.
    fn resync(&mut self, chunk: &[Row]) {
        let mut seq_ids: Vec<usize> = chunk.iter().flat_map(|row| row.seq_ids.iter().copied()).collect();
        seq_ids.sort_unstable();
        seq_ids.dedup();
        for seq_id in seq_ids {
            self.keep_evaluated(seq_id, self.history.evaluated(seq_id));
        }
    }

    /// Shortens a sequence to its first `n` tokens.
    pub(super) fn truncate(&mut self, seq_id: usize, n: usize) {
        let was_evaluated = self.history.evaluated(seq_id);
        self.history.truncate(seq_id, n);
        if was_evaluated > n {
            self.keep_evaluated(seq_id, n);
        }
    }

    /// Has the last token of a sequence evaluated again, for its logits.
    pub(super) fn forget_last(&mut self, seq_id: usize) {
        self.keep_evaluated(seq_id, self.history.len(seq_id) - 1);
    }

    /// Drops all but the first `n` tokens from the native memory of a
    /// sequence. A memory that can't drop a part forgets the sequence, and
    /// with it those that share rows with it, so that these are evaluated
    /// together again and take no more room than before.
    fn keep_evaluated(&mut self, seq_id: usize, n: usize) {
        let group = self.history.sharing(seq_id);
        if self.context.keep_first(seq_id, n) == n {
            self.history.forget_after(seq_id, n);
            return;
        }
        for id in group {
            self.context.clear_sequence(id);
            self.history.mark_evaluated(id, 0);
        }
    }

    /// Forgets all sequences.
    pub(super) fn clear(&mut self) {
        self.context.clear();
        self.history = History::new(self.history.n_sequences());
    }

    /// The native memory, for a state file.
    ///
    /// # Errors
    /// `OutOfMemory`, `Internal`.
    pub(super) fn state(&mut self) -> Result<Vec<u8>, MullamaError> {
        memory::require(self.context.state_size() as u64, "a copy of the context's memory")?;
        self.context.state()
    }

    /// Replaces history and native memory. On an error both are as before.
    ///
    /// # Errors
    /// `State` with the reason, `OutOfMemory`.
    pub(super) fn replace(&mut self, history: History, state: &[u8]) -> Result<(), MullamaError> {
        let is_empty = self.history.sequences().iter().all(|held| held.evaluated == 0);
        let before = if is_empty { None } else { Some(self.state()?) };
        let result = self.context.set_state(state).and_then(|()| {
            let in_line = |id: usize| self.context.sequence_len(id) == history.evaluated(id);
            if (0..history.n_sequences()).all(in_line) {
                Ok(())
            } else {
                Err(MullamaError::State("its tokens and its memory do not belong together".to_owned()))
            }
        });
        if result.is_ok() {
            self.history = history;
            return result;
        }
        self.context.clear();
        if before.is_some_and(|before| self.context.set_state(&before).is_err()) {
            // What it held is evaluated again when it is needed.
            (0..self.history.n_sequences()).for_each(|id| self.history.mark_evaluated(id, 0));
        }
        result
    }
}

fn no_logits(row: usize) -> MullamaError {
    MullamaError::Internal(format!("row {row} has no logits"))
}

/// How many of the first rows go into one decode: as many as fit, but a row
/// that is shared begins a new one after rows of its sequences that were not
/// shared in the same way, since llama.cpp checks how sequences share by what
/// they hold before the decode.
fn chunk_len(rows: &[Row], batch_size: usize, n_outputs_max: usize) -> usize {
    let mut n_outputs = 0;
    for (index, row) in rows.iter().enumerate() {
        n_outputs += usize::from(row.output);
        let shares = row.seq_ids.len() > 1;
        let differs =
            |other: &Row| other.seq_ids != row.seq_ids && other.seq_ids.iter().any(|id| row.seq_ids.contains(id));
        if index == batch_size || n_outputs > n_outputs_max || (shares && rows[..index].iter().any(differs)) {
            return index;
        }
    }
    rows.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(seq_ids: &[usize], output: bool) -> Row {
        Row { token: 1, position: 0, seq_ids: seq_ids.to_vec(), output }
    }

    #[test]
    fn a_chunk_ends_at_the_batch_size_and_at_the_limit_of_outputs() {
        let rows = vec![row(&[0], true); 10];
        assert_eq!(chunk_len(&rows, 4, 100), 4);
        assert_eq!(chunk_len(&rows, 100, 3), 3);
        assert_eq!(chunk_len(&rows, 100, 100), 10);
    }

    #[test]
    fn a_shared_row_begins_a_chunk_after_rows_that_are_shared_otherwise() {
        let (both, one, third) = (row(&[0, 1], false), row(&[0], false), row(&[2], false));
        assert_eq!(chunk_len(&[both.clone(), both.clone(), one.clone(), third.clone()], 9, 9), 4);
        assert_eq!(chunk_len(&[one.clone(), third, both.clone()], 9, 9), 2);
        assert_eq!(chunk_len(&[both, row(&[1, 2], false)], 9, 9), 1);
    }
}
