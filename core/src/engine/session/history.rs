//! What the sequences of a session hold: their tokens, how many of these are
//! evaluated, and which of them they share. Pure: no FFI, no clock, no
//! channels.
//!
//! The history is the truth; the native memory follows it. Tokens that are not
//! evaluated, whatever the reason (they were just given, a step was stopped, a
//! memory could not drop a part), are evaluated by the next call that needs
//! them.

use crate::{Batch, MullamaError, TokenId};
use std::collections::{HashMap, HashSet};

/// A token at its place in a sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cell {
    pub(super) token: TokenId,
    /// Names the row that this was, or will be, evaluated as. Sequences that
    /// share a row have the same id at the same place.
    pub(super) row: u64,
}

/// One sequence.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) cells: Vec<Cell>,
    /// How many of the first cells are in the native memory.
    pub(super) evaluated: usize,
}

/// A row that is to be evaluated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) token: TokenId,
    pub(super) position: usize,
    /// At least one; more share the row.
    pub(super) seq_ids: Vec<usize>,
    /// Whether its logits are wanted.
    pub(super) output: bool,
}

/// What a context accepts.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Rows over all sequences; one that is shared counts once.
    pub(super) context_size: usize,
    pub(super) n_vocab: usize,
    /// Whether sequences may share rows: a recurrent state belongs to one.
    pub(super) can_share: bool,
}

/// See the module.
#[derive(Debug, Clone)]
pub(super) struct History {
    sequences: Vec<Held>,
    next_row: u64,
    /// Whether any row was ever shared. Most sessions never do, and then
    /// nothing has to be searched.
    has_shared: bool,
}

impl History {
    pub(super) fn new(n_sequences: usize) -> Self {
        Self { sequences: vec![Held::default(); n_sequences], next_row: 0, has_shared: false }
    }

    /// A history that was read from a file. Ids of rows are below `next_row`.
    pub(super) fn restore(mut sequences: Vec<Held>, next_row: u64, n_sequences: usize) -> Self {
        sequences.resize(n_sequences, Held::default());
        let mut history = Self { sequences, next_row, has_shared: true };
        history.has_shared = history.n_rows() < history.sequences.iter().map(|held| held.cells.len()).sum();
        history
    }

    pub(super) fn sequences(&self) -> &[Held] {
        &self.sequences
    }

    pub(super) fn n_sequences(&self) -> usize {
        self.sequences.len()
    }

    pub(super) fn len(&self, seq_id: usize) -> usize {
        self.sequences[seq_id].cells.len()
    }

    pub(super) fn evaluated(&self, seq_id: usize) -> usize {
        self.sequences[seq_id].evaluated
    }

    pub(super) fn tokens(&self, seq_id: usize) -> Vec<TokenId> {
        self.sequences[seq_id].cells.iter().map(|cell| cell.token).collect()
    }

    /// Rows that all sequences need together.
    pub(super) fn n_rows(&self) -> usize {
        let all = self.sequences.iter().flat_map(|held| &held.cells);
        if self.has_shared {
            all.map(|cell| cell.row).collect::<HashSet<_>>().len()
        } else {
            all.count()
        }
    }

    /// Appends a token to one sequence.
    pub(super) fn push(&mut self, seq_id: usize, token: TokenId) {
        let row = self.new_row();
        self.sequences[seq_id].cells.push(Cell { token, row });
    }

    /// Shortens a sequence to its first `n` tokens.
    pub(super) fn truncate(&mut self, seq_id: usize, n: usize) {
        let held = &mut self.sequences[seq_id];
        held.cells.truncate(n);
        held.evaluated = held.evaluated.min(n);
    }

    /// The first `n` tokens of a sequence are in the native memory now.
    pub(super) fn mark_evaluated(&mut self, seq_id: usize, n: usize) {
        self.sequences[seq_id].evaluated = n;
    }

    /// The native memory keeps only the first `n` tokens of a sequence. Rows
    /// after them that another sequence still has there become this one's own:
    /// it will evaluate them by itself.
    pub(super) fn forget_after(&mut self, seq_id: usize, n: usize) {
        self.sequences[seq_id].evaluated = self.sequences[seq_id].evaluated.min(n);
        if !self.has_shared {
            return;
        }
        let others = self.sequences.iter().enumerate().filter(|(id, _)| *id != seq_id).map(|(_, held)| held);
        let kept: HashSet<u64> = others.flat_map(|held| &held.cells[..held.evaluated]).map(|cell| cell.row).collect();
        for place in n..self.len(seq_id) {
            if kept.contains(&self.sequences[seq_id].cells[place].row) {
                self.sequences[seq_id].cells[place].row = self.new_row();
            }
        }
    }

    /// Whether another sequence has the last row of this one in the native
    /// memory, so that this one needs a row more to evaluate it again.
    pub(super) fn shares_last(&self, seq_id: usize) -> bool {
        let Some(last) = self.sequences[seq_id].cells.last().filter(|_| self.has_shared) else { return false };
        let others = self.sequences.iter().enumerate().filter(|(id, _)| *id != seq_id).map(|(_, held)| held);
        others.flat_map(|held| &held.cells[..held.evaluated]).any(|cell| cell.row == last.row)
    }

    /// `to` now shares the first `n` rows of `from`, which hold the same
    /// tokens and are evaluated.
    pub(super) fn share(&mut self, from: usize, to: usize, n: usize) {
        let cells = self.sequences[from].cells[..n].to_vec();
        self.sequences[to].cells.splice(..n, cells);
        self.sequences[to].evaluated = n;
        self.has_shared = true;
    }

    /// The sequence and all that share rows with it, also by way of others.
    pub(super) fn sharing(&self, seq_id: usize) -> Vec<usize> {
        self.group(&[seq_id], |_| 0)
    }

    /// The rows that must be evaluated before those that follow the given
    /// sequences. Position by position, so that a row that is shared comes
    /// after all before it.
    pub(super) fn pending(&self, seq_ids: &[usize]) -> Vec<Row> {
        let group = self.group(seq_ids, |held| held.evaluated);
        let from = group.iter().map(|&id| self.evaluated(id)).min().unwrap_or(0);
        let to = group.iter().map(|&id| self.len(id)).max().unwrap_or(0);
        let mut rows: Vec<Row> = Vec::with_capacity(to - from);
        let mut of_position: HashMap<u64, usize> = HashMap::new();
        for position in from..to {
            of_position.clear();
            for &seq_id in &group {
                let held = &self.sequences[seq_id];
                if !(held.evaluated..held.cells.len()).contains(&position) {
                    continue;
                }
                let Cell { token, row } = held.cells[position];
                if let Some(&index) = of_position.get(&row) {
                    rows[index].seq_ids.push(seq_id);
                } else {
                    of_position.insert(row, rows.len());
                    rows.push(Row { token, position, seq_ids: vec![seq_id], output: false });
                }
            }
        }
        rows
    }

    /// `start` and the sequences that share with them, looking at the cells
    /// from `first` on.
    fn group(&self, start: &[usize], first: impl Fn(&Held) -> usize) -> Vec<usize> {
        let mut group: Vec<usize> = start.to_vec();
        group.sort_unstable();
        group.dedup();
        if !self.has_shared {
            return group;
        }
        let cells = |id: usize| self.sequences[id].cells[first(&self.sequences[id])..].iter().map(|cell| cell.row);
        let mut rows: HashSet<u64> = group.iter().flat_map(|&id| cells(id)).collect();
        while let Some(next) =
            (0..self.sequences.len()).find(|id| !group.contains(id) && cells(*id).any(|row| rows.contains(&row)))
        {
            rows.extend(cells(next));
            group.push(next);
        }
        group.sort_unstable();
        group
    }

    /// Appends the rows of `batches`, each checked against the history with
    /// all before it, and gives them with what must be evaluated before.
    ///
    /// # Errors
    /// `InvalidInput`, `PromptTooLong`, `Unsupported`; the history is
    /// unchanged.
    pub(super) fn append(&mut self, batches: &[Batch], limits: &Limits) -> Result<Vec<Row>, MullamaError> {
        let mut draft = self.clone();
        let mut added = Vec::new();
        for row in batches.iter().flat_map(|batch| &batch.rows) {
            check_token(row.token, limits.n_vocab, "token")?;
            let seq_ids = draft.check_sequences(&row.seq_ids, limits)?;
            let position = draft.check_position(row.position, &seq_ids)?;
            let id = draft.new_row();
            for &seq_id in &seq_ids {
                draft.sequences[seq_id].cells.push(Cell { token: row.token, row: id });
            }
            draft.has_shared |= seq_ids.len() > 1;
            added.push(Row { token: row.token, position, seq_ids, output: row.logits });
        }
        let tokens = draft.n_rows();
        if tokens > limits.context_size {
            return Err(MullamaError::PromptTooLong { tokens, limit: limits.context_size });
        }
        let mut used: Vec<usize> = added.iter().flat_map(|row| row.seq_ids.iter().copied()).collect();
        used.sort_unstable();
        used.dedup();
        let mut rows = self.pending(&used);
        rows.extend(added);
        *self = draft;
        Ok(rows)
    }

    fn check_sequences(&self, seq_ids: &[i32], limits: &Limits) -> Result<Vec<usize>, MullamaError> {
        let refuse = |reason: String| Err(MullamaError::invalid("seq_ids", format!("{seq_ids:?}"), reason));
        if seq_ids.is_empty() {
            return refuse("a row belongs to at least one sequence".to_owned());
        }
        let mut checked = Vec::with_capacity(seq_ids.len());
        for &seq_id in seq_ids {
            match usize::try_from(seq_id).ok().filter(|&id| id < self.sequences.len()) {
                Some(id) if !checked.contains(&id) => checked.push(id),
                Some(_) => return refuse("each sequence may be named once".to_owned()),
                None => {
                    let last = self.sequences.len() - 1;
                    return refuse(format!("sequences go from 0 to {last}; raise max_sequences for more"));
                }
            }
        }
        if checked.len() > 1 && !limits.can_share {
            return Err(MullamaError::Unsupported(
                "sequences of a model with recurrent state can't share a row; add it to each of them".to_owned(),
            ));
        }
        let first = &self.sequences[checked[0]].cells;
        if checked[1..].iter().any(|&id| !same_tokens(first, &self.sequences[id].cells)) {
            return refuse("sequences that share a row must hold the same tokens so far".to_owned());
        }
        Ok(checked)
    }

    fn check_position(&self, position: Option<usize>, seq_ids: &[usize]) -> Result<usize, MullamaError> {
        // All of them have the same length.
        let next = self.len(seq_ids[0]);
        match position {
            Some(position) if position != next => {
                let reason = format!("the next position of sequence {} is {next}", seq_ids[0]);
                Err(MullamaError::invalid("position", position, reason))
            }
            _ => Ok(next),
        }
    }

    fn new_row(&mut self) -> u64 {
        self.next_row += 1;
        self.next_row - 1
    }
}

/// # Errors
/// `InvalidInput` for an id that is not in the vocabulary.
pub(super) fn check_token(token: TokenId, n_vocab: usize, field: &str) -> Result<(), MullamaError> {
    if usize::try_from(token).is_ok_and(|id| id < n_vocab) {
        return Ok(());
    }
    let last = n_vocab.saturating_sub(1);
    Err(MullamaError::invalid(field, token, format!("token ids go from 0 to {last}")))
}

/// Whether two sequences hold the same tokens. Those whose last row is shared
/// do, since a row is only shared by such.
fn same_tokens(one: &[Cell], other: &[Cell]) -> bool {
    one.len() == other.len() && (one.last() == other.last() || one.iter().zip(other).all(|(a, b)| a.token == b.token))
}

#[cfg(test)]
mod tests;
