//! The rows of one decode step, in the layout that llama.cpp reads.

use crate::TokenId;
use llama_cpp_sys_2 as sys;

/// Rows for one `Context::decode`. A row belongs to one sequence or to several
/// that share it.
pub(crate) struct Batch {
    tokens: Vec<sys::llama_token>,
    positions: Vec<sys::llama_pos>,
    /// The sequences of all rows, one row after the other.
    seq_ids: Vec<sys::llama_seq_id>,
    /// One pointer a row into `seq_ids`; filled by `as_raw`, since pushing may
    /// move `seq_ids`.
    seq_id_ptrs: Vec<*mut sys::llama_seq_id>,
    /// How many sequences each row belongs to; at least 1.
    n_seq_ids: Vec<i32>,
    outputs: Vec<i8>,
    capacity: usize,
}

impl Batch {
    /// An empty batch for at most `capacity` rows.
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            tokens: Vec::with_capacity(capacity),
            positions: Vec::with_capacity(capacity),
            seq_ids: Vec::with_capacity(capacity),
            seq_id_ptrs: Vec::with_capacity(capacity),
            n_seq_ids: Vec::with_capacity(capacity),
            outputs: Vec::with_capacity(capacity),
            capacity,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.tokens.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    pub(crate) fn clear(&mut self) {
        self.tokens.clear();
        self.positions.clear();
        self.seq_ids.clear();
        self.n_seq_ids.clear();
        self.outputs.clear();
    }

    /// Adds a row of one sequence and gives its index. `output` asks for its
    /// logits.
    ///
    /// # Panics
    /// As [`Self::push_shared`].
    pub(crate) fn push(&mut self, token: TokenId, position: usize, seq_id: usize, output: bool) -> usize {
        self.push_shared(token, position, &[seq_id], output)
    }

    /// Adds a row that `seq_ids` share and gives its index. llama.cpp wants
    /// that they hold the same tokens at the same positions so far.
    ///
    /// # Panics
    /// When the batch is full or the row belongs to no sequence:
    /// `llama_decode` would abort the process. Those who plan rows do so by
    /// the same capacity.
    pub(crate) fn push_shared(&mut self, token: TokenId, position: usize, seq_ids: &[usize], output: bool) -> usize {
        assert!(self.len() < self.capacity, "batch of {} rows is full", self.capacity);
        assert!(!seq_ids.is_empty(), "a row belongs to a sequence");
        self.tokens.push(token);
        self.positions.push(i32::try_from(position).expect("positions fit the context size"));
        self.seq_ids.extend(seq_ids.iter().map(|&id| i32::try_from(id).expect("sequence ids are small")));
        self.n_seq_ids.push(i32::try_from(seq_ids.len()).expect("sequences are few"));
        self.outputs.push(i8::from(output));
        self.len() - 1
    }

    /// Whether all sequences are below `n_seq_max`, all tokens below `n_vocab`,
    /// and at most `n_outputs_max` rows ask for logits; for the checks of
    /// `Context::decode`.
    pub(super) fn is_within(&self, n_seq_max: usize, n_vocab: usize, n_outputs_max: usize) -> bool {
        let below = |value: i32, limit: usize| usize::try_from(value).is_ok_and(|value| value < limit);
        self.seq_ids.iter().all(|&id| below(id, n_seq_max))
            && self.tokens.iter().all(|&id| below(id, n_vocab))
            && self.outputs.iter().filter(|&&output| output != 0).count() <= n_outputs_max
    }

    /// llama.cpp's view of the rows; valid until the batch is changed.
    pub(super) fn as_raw(&mut self) -> sys::llama_batch {
        self.seq_id_ptrs.clear();
        let mut rest = self.seq_ids.as_mut_slice();
        for &n in &self.n_seq_ids {
            let n = usize::try_from(n).expect("counts are positive");
            let (ids, others) = rest.split_at_mut(n);
            self.seq_id_ptrs.push(ids.as_mut_ptr());
            rest = others;
        }
        sys::llama_batch {
            n_tokens: i32::try_from(self.tokens.len()).expect("the capacity fits in 32 bits"),
            token: self.tokens.as_mut_ptr(),
            embd: std::ptr::null_mut(),
            pos: self.positions.as_mut_ptr(),
            n_seq_id: self.n_seq_ids.as_mut_ptr(),
            seq_id: self.seq_id_ptrs.as_mut_ptr(),
            logits: self.outputs.as_mut_ptr(),
        }
    }
}
