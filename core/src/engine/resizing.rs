//! How an engine goes over to another number of sequences between two steps.
//! Part of [`Worker`], on the engine's thread.

use super::{
    loading::{new_context, prefix_cache_budget},
    worker::{Limits, Worker, shape},
};
use crate::{
    MullamaError,
    llama::{Batch, Context},
};
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
        // It takes some steps' time.
        self.readers.wake();
        let limits = Limits::new(&self.shared.options, max_concurrent);
        let model = self.context.model().clone();
        let (mut context, pace) = new_context(model, &self.shared.options, max_concurrent, None)?;
        self.store_all();
        self.move_to(&mut context);
        // It uses the threads of the one that goes.
        self.aside.drop_context();
        (self.context, self.pace, self.limits) = (context, pace, limits);
        self.shared.metrics.threads.store(limits.threads, Relaxed);
        let budget = prefix_cache_budget(self.context.model(), &self.shared.options, &limits);
        self.prefix_cache.adapt(shape(&self.context), budget);
        self.shared.metrics.prefix_cache_bytes.store(self.prefix_cache.bytes(), Relaxed);
        self.batch = Batch::new(limits.batch_size);
        self.memory_is_full = false;
        self.watch_cancellations();
        self.shared.inbox.set_max_concurrent(max_concurrent);
        Ok(())
    }

    /// Moves the memories of all active sequences over, those that others
    /// share first, so that these share them there too.
    fn move_to(&mut self, context: &mut Context) {
        let mut done: Vec<u64> = Vec::new();
        while let Some(index) = self.active.iter().position(|sequence| {
            let may_go = sequence.shares.is_none_or(|shared| done.contains(&shared.with));
            may_go && !done.contains(&sequence.age)
        }) {
            let (age, from, n) = (self.active[index].age, self.active[index].seq_id, self.active[index].n_past());
            let shared = self.active[index].shares.filter(|shared| {
                let with = self.active.iter().position(|other| other.age == shared.with);
                with.is_some_and(|with| context.has_parts() && context.share_first(with, index, shared.n))
            });
            let moved = n == 0
                || match shared {
                    Some(shared) if shared.n == n => true,
                    Some(shared) => self
                        .context
                        .part_state(from, shared.n..n)
                        .is_some_and(|state| context.append_state(index, &state)),
                    None => {
                        self.context.sequence_state(from).is_some_and(|state| context.set_sequence_state(index, &state))
                    }
                };
            self.active[index].shares = shared.filter(|_| moved);
            if !moved {
                context.clear_sequence(index);
                self.active[index].rewind(0);
            }
            done.push(age);
        }
        for (seq_id, sequence) in self.active.iter_mut().enumerate() {
            sequence.seq_id = seq_id;
        }
    }
}
