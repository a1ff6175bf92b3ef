//! Sequences that ended while others run. A copy to RAM would hold those up, so
//! what they had computed stays in its cells until there is time for one: when
//! the engine has nothing to do, when the cells are needed, when somebody comes
//! in, who may begin like it and whose rows would look at its cells, or after
//! some steps, for the same reason. Part of [`Worker`], on the engine's thread.
//!
//! Deliberately absent: memories of which no part can be copied. Of these a
//! sequence id is a part of the memory, and the lowest is best (`deterministic`).

use super::{prefix_cache::Shape, sharing::WORTH_TAKING, worker::Worker};
use crate::TokenId;

/// Steps that an ended sequence may stay in its cells. The requests of a burst
/// end within fewer.
const STAYS: u64 = 16;

/// See the module.
pub(super) struct Ended {
    pub(super) seq_id: usize,
    /// Those whose rows are in the cells.
    pub(super) tokens: Vec<TokenId>,
    /// The step before which it goes to RAM at the latest.
    until: u64,
}

impl Worker {
    /// Whether what a sequence that ends has computed may stay in its cells
    /// for now.
    pub(super) fn may_stay(&self, index: usize) -> bool {
        let others_run = self.active.len() > 1;
        others_run
            && self.prefix_cache.is_on()
            && self.prefix_cache.shape() == Shape::Parts
            && self.active[index].n_past() >= WORTH_TAKING
    }

    /// Notes that the cells of an active sequence stay when it leaves.
    pub(super) fn stay(&mut self, index: usize) {
        let sequence = &self.active[index];
        let tokens = sequence.tokens()[..sequence.n_past()].to_vec();
        self.ended.push_back(Ended { seq_id: sequence.seq_id, tokens, until: self.n_steps + STAYS });
    }

    /// Cells that ended sequences take at most. What they share with others
    /// is counted again: whoever has it last holds it.
    pub(super) fn cells_of_ended(&self) -> usize {
        self.ended.iter().map(|ended| ended.tokens.len()).sum()
    }

    /// Copies the sequence that ended first to RAM and frees its cells and its
    /// id. `false` when there is none.
    pub(super) fn store_oldest(&mut self) -> bool {
        let Some(ended) = self.ended.pop_front() else { return false };
        self.store(&ended);
        true
    }

    /// The same for all of them.
    pub(super) fn store_all(&mut self) {
        while self.store_oldest() {}
    }

    /// The same for the oldest one if it has stayed for long.
    pub(super) fn store_overdue(&mut self) {
        if self.ended.front().is_some_and(|ended| ended.until <= self.n_steps) {
            self.store_oldest();
        }
    }

    fn store(&mut self, ended: &Ended) {
        // A copy may take as long as steps.
        self.readers.wake();
        self.keep(ended.seq_id, &ended.tokens);
        self.context.clear_sequence(ended.seq_id);
    }
}
