//! How an engine goes over to another number of sequences between two steps.
//! Part of [`Worker`], on the engine's thread.

use super::{
    loading::new_context,
    worker::{Limits, Worker},
};
use crate::{MullamaError, llama::Batch};
use std::sync::{Arc, atomic::Ordering::Relaxed};

impl Worker {
    /// Serves more sequences at once, or fewer, if that was asked for.
    pub(super) fn resize(&mut self) {
        while let Some(resize) = self.shared.inbox.next_resize() {
            match &resize.done {
                None => self.shrink_to = Some(resize.n),
                // Who asked has given up.
                Some(done) if Arc::strong_count(done) == 1 => {}
                Some(done) => {
                    self.shrink_to = self.shrink_to.filter(|&n| n >= resize.n);
                    done.set(if resize.n > self.limits.max_concurrent {
                        self.rebuild(resize.n)
                    } else {
                        Ok(())
                    });
                }
            }
        }
        let Some(n) = self.shrink_to.filter(|&n| self.active.len() + self.preempted.len() <= n) else { return };
        self.shrink_to = None;
        if n < self.limits.max_concurrent
            && let Err(error) = self.rebuild(n)
        {
            tracing::warn!(%error, "the memory of a smaller pool could not be given back");
        }
    }

    /// Goes over to a new context, with room for `max_concurrent` sequences,
    /// over the same weights. What the sequences have computed moves with them.
    ///
    /// # Errors
    /// `OutOfMemory`, `Context`; nothing is changed then.
    fn rebuild(&mut self, max_concurrent: usize) -> Result<(), MullamaError> {
        let limits = Limits::new(&self.shared.options, max_concurrent);
        let model = self.context.model().clone();
        let (mut context, pace) = new_context(model, &self.shared.options, max_concurrent)?;
        for (seq_id, sequence) in self.active.iter_mut().enumerate() {
            let moved = self
                .context
                .sequence_state(sequence.seq_id)
                .is_some_and(|state| context.set_sequence_state(seq_id, &state));
            if !moved {
                context.clear_sequence(seq_id);
                sequence.rewind(0);
            }
            sequence.seq_id = seq_id;
        }
        (self.context, self.pace, self.limits) = (context, pace, limits);
        self.shared.metrics.threads.store(limits.threads, Relaxed);
        self.batch = Batch::new(limits.batch_size);
        self.memory_is_full = false;
        self.watch_cancellations();
        self.shared.inbox.set_max_concurrent(max_concurrent);
        Ok(())
    }
}
