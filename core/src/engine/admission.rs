//! Which requests come in and which leave: cancellations, deadlines, and free
//! sequence ids for those who wait. Part of [`Worker`], on the engine's thread.

use super::{sequence::Sequence, worker::Worker};
use crate::{FinishReason, MullamaError, TokenId};
use std::{sync::atomic::Ordering::Relaxed, time::Instant};

impl Worker {
    /// Ends everything that was cancelled or is past its deadline.
    pub(super) fn drop_what_is_over(&mut self, now: Instant) {
        let (over, waiting) =
            std::mem::take(&mut self.waiting).into_iter().partition::<Vec<_>, _>(|r| r.ticket.is_over(now));
        self.waiting = waiting.into();
        for request in over {
            self.shared.inbox.left_queue();
            let waker = if request.ticket.is_cancelled() {
                self.shared.metrics.cancelled.fetch_add(1, Relaxed);
                request.finish(FinishReason::Cancelled)
            } else {
                self.shared.metrics.failed.fetch_add(1, Relaxed);
                let after_ms = request.ticket.timeout_ms;
                request.fail(MullamaError::Timeout { partial: String::new(), after_ms })
            };
            self.readers.tell(waker);
        }
        while let Some(index) = self.active.iter().position(|sequence| sequence.ticket.is_over(now)) {
            let sequence = self.retire(index);
            self.end_early(sequence);
        }
        while let Some(index) = self.preempted.iter().position(|sequence| sequence.ticket.is_over(now)) {
            if let Some(sequence) = self.preempted.remove(index) {
                self.end_early(sequence);
            }
        }
    }

    fn end_early(&mut self, sequence: Sequence) {
        let waker = if sequence.ticket.is_cancelled() {
            self.shared.metrics.cancelled.fetch_add(1, Relaxed);
            sequence.finish(FinishReason::Cancelled)
        } else {
            self.shared.metrics.failed.fetch_add(1, Relaxed);
            sequence.time_out()
        };
        self.readers.tell(waker);
    }

    /// Gives free sequence ids to those who wait, as far as their tokens have
    /// room; the preempted go first, and nobody overtakes.
    pub(super) fn admit(&mut self) {
        while !self.memory_is_full && self.active.len() < self.limits.max_concurrent {
            let next = self.next_request();
            if next.is_none() && self.preempted.is_empty() {
                break;
            }
            self.store_all();
            let seq_id = self.free_seq_id();
            if let Some(first) = self.preempted.front() {
                if !self.has_room_for(first.tokens(), first.age) {
                    break;
                }
                let Some(mut sequence) = self.preempted.pop_front() else { break };
                sequence.seq_id = seq_id;
                self.active.push(sequence);
                self.resume(self.active.len() - 1);
            } else if let Some(next) = next
                && self.has_room_for(&self.waiting[next].prompt, self.next_age + 1)
            {
                let Some(request) = self.waiting.remove(next) else { break };
                self.shared.inbox.left_queue();
                self.next_age += 1;
                let sequence = Sequence::new(request, seq_id, self.next_age, &self.eog, Instant::now());
                self.active.push(if self.drafts { sequence.with_lookup() } else { sequence });
                self.begin(self.active.len() - 1);
            } else {
                break;
            }
        }
        self.note_load();
    }

    /// Whether there is room for a sequence of these tokens. Cells that it
    /// shares with an active one are taken already.
    fn has_room_for(&self, tokens: &[TokenId], age: u64) -> bool {
        self.has_room(tokens.len()) || self.has_room(tokens.len() - self.look_around(tokens, age, 0).n_shared())
    }

    /// The oldest request whose turn it is: of those of one lease only one is
    /// served at a time, so that a lease never takes another's sequence.
    fn next_request(&self) -> Option<usize> {
        self.waiting.iter().position(|request| {
            let mut served = self.active.iter().chain(&self.preempted);
            request.lease.as_ref().is_none_or(|lease| !served.any(|sequence| sequence.is_of(lease)))
        })
    }

    /// The lowest id that no active sequence has. What ended is in RAM by then.
    fn free_seq_id(&self) -> usize {
        (0..self.limits.max_concurrent)
            .find(|id| self.active.iter().all(|sequence| sequence.seq_id != *id))
            .expect("fewer sequences are active than there are ids")
    }

    /// When the engine must look again though nothing arrives.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let waiting = self.waiting.iter().filter_map(|request| request.ticket.deadline);
        let serving = self.active.iter().chain(&self.preempted).filter_map(|sequence| sequence.ticket.deadline);
        waiting.chain(serving).min()
    }
}
