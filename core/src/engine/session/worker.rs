//! The loop of a session's thread: take the next call, do it, answer. Its
//! stack frame owns the native context. Calls are done in the order in which
//! they were made; a stream whose reader is slow pauses only while no other
//! call waits behind it, so that no order of calls waits for ever.

use super::{
    Shared,
    call::Answer,
    history::{Limits, check_token},
    memory::{Halt, Memory, StopCheck},
    state_file::{self, Identity},
    work::Work,
};
use crate::{
    Batch, FinishReason, MullamaError, StreamConfig, TokenId,
    engine::{
        Reader,
        readers::Readers,
        request::Request,
        seed_of,
        selection::argmax,
        sequence::{Advance, Sequence},
        ticket::Ticket,
        ticket_of,
    },
};
use std::{path::Path, rc::Rc, sync::Arc, time::Instant};

/// The sequence that generates.
const GENERATING: usize = 0;

/// See the module.
pub(super) struct Worker {
    shared: Arc<Shared>,
    memory: Memory,
    limits: Limits,
    identity: Identity,
    eog: Vec<TokenId>,
    readers: Readers,
}

impl Worker {
    pub(super) fn new(shared: Arc<Shared>, memory: Memory, limits: Limits, identity: Identity) -> Self {
        let eog = memory.context().model().eog_tokens();
        Self { shared, memory, limits, identity, eog, readers: Readers::default() }
    }

    /// Runs until the inbox closes. Whatever is left then ends as `Closed`.
    pub(super) fn run(mut self) {
        while let Some(work) = self.shared.inbox.next() {
            if work.is_abandoned() {
                continue;
            }
            match work {
                Work::Generate { tokens, config, submitted, answer } => {
                    self.generate(&tokens, config, submitted, answer);
                }
                Work::Process { batches, answer } => {
                    let answer = Rc::new(answer);
                    let result = self.process(&batches, &self.stop_when_abandoned(&answer));
                    self.answer(answer, result);
                }
                Work::Save { path, answer } => {
                    let answer = Rc::new(answer);
                    let result = self.save(&path, &self.stop_when_abandoned(&answer));
                    self.answer(answer, result);
                }
                Work::Load { path, answer } => {
                    let answer = Rc::new(answer);
                    let result = self.load(&path, &self.stop_when_abandoned(&answer));
                    self.answer(answer, result);
                }
                Work::Clear { answer } => {
                    self.memory.clear();
                    self.answer(Rc::new(answer), Ok(()));
                }
                Work::Truncate { n, answer } => {
                    let result = self.truncate(n);
                    self.answer(Rc::new(answer), result);
                }
            }
        }
        for work in self.shared.inbox.drain() {
            work.fail(MullamaError::context_closed());
        }
    }

    /// A check that stops the work when the session closes or the caller has
    /// gone away.
    fn stop_when_abandoned<T: 'static>(&self, answer: &Rc<Answer<T>>) -> StopCheck {
        let (shared, answer) = (self.shared.clone(), Rc::downgrade(answer));
        Rc::new(move || {
            shared.inbox.is_closing() || answer.upgrade().is_none_or(|answer: Rc<Answer<T>>| answer.is_abandoned())
        })
    }

    /// Answers, after what the caller may ask next is up to date.
    fn answer<T>(&self, answer: Rc<Answer<T>>, result: Result<T, MullamaError>) {
        self.note_length();
        if let Some(answer) = Rc::into_inner(answer) {
            answer.give(result);
        }
    }

    fn note_length(&self) {
        self.shared.set_n_past(self.memory.history().len(GENERATING));
    }

    /// The error of work that was stopped: the caller sees it only if the
    /// session closed, since the one who abandons a call does not wait.
    fn stopped(&self) -> MullamaError {
        if self.shared.inbox.is_closing() {
            MullamaError::context_closed()
        } else {
            MullamaError::Cancelled
        }
    }

    fn halted(&self, halt: Halt) -> MullamaError {
        match halt {
            Halt::Stopped => self.stopped(),
            Halt::Full => MullamaError::Generation("the context's memory is full; clear or truncate it".to_owned()),
            Halt::Failed(error) => error,
        }
    }

    fn truncate(&mut self, n: usize) -> Result<(), MullamaError> {
        let len = self.memory.history().len(GENERATING);
        if n > len {
            return Err(MullamaError::invalid("n", n, format!("the sequence has {len} tokens")));
        }
        self.memory.truncate(GENERATING, n);
        Ok(())
    }

    /// The greedy tokens of each batch's rows that ask for logits.
    fn process(&mut self, batches: &[Batch], stop: &StopCheck) -> Result<Vec<Vec<TokenId>>, MullamaError> {
        let before: Vec<usize> = self.memory.history().sequences().iter().map(|held| held.cells.len()).collect();
        let rows = self.memory.history_mut().append(batches, &self.limits)?;
        self.note_length();
        let mut greedy = Vec::with_capacity(rows.iter().filter(|row| row.output).count());
        let result = self.memory.evaluate(&rows, stop, |logits| {
            let best = argmax(logits).ok_or_else(|| MullamaError::Generation("no token has a finite logit".to_owned()));
            greedy.push(best?.token);
            Ok(())
        });
        if let Err(halt) = result {
            // Rows of a call that was stopped stay; those of one that failed
            // don't, so that it can be made again.
            if !matches!(halt, Halt::Stopped) {
                before.iter().enumerate().for_each(|(seq_id, &n)| self.memory.truncate(seq_id, n));
            }
            return Err(self.halted(halt));
        }
        let mut greedy = greedy.into_iter();
        let of_batch =
            |batch: &Batch| batch.rows.iter().filter(|row| row.logits).filter_map(|_| greedy.next()).collect();
        Ok(batches.iter().map(of_batch).collect())
    }

    fn save(&mut self, path: &Path, stop: &StopCheck) -> Result<(), MullamaError> {
        let state = self.memory.state()?;
        let head = state_file::head(&self.identity, self.memory.history().sequences(), state.len());
        let mut go_on = || if stop() { Err(self.stopped()) } else { Ok(()) };
        state_file::write(path, &[&head, &state], &mut go_on)
    }

    fn load(&mut self, path: &Path, stop: &StopCheck) -> Result<(), MullamaError> {
        let bytes = state_file::read(path, &mut || if stop() { Err(self.stopped()) } else { Ok(()) })?;
        let n_sequences = self.memory.history().n_sequences();
        let (history, state) = state_file::parse(&bytes, &self.identity, &self.limits, n_sequences)?;
        self.memory.replace(history, state)
    }

    /// Appends tokens to the first sequence and generates.
    fn generate(&mut self, tokens: &[TokenId], config: StreamConfig, submitted: Instant, answer: Answer<Reader>) {
        let sequence = match self.begin(tokens, config, submitted) {
            Ok((sequence, reader)) => {
                self.note_length();
                answer.give(Ok(reader));
                sequence
            }
            Err(error) => return answer.give(Err(error)),
        };
        self.generate_tokens(sequence);
        self.note_length();
        self.readers.wake();
    }

    /// Checks the call; appends the tokens if it is good.
    fn begin(
        &mut self,
        tokens: &[TokenId],
        config: StreamConfig,
        submitted: Instant,
    ) -> Result<(Sequence, Reader), MullamaError> {
        config.validate(self.limits.n_vocab)?;
        tokens.iter().try_for_each(|&token| check_token(token, self.limits.n_vocab, "tokens"))?;
        let history = self.memory.history();
        if tokens.is_empty() && history.len(GENERATING) == 0 {
            let reason = "the context holds nothing to go on from; give at least one token";
            return Err(MullamaError::invalid("tokens", "[]", reason));
        }
        // With no tokens the last one is evaluated again, for its logits.
        let is_evaluated = history.evaluated(GENERATING) == history.len(GENERATING);
        let again = config.max_tokens > 0 && tokens.is_empty() && is_evaluated;
        let limit = self.limits.context_size - 1;
        let total = history.n_rows() + tokens.len() + usize::from(again && history.shares_last(GENERATING));
        if total > limit {
            return Err(MullamaError::PromptTooLong { tokens: total, limit });
        }
        if again {
            self.memory.forget_last(GENERATING);
        }
        for &token in tokens {
            self.memory.history_mut().push(GENERATING, token);
        }
        let history = self.memory.history();
        let seed = seed_of(&config);
        let ticket = ticket_of(&config, seed, &self.shared.model_options, self.shared.inbox.clone(), submitted, true);
        let reader = ticket.reader();
        let request = Request::new(ticket, history.tokens(GENERATING), config, seed, None);
        let n_cached = history.evaluated(GENERATING);
        let sequence = Sequence::new(request, GENERATING, 0, &self.eog, Instant::now()).resume(n_cached);
        Ok((sequence, reader))
    }

    /// Generates until the end, which the reader is not woken for yet.
    fn generate_tokens(&mut self, mut sequence: Sequence) {
        if sequence.wants_no_tokens() {
            return self.readers.tell(sequence.finish(FinishReason::Length));
        }
        // What the other sequences hold is not there for this one.
        let history = self.memory.history();
        let limit = self.limits.context_size - (history.n_rows() - history.len(GENERATING));
        let ticket = sequence.ticket.share();
        let stop = self.stop_when_over(&ticket);
        loop {
            if self.shared.inbox.is_closing() {
                return self.readers.tell(sequence.fail(MullamaError::context_closed()));
            }
            if ticket.is_cancelled() {
                return self.readers.tell(sequence.finish(FinishReason::Cancelled));
            }
            if ticket.is_over(Instant::now()) {
                return self.readers.tell(sequence.time_out());
            }
            if ticket.is_full() && !self.shared.inbox.has_work() {
                self.readers.wake();
                self.shared.inbox.sleep(ticket.deadline);
                continue;
            }
            match self.next_token(&mut sequence, limit, &stop) {
                Ok(advance) => {
                    self.readers.tell_of_token(advance.waker, advance.may_wait, Instant::now());
                    if let Some(reason) = advance.finished {
                        self.note_length();
                        return self.readers.tell(sequence.finish(reason));
                    }
                }
                // Says why at the top of the loop.
                Err(Halt::Stopped) => {}
                Err(Halt::Full) => return self.readers.tell(sequence.finish(FinishReason::ContextFull)),
                Err(Halt::Failed(error)) => return self.readers.tell(sequence.fail(error)),
            }
        }
    }

    fn stop_when_over(&self, ticket: &Arc<Ticket>) -> StopCheck {
        let (shared, ticket) = (self.shared.clone(), ticket.clone());
        Rc::new(move || shared.inbox.is_closing() || ticket.is_over(Instant::now()))
    }

    /// Evaluates what is pending and draws a token.
    fn next_token(&mut self, sequence: &mut Sequence, limit: usize, stop: &StopCheck) -> Result<Advance, Halt> {
        let mut rows = self.memory.history().pending(&[GENERATING]);
        let last = self.memory.history().len(GENERATING) - 1;
        for row in rows.iter_mut().filter(|row| row.position == last && row.seq_ids.contains(&GENERATING)) {
            row.output = true;
        }
        let model = self.memory.context().model().clone();
        let mut advance = None;
        let started = Instant::now();
        self.readers.step_begins(rows.len(), started);
        self.memory.evaluate(&rows, stop, |logits| {
            let drawn = sequence.draw(logits)?;
            advance = Some(sequence.take(&model, drawn, limit, Instant::now())?);
            Ok(())
        })?;
        self.readers.stepped(rows.len(), started.elapsed());
        let advance = advance.ok_or_else(|| Halt::Failed(MullamaError::Internal("no row gave logits".to_owned())))?;
        self.memory.history_mut().push(GENERATING, sequence.last_token());
        self.note_length();
        Ok(advance)
    }
}
