//! What the engine does when its memory is full, or when a step did not come
//! to its end. Part of [`Worker`], on the engine's thread.
//!
//! A sequence that must make room goes to RAM and comes back when another has
//! ended; it computes nothing twice unless it can't be put back.

use super::{
    prefix_cache::Shape,
    sequence::{Sequence, Spilled},
    sharing::Leaves,
    worker::Worker,
};
use crate::{FinishReason, MullamaError};
use std::sync::atomic::Ordering::Relaxed;

impl Worker {
    /// Cells that the tokens so far of all active sequences take, each once,
    /// and those of ended ones.
    pub(super) fn cells_wanted(&self) -> usize {
        self.active.iter().map(Sequence::n_cells_wanted).sum::<usize>() + self.cells_of_ended()
    }

    /// Whether a sequence that needs so many cells may come in. A few stay
    /// free, for the next tokens of those that run.
    pub(super) fn has_room(&self, n: usize) -> bool {
        let spare = self.limits.cache_size / 32;
        self.active.is_empty() || self.cells_wanted() + n + spare < self.limits.cache_size
    }

    /// The memory has no cells for the batch: an ended sequence goes to RAM, or,
    /// where there is none, one sequence makes room and goes on later. One whose
    /// reader is slow goes first, then the youngest. Followers have no cells to
    /// give. A sequence that is alone has used all there is.
    pub(super) fn make_room(&mut self) {
        if self.store_oldest() {
            return;
        }
        let with_cells = |&index: &usize| self.active[index].follows.is_none();
        let by_rank = |&index: &usize| (self.active[index].ticket.is_full(), self.active[index].age);
        let holders = (0..self.active.len()).filter(with_cells);
        let Some(last) = holders.clone().max_by_key(by_rank) else { return };
        if holders.count() == 1 {
            let sequence = self.retire(last);
            self.shared.metrics.completed.fetch_add(1, Relaxed);
            self.readers.tell(sequence.finish(FinishReason::ContextFull));
            return;
        }
        // A copy may take as long as steps.
        self.readers.wake();
        let spilled = self.spill(last);
        let mut sequence = self.leave(last, Leaves::Sound);
        sequence.spilled = spilled;
        self.shared.metrics.preemptions.fetch_add(1, Relaxed);
        let at = self.preempted.partition_point(|other| other.age < sequence.age);
        self.preempted.insert(at, sequence);
        self.memory_is_full = true;
    }

    /// A copy in RAM of what a sequence has computed, what it shares with
    /// others apart, since it may find that shared again.
    fn spill(&mut self, index: usize) -> Option<Spilled> {
        let (seq_id, to) = (self.active[index].seq_id, self.active[index].n_past());
        if to == 0 || self.context.sequence_len(seq_id) != to {
            return None;
        }
        let from = self.active[index].shares.map_or(0, |shared| shared.n);
        if from == 0 || self.prefix_cache.shape() != Shape::Parts {
            let own = self.context.sequence_state(seq_id)?;
            return Some(Spilled { from: 0, shared: Vec::new(), to, own });
        }
        let shared = self.context.part_state(seq_id, 0..from)?;
        let own = if from < to { self.context.part_state(seq_id, from..to)? } else { Vec::new() };
        Some(Spilled { from, shared, to, own })
    }

    /// A sequence that made room goes on where it was.
    pub(super) fn resume(&mut self, index: usize) {
        let Some(spilled) = self.active[index].spilled.take() else {
            self.begin(index);
            return;
        };
        let seq_id = self.active[index].seq_id;
        let is_back = if spilled.from == 0 {
            self.context.set_sequence_state(seq_id, &spilled.own)
        } else {
            if !self.begin_with(index, spilled.from) {
                self.forget(index);
                self.context.append_state(seq_id, &spilled.shared);
            }
            self.context.sequence_len(seq_id) == spilled.from
                && (spilled.own.is_empty() || self.context.append_state(seq_id, &spilled.own))
        };
        if is_back && self.context.sequence_len(seq_id) == spilled.to {
            self.active[index].rewind(spilled.to);
        } else {
            self.forget(index);
            self.begin(index);
        }
    }

    /// An aborted step may have left some rows in the memory: every sequence
    /// goes on from what is there, or, where a part of them can't be told from
    /// the rest, from its start.
    pub(super) fn resync(&mut self, rows: &[usize]) {
        for index in (0..rows.len()).filter(|&index| rows[index] > 0) {
            if !self.context.shares_cells() {
                self.forget(index);
            } else {
                let n = self.context.sequence_len(self.active[index].seq_id);
                self.active[index].rewind(n);
            }
        }
        self.drop_guesses(rows);
    }

    /// A step failed: the requests that had rows in it fail, no others.
    pub(super) fn fail_step(&mut self, rows: &[usize], error: &MullamaError) {
        for index in (0..rows.len()).rev().filter(|&index| rows[index] > 0) {
            let sequence = self.leave(index, Leaves::Unsound);
            self.memory_is_full = false;
            self.shared.metrics.failed.fetch_add(1, Relaxed);
            self.readers.tell(sequence.fail(error.clone()));
        }
    }

    /// Takes a sequence out and keeps what it computed for others, in its cells
    /// for a while or in RAM.
    pub(super) fn retire(&mut self, index: usize) -> Sequence {
        self.memory_is_full = false;
        if self.may_stay(index) {
            self.stay(index);
            return self.leave(index, Leaves::InItsCells);
        }
        let sequence = &self.active[index];
        let evaluated = sequence.tokens()[..sequence.n_past()].to_vec();
        self.keep(sequence.seq_id, &evaluated);
        self.leave(index, Leaves::Sound)
    }
}
