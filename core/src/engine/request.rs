//! A request on its way to the engine, and the guard that ends it whatever
//! happens on the engine's side.

use super::{
    lease::{Hold, Lease},
    ticket::{End, Ticket},
};
use crate::{FinishReason, Generation, MullamaError, StreamConfig, Timings, TokenId, Usage};
use std::{ops::Deref, sync::Arc, task::Waker, time::Instant};

/// A validated request whose prompt is tokenized and fits.
pub(crate) struct Request {
    pub(super) ticket: Producer,
    /// At least one token.
    pub(super) prompt: Vec<TokenId>,
    pub(super) config: StreamConfig,
    pub(super) seed: u64,
    pub(super) submitted: Instant,
    /// Keeps the sequence of a pool's lease until the request has left.
    pub(super) lease: Option<Hold>,
}

impl Request {
    pub(crate) fn new(
        ticket: Arc<Ticket>,
        prompt: Vec<TokenId>,
        config: StreamConfig,
        seed: u64,
        lease: Option<Arc<Lease>>,
    ) -> Self {
        let lease = lease.map(Hold::new);
        Self { ticket: Producer(Some(ticket)), prompt, config, seed, submitted: Instant::now(), lease }
    }
}

impl Request {
    /// Ends a request that never became a sequence.
    pub(super) fn finish(self, reason: FinishReason) -> Option<Waker> {
        let waited = self.submitted.elapsed();
        // Who sees the end finds the lease free.
        drop(self.lease);
        self.ticket.finish(Ok(Generation {
            text: String::new(),
            tokens: Vec::new(),
            finish_reason: reason,
            usage: Usage { prompt_tokens: self.prompt.len(), ..Usage::default() },
            timings: Timings { queued: waited, ..Timings::default() },
            seed: self.seed,
            logprobs: self.config.logprobs.map(|_| Vec::new()),
        }))
    }

    /// Ends a request that never became a sequence with an error.
    pub(super) fn fail(self, error: MullamaError) -> Option<Waker> {
        drop(self.lease);
        self.ticket.finish(Err(error))
    }
}

/// The engine's end of a ticket. A producer that is dropped without an end, as
/// when the engine's thread panics, ends the ticket with `Internal`, so that
/// nobody waits for ever.
pub(super) struct Producer(Option<Arc<Ticket>>);

impl Producer {
    /// Ends the request; the waker is the engine's to wake.
    pub(super) fn finish(mut self, end: End) -> Option<Waker> {
        self.0.take().and_then(|ticket| ticket.finish(end))
    }

    pub(super) fn share(&self) -> Arc<Ticket> {
        self.0.clone().expect("a producer has its ticket until `finish` consumes it")
    }
}

impl Deref for Producer {
    type Target = Ticket;

    fn deref(&self) -> &Ticket {
        self.0.as_ref().expect("a producer has its ticket until `finish` consumes it")
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        if let Some(ticket) = self.0.take() {
            let error = MullamaError::Internal("the engine stopped unexpectedly; load the model again".to_owned());
            if let Some(waker) = ticket.finish(Err(error)) {
                waker.wake();
            }
        }
    }
}
