//! One request while it is served: its tokens, its sampler, its text, and how
//! far its memory has come. Owned by the engine's thread.

use super::{
    curve::Curve,
    hold_back::HoldBack,
    lease::Hold,
    lookup::Lookup,
    request::{Producer, Request},
    sampler::{self, Sampler},
    ticket::Ticket,
};
use crate::{
    FinishReason, Generation, MullamaError, Timings, TokenData, TokenId, TokenLogprob, TokenLogprobs, Usage,
    llama::Model,
};
use std::{sync::Arc, task::Waker, time::Instant};

/// See the module.
pub(super) struct Sequence {
    pub(super) ticket: Producer,
    /// Sequence id in the context; also this sequence's slot.
    pub(super) seq_id: usize,
    /// Order of admission: larger is younger.
    pub(super) age: u64,
    /// The prompt, then what was generated.
    tokens: Vec<TokenId>,
    n_prompt: usize,
    /// Tokens of the prompt that were not computed for this request.
    n_cached: usize,
    /// Whether rows were evaluated for this request.
    has_evaluated: bool,
    /// Tokens whose rows were evaluated and are in the context's memory.
    n_past: usize,
    /// The older sequence that evaluates the beginning of this one's tokens,
    /// too. Until it has, this one takes no rows and holds nothing.
    pub(super) follows: Option<Shared>,
    /// The sequence whose cells hold the beginning of this one's tokens.
    pub(super) shares: Option<Shared>,
    /// What it had computed when it had to make room.
    pub(super) spilled: Option<Spilled>,
    /// Its prompt is being computed aside.
    pub(super) is_aside: bool,
    max_tokens: usize,
    n_logprobs: Option<usize>,
    stops: Vec<String>,
    sampler: Sampler,
    /// `None` where nothing is to be guessed.
    lookup: Option<Lookup>,
    hold_back: HoldBack,
    /// Everything released so far.
    text: String,
    logprobs: Vec<TokenLogprobs>,
    seed: u64,
    submitted: Instant,
    admitted: Instant,
    first_token: Option<Instant>,
    last_token: Instant,
    /// The lease that the request belongs to, in a pool.
    lease: Option<Hold>,
}

/// A beginning that a sequence has in common with another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shared {
    /// The age of the other one.
    pub(super) with: u64,
    /// Tokens.
    pub(super) n: usize,
}

/// The memory of a sequence in RAM.
pub(super) struct Spilled {
    /// Tokens that it shared with others.
    pub(super) from: usize,
    /// Their state, for when nobody has them any more; empty if there are none.
    pub(super) shared: Vec<u8>,
    /// All its evaluated tokens.
    pub(super) to: usize,
    /// The state of those that were its own.
    pub(super) own: Vec<u8>,
}

/// A token, and its log-probabilities where they are wanted.
pub(super) struct Drawn {
    token: TokenId,
    logprobs: Option<sampler::Logprobs>,
}

/// What a new token led to.
pub(super) struct Advance {
    /// The reader to wake after the step.
    pub(super) waker: Option<Waker>,
    /// The reader may be woken after the next one as well.
    pub(super) may_wait: bool,
    /// Set when this was the last token.
    pub(super) finished: Option<FinishReason>,
    pub(super) was_first: bool,
}

impl Sequence {
    pub(super) fn new(request: Request, seq_id: usize, age: u64, eog: &[TokenId], now: Instant) -> Self {
        let Request { ticket, prompt, config, seed, submitted, lease } = request;
        Self {
            ticket,
            seq_id,
            age,
            n_prompt: prompt.len(),
            tokens: prompt,
            n_cached: 0,
            has_evaluated: false,
            n_past: 0,
            follows: None,
            shares: None,
            spilled: None,
            is_aside: false,
            max_tokens: config.max_tokens,
            n_logprobs: config.logprobs,
            sampler: Sampler::new(&config, seed, eog),
            lookup: None,
            hold_back: HoldBack::new(config.stop.clone()),
            stops: config.stop,
            text: String::new(),
            logprobs: Vec::new(),
            seed,
            submitted,
            admitted: now,
            first_token: None,
            last_token: now,
            lease,
        }
    }

    /// A sequence whose first `n_cached` tokens are in the memory already.
    pub(super) fn resume(mut self, n_cached: usize) -> Self {
        self.rewind(n_cached);
        self.n_cached = self.n_past;
        self
    }

    /// Lets the sequence guess what it says next.
    pub(super) fn with_lookup(mut self) -> Self {
        self.lookup = Some(Lookup::default());
        self
    }

    /// Puts the tokens that are guessed to come next into `draft`; none where
    /// a plain step is the better one. `limit` is the most tokens the request
    /// may use in all.
    pub(super) fn draft(&mut self, curve: &Curve, limit: usize, draft: &mut Vec<TokenId>) {
        draft.clear();
        let left = (self.max_tokens - self.n_generated()).min(limit - self.tokens.len());
        let Some(lookup) = &mut self.lookup else { return };
        lookup.update(&self.tokens);
        // One token is drawn anyway.
        lookup.draft(&self.tokens, curve, left.saturating_sub(1), draft);
    }

    /// Tokens that are not evaluated yet; at least 1 while the sequence runs.
    pub(super) fn n_pending(&self) -> usize {
        self.tokens.len() - self.n_past
    }

    /// The prompt, then what was generated.
    pub(super) fn tokens(&self) -> &[TokenId] {
        &self.tokens
    }

    /// Cells that its evaluated tokens take, those of others not counted.
    pub(super) fn n_cells(&self) -> usize {
        self.n_past.saturating_sub(self.shares.map_or(0, |shared| shared.n))
    }

    /// Cells that all its tokens so far will take.
    pub(super) fn n_cells_wanted(&self) -> usize {
        self.tokens.len().saturating_sub(self.shares.or(self.follows).map_or(0, |shared| shared.n))
    }

    /// Its first `n` tokens are in the memory, and were computed for another.
    /// Gives how many more of the prompt that makes.
    pub(super) fn took_over(&mut self, n: usize) -> usize {
        self.rewind(n);
        if self.has_evaluated {
            return 0;
        }
        let before = std::mem::replace(&mut self.n_cached, self.n_past.min(self.n_prompt));
        self.n_cached.saturating_sub(before)
    }

    /// Whether the request asked for no token at all.
    pub(super) fn wants_no_tokens(&self) -> bool {
        self.max_tokens == 0
    }

    /// The newest token.
    pub(super) fn last_token(&self) -> TokenId {
        self.tokens[self.tokens.len() - 1]
    }

    pub(super) fn n_past(&self) -> usize {
        self.n_past
    }

    /// Whether it is a request of that lease.
    pub(super) fn is_of(&self, lease: &Hold) -> bool {
        self.lease.as_ref().is_some_and(|own| own.is_of(lease))
    }

    pub(super) fn is_in_prefill(&self) -> bool {
        self.n_pending() > 1
    }

    /// The next `n` tokens to evaluate, with their positions, and whether the
    /// row's logits are wanted: only those of the very last token are.
    pub(super) fn rows(&self, n: usize) -> impl Iterator<Item = (TokenId, usize, bool)> {
        let last = self.tokens.len() - 1;
        self.tokens[self.n_past..self.n_past + n]
            .iter()
            .enumerate()
            .map(move |(offset, &token)| (token, self.n_past + offset, self.n_past + offset == last))
    }

    /// `n` rows were evaluated. Gives how many of them were of the prompt.
    pub(super) fn evaluated(&mut self, n: usize) -> usize {
        let of_prompt = self.n_prompt.saturating_sub(self.n_past).min(n);
        self.n_past += n;
        self.has_evaluated |= n > 0;
        of_prompt
    }

    /// The context's memory holds only the first `n` tokens.
    pub(super) fn rewind(&mut self, n: usize) {
        self.n_past = n.min(self.tokens.len() - 1);
    }

    /// Draws the next token from the logits of the last row. May run on another
    /// thread than the engine's.
    ///
    /// # Errors
    /// `Generation` when no token can be drawn; the sequence is over then.
    pub(super) fn draw(&mut self, logits: &mut [f32]) -> Result<Drawn, MullamaError> {
        let token = self.sampler.sample(logits, &self.tokens)?;
        let logprobs = self.n_logprobs.map(|n| sampler::logprobs(logits, token, n));
        Ok(Drawn { token, logprobs })
    }

    /// Takes the token that was drawn: releases text, and hands it over.
    /// `limit` is the most tokens the request may use in all.
    ///
    /// # Errors
    /// `Tokenization` when the token has no text; the sequence is over then.
    pub(super) fn take(
        &mut self,
        model: &Model,
        drawn: Drawn,
        limit: usize,
        now: Instant,
    ) -> Result<Advance, MullamaError> {
        let Drawn { token, logprobs } = drawn;
        if let Some(lookup) = &mut self.lookup {
            lookup.drawn(&self.tokens, token);
        }
        let logprobs = logprobs.map(|found| self.describe(model, found, token)).transpose()?;
        let was_first = self.first_token.is_none();
        self.first_token.get_or_insert(now);
        self.last_token = now;
        self.tokens.push(token);

        let is_eog = model.is_eog(token);
        if !is_eog {
            model.append_piece(token, false, self.hold_back.bytes())?;
        }
        let n_before = self.text.len();
        let stopped_by = self.hold_back.release(&mut self.text);
        let finished = if is_eog {
            Some(FinishReason::Stop)
        } else if let Some(index) = stopped_by {
            Some(FinishReason::StopString(self.stops[index].clone()))
        } else if self.n_generated() >= self.max_tokens {
            Some(FinishReason::Length)
        } else if self.tokens.len() >= limit {
            Some(FinishReason::ContextFull)
        } else {
            None
        };
        if finished.is_some() && stopped_by.is_none() {
            self.hold_back.finish(&mut self.text);
        }
        let waker = if self.ticket.wants_tokens() {
            let data = TokenData {
                text: self.text[n_before..].to_owned(),
                token_id: token,
                index: self.n_generated() - 1,
                logprob: logprobs.as_ref().map(|logprobs| logprobs.logprob),
                top_logprobs: logprobs.as_ref().map(|logprobs| logprobs.top.clone()).unwrap_or_default(),
                is_final: finished.is_some(),
                finish_reason: finished.clone(),
            };
            self.ticket.push(data, self.usage(), self.timings())
        } else {
            None
        };
        self.logprobs.extend(logprobs);
        let may_wait = !was_first && finished.is_none() && !self.ticket.is_half_full();
        Ok(Advance { waker, may_wait, finished, was_first })
    }

    /// Ends the request with what it has.
    pub(super) fn finish(mut self, reason: FinishReason) -> Option<Waker> {
        // Who sees the end finds the lease free.
        drop(self.lease.take());
        // Empty unless the end came between two tokens.
        if !matches!(reason, FinishReason::StopString(_)) {
            self.hold_back.finish(&mut self.text);
        }
        let generation = Generation {
            usage: self.usage(),
            timings: self.timings(),
            text: self.text,
            tokens: self.tokens.split_off(self.n_prompt),
            finish_reason: reason,
            seed: self.seed,
            logprobs: self.n_logprobs.map(|_| self.logprobs),
        };
        self.ticket.finish(Ok(generation))
    }

    /// Ends the request with an error.
    pub(super) fn fail(mut self, error: MullamaError) -> Option<Waker> {
        drop(self.lease.take());
        self.ticket.finish(Err(error))
    }

    /// Ends the request because its deadline passed.
    pub(super) fn time_out(mut self) -> Option<Waker> {
        drop(self.lease.take());
        self.hold_back.finish(&mut self.text);
        let after_ms = self.ticket.timeout_ms;
        self.ticket.finish(Err(MullamaError::Timeout { partial: self.text, after_ms }))
    }

    pub(super) fn time_to_first_token(&self) -> std::time::Duration {
        self.timings().time_to_first_token
    }

    fn n_generated(&self) -> usize {
        self.tokens.len() - self.n_prompt
    }

    fn usage(&self) -> Usage {
        Usage {
            prompt_tokens: self.n_prompt,
            cached_tokens: self.n_cached,
            completion_tokens: self.n_generated(),
        }
    }

    fn timings(&self) -> Timings {
        let first = self.first_token.unwrap_or(self.last_token);
        Timings {
            queued: self.admitted - self.submitted,
            prefill: first - self.admitted,
            decode: self.last_token - first,
            time_to_first_token: first - self.submitted,
        }
    }

    fn describe(&self, model: &Model, found: sampler::Logprobs, token: TokenId) -> Result<TokenLogprobs, MullamaError> {
        let top = found
            .top
            .into_iter()
            .map(|(token_id, logprob)| Ok(TokenLogprob { token_id, text: model.detokenize(&[token_id])?, logprob }))
            .collect::<Result<_, MullamaError>>()?;
        Ok(TokenLogprobs { token_id: token, logprob: found.chosen, top })
    }
}

/// The requests of a step with their rows, for the abort check.
pub(super) struct InFlight {
    requests: Vec<(Arc<Ticket>, usize)>,
    /// Whether the memory can drop the rows of a step that was stopped, so
    /// that the others go on from where they were. Recurrent ones can't.
    can_go_back: bool,
}

impl InFlight {
    pub(super) fn new(can_go_back: bool) -> Self {
        Self { requests: Vec::new(), can_go_back }
    }

    pub(super) fn clear(&mut self) {
        self.requests.clear();
    }

    pub(super) fn push(&mut self, ticket: Arc<Ticket>, n_rows: usize) {
        self.requests.push((ticket, n_rows));
    }

    /// Whether the step should stop: most of its rows are for nobody any more.
    /// The rows of the others, few beside a cancelled prefill, are computed
    /// again.
    pub(super) fn is_not_worth_it(&self, now: Instant) -> bool {
        let rows = |of_over: bool| -> usize {
            self.requests.iter().filter(|(ticket, _)| ticket.is_over(now) == of_over).map(|(_, n)| n).sum()
        };
        let (over, live) = (rows(true), rows(false));
        if self.can_go_back { over > live } else { over > 0 && live == 0 }
    }
}
