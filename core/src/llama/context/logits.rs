//! The logits of the last decode: of one row, or of many rows at once, shared
//! out among the threads of the pool. On the context's thread.

use super::{Context, Team};
use llama_cpp_sys_2 as sys;
use std::sync::{Mutex, PoisonError};

impl Context {
    /// The logits of a row that asked for them in the last decode, to read or
    /// to work in.
    pub(crate) fn logits(&mut self, row: usize) -> Option<&mut [f32]> {
        let row = i32::try_from(row).ok()?;
        // SAFETY: the context is live; a row without logits gives null.
        let logits = unsafe { sys::llama_get_logits_ith(self.context.as_ptr(), row) };
        // SAFETY: llama.cpp keeps `n_vocab` floats there until the next decode,
        // and only writes them then. `&mut self` says that nobody else has them
        // and that no decode is under way.
        (!logits.is_null()).then(|| unsafe { std::slice::from_raw_parts_mut(logits, self.model.n_vocab()) })
    }

    /// Calls `work` once for each of some rows, with its logits, on `n_threads`
    /// threads at the same time, the calling one among them, and waits for all.
    /// `false`, and no call, when a row has no logits or the rows do not rise.
    ///
    /// # Panics
    /// If `work` panics.
    pub(crate) fn for_each_logits<T: Send>(
        &mut self,
        rows: impl IntoIterator<Item = (usize, T)>,
        n_threads: usize,
        work: impl Fn(T, &mut [f32]) + Sync,
    ) -> bool {
        let mut before = None;
        let with_logits = rows.into_iter().map(|(row, given)| {
            let rises = before.replace(row).is_none_or(|before| before < row);
            let logits = std::ptr::from_mut(self.logits(row).filter(|_| rises)?);
            // SAFETY: it was a slice just now, and lives until the next decode,
            // which needs the context that this method has for itself. Rows
            // differ, and each has floats of its own: no two slices overlap.
            Some((given, unsafe { &mut *logits }))
        });
        let Some(jobs) = with_logits.collect::<Option<Vec<_>>>() else { return false };
        let jobs = Mutex::new(jobs.into_iter());
        let next = || jobs.lock().unwrap_or_else(PoisonError::into_inner).next();
        let all = || {
            while let Some((given, logits)) = next() {
                work(given, logits);
            }
        };
        if n_threads > 1
            && let Some(team) = self.team.get_or_insert_with(|| Team::new(self.pool.clone()))
        {
            team.run(n_threads, &all);
        }
        // What the others did not take, if they could not be had.
        all();
        true
    }
}
