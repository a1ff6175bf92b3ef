//! A context's memory as bytes, whole or of one sequence.

use super::{Context, raw_id};
use crate::{
    MullamaError,
    llama::{
        logging,
        shim::{self, ErrorText},
    },
};
use llama_cpp_sys_2 as sys;
use std::ops::Range;

/// The version of llama.cpp's state format.
pub(crate) fn state_version() -> u32 {
    // SAFETY: takes no arguments.
    unsafe { shim::mullama_state_version() }
}

impl Context {
    /// Bytes that [`Self::state`] takes; 0 if llama.cpp does not tell.
    pub(crate) fn state_size(&mut self) -> usize {
        self.with_cells_released(|context| context.size_of_state(-1, &mut ErrorText::new()))
    }

    /// The whole memory: all sequences, and which cells they share.
    ///
    /// # Errors
    /// `OutOfMemory`, or `Internal` with llama.cpp's reason.
    pub(crate) fn state(&mut self) -> Result<Vec<u8>, MullamaError> {
        self.with_cells_released(|context| context.read_state(-1))
    }

    /// Replaces the whole memory by one that [`Self::state`] gave.
    ///
    /// # Errors
    /// `State` with llama.cpp's reason; the memory is empty then.
    pub(crate) fn set_state(&mut self, state: &[u8]) -> Result<(), MullamaError> {
        self.release_cells();
        self.write_state(-1, state).inspect_err(|_| self.clear())?;
        self.hold_cells();
        Ok(())
    }

    /// One sequence's memory, for another context over the same model with the
    /// same number types. `None` when there is no memory for a copy.
    pub(crate) fn sequence_state(&mut self, seq_id: usize) -> Option<Vec<u8>> {
        self.read_state(self.seq_id(seq_id)).ok()
    }

    /// Replaces a sequence's memory by one that [`Self::sequence_state`] gave.
    /// `false` when it does not fit; the sequence is empty then.
    pub(crate) fn set_sequence_state(&mut self, seq_id: usize, state: &[u8]) -> bool {
        let done = self.write_state(self.seq_id(seq_id), state).is_ok();
        if !done {
            self.clear_sequence(seq_id);
        }
        done
    }

    /// The memory of some positions of a sequence. `None` when there is no
    /// memory for a copy, or the context keeps no parts apart
    /// ([`Context::has_parts`]).
    pub(crate) fn part_state(&mut self, seq_id: usize, range: Range<usize>) -> Option<Vec<u8>> {
        let (from, spare) = (self.seq_id(seq_id), raw_id(self.spare.filter(|_| self.parts)?));
        let position = |n: usize| i32::try_from(n).expect("positions fit the context size");
        let (start, end) = (position(range.start), position(range.end));
        // SAFETY: the context is live and has one more sequence than
        // `n_seq_max`, the spare one, which is empty; the memory is unified,
        // which allows a copy of any part.
        unsafe { shim::mullama_seq_cp(self.context.as_ptr(), from, spare, start, end) };
        let state = self.read_state(spare).ok();
        self.clear_spare(spare);
        state
    }

    /// Puts back what [`Self::part_state`] gave, behind what the sequence
    /// holds. `false` when there is no room; nothing has changed then.
    pub(crate) fn append_state(&mut self, seq_id: usize, state: &[u8]) -> bool {
        let Some(spare) = self.spare.filter(|_| self.parts).map(raw_id) else { return false };
        let to = self.seq_id(seq_id);
        let done = self.write_state(spare, state).is_ok();
        if done {
            // SAFETY: as in `part_state`.
            unsafe { shim::mullama_seq_cp(self.context.as_ptr(), spare, to, -1, -1) };
        }
        self.clear_spare(spare);
        done
    }

    fn clear_spare(&mut self, spare: sys::llama_seq_id) {
        // SAFETY: as in `hold_cells`.
        unsafe { shim::mullama_seq_rm(self.context.as_ptr(), spare, -1, -1) };
    }

    fn size_of_state(&mut self, seq_id: sys::llama_seq_id, error: &mut ErrorText) -> usize {
        // SAFETY: the context is live; `seq_id` is -1 or below `n_seq_max`.
        unsafe { shim::mullama_state_size(self.context.as_ptr(), seq_id, error.as_mut_ptr(), error.size()) }
    }

    fn read_state(&mut self, seq_id: sys::llama_seq_id) -> Result<Vec<u8>, MullamaError> {
        logging::take_errors();
        let mut error = ErrorText::new();
        let size = self.size_of_state(seq_id, &mut error);
        let mut state = Vec::new();
        state.try_reserve_exact(size).map_err(|_| {
            MullamaError::OutOfMemory(format!("a copy of the context's memory needs {} MiB", size.div_ceil(1 << 20)))
        })?;
        // SAFETY: the context is live; `seq_id` is -1 or below `n_seq_max`;
        // `state` has room for `size` bytes, which are written and not read.
        let written = unsafe {
            shim::mullama_state_get(
                self.context.as_ptr(),
                seq_id,
                state.as_mut_ptr(),
                size,
                error.as_mut_ptr(),
                error.size(),
            )
        };
        if size == 0 || written != size {
            let reason = [error.text(), logging::take_errors()].join(" ");
            return Err(MullamaError::Internal(format!("llama.cpp did not give its state: {}", reason.trim())));
        }
        // SAFETY: llama.cpp wrote as many bytes as it says, from the start on;
        // `written` is `size`, which is reserved.
        unsafe { state.set_len(size) };
        Ok(state)
    }

    fn write_state(&mut self, seq_id: sys::llama_seq_id, state: &[u8]) -> Result<(), MullamaError> {
        logging::take_errors();
        let mut error = ErrorText::new();
        // SAFETY: the context is live; `seq_id` is -1 or below `n_seq_max`;
        // `state` is valid for its length.
        let taken = unsafe {
            shim::mullama_state_set(
                self.context.as_ptr(),
                seq_id,
                state.as_ptr(),
                state.len(),
                error.as_mut_ptr(),
                error.size(),
            )
        };
        let logged = logging::take_errors();
        if taken == 0 || taken != state.len() {
            let reason = [error.text(), logged].join(" ");
            return Err(MullamaError::State(format!("it does not fit this context: {}", reason.trim())));
        }
        Ok(())
    }

    /// Keeps llama.cpp from giving the cells of a restored memory to new
    /// tokens. It remembers in which cell the last token lies and goes on from
    /// there, but a restored memory starts from the first one, and where there
    /// is a sliding window, that is free for use again: the order of the cells,
    /// and with it the last bits of the sums over them, would not be that of
    /// the memory that was saved. A cell that two sequences hold is not free,
    /// so one more sequence holds all, until a decode has found its place.
    fn hold_cells(&mut self) {
        let Some(spare) = self.spare else { return };
        // A cell that several sequences share is held by the first of them;
        // adding it again changes nothing.
        for seq_id in 0..self.n_seq_max {
            // SAFETY: the context is live and has one more sequence than
            // `n_seq_max`, the spare one.
            unsafe { shim::mullama_seq_cp(self.context.as_ptr(), raw_id(seq_id), raw_id(spare), -1, -1) };
        }
        self.holds_cells = true;
    }

    pub(super) fn release_cells(&mut self) {
        if let Some(spare) = self.spare.filter(|_| self.holds_cells) {
            // SAFETY: as in `hold_cells`.
            unsafe { shim::mullama_seq_rm(self.context.as_ptr(), raw_id(spare), -1, -1) };
            self.holds_cells = false;
        }
    }

    /// Does something to the memory as if the spare sequence were not there.
    pub(super) fn with_cells_released<T>(&mut self, work: impl FnOnce(&mut Self) -> T) -> T {
        let held = self.holds_cells;
        self.release_cells();
        let result = work(self);
        if held {
            self.hold_cells();
        }
        result
    }
}
