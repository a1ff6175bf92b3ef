//! The loop of an engine's thread: take what arrived, drop what is over, admit,
//! plan, decode, and hand over what [`results`] draws. Who comes in is in
//! [`admission`], what sequences take from each other in [`sharing`], what becomes of what ended
//! ones had computed in [`ended`], what is done about a full memory in [`room`],
//! and how long prompts are computed in [`aside`]. Its stack frame owns the
//! context and all sequences. It never blocks on a reader and never tokenizes a
//! prompt.
//!
//! Deliberately absent: policy (which rows a step takes is `scheduler`'s) and
//! anything about languages or runtimes.
//!
//! [`admission`]: super::admission
//! [`aside`]: super::aside
//! [`ended`]: super::ended
//! [`results`]: super::results
//! [`sharing`]: super::sharing
//! [`room`]: super::room

use super::{
    Shared,
    aside::Aside,
    curve::{Curve, MAX_ROWS},
    ended::Ended,
    loading::prefix_cache_budget,
    pace::Pace,
    prefix_cache::{PrefixCache, Shape},
    readers::Readers,
    request::Request,
    results::Drawing,
    scheduler::{self, Candidate, StepCost},
    sequence::{InFlight, Sequence},
};
use crate::{
    ModelOptions, MullamaError, TokenId,
    llama::{Batch, Context, DecodeError},
};
use std::{
    cell::RefCell,
    collections::VecDeque,
    rc::Rc,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

/// Sizes that the worker keeps to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Tokens (prompt and answer) of one request.
    pub(super) context_size: usize,
    /// Sequences at once.
    pub(super) max_concurrent: usize,
    /// Rows of one step.
    pub(super) batch_size: usize,
    /// Tokens in the memory over all sequences.
    pub(super) cache_size: usize,
    /// Most threads of a step.
    pub(super) threads: usize,
}

impl Limits {
    /// Those of a model's options with room for `max_concurrent` sequences.
    pub(super) fn new(options: &ModelOptions, max_concurrent: usize) -> Self {
        Self {
            context_size: options.context_size,
            max_concurrent,
            // One sequence more is there for parts of others.
            batch_size: options.batch_size.max(max_concurrent + 1),
            cache_size: options.cache_size_for(max_concurrent),
            threads: options.effective_threads(),
        }
    }
}

/// See the module.
pub(super) struct Worker {
    pub(super) shared: Arc<Shared>,
    pub(super) context: Context,
    pub(super) limits: Limits,
    pub(super) batch: Batch,
    /// Requests that wait for a sequence, oldest first.
    pub(super) waiting: VecDeque<Request>,
    /// Sequences in order of admission.
    pub(super) active: Vec<Sequence>,
    /// Sequences that had to give up their memory, oldest first. They come
    /// back when another has ended.
    pub(super) preempted: VecDeque<Sequence>,
    /// Sequences to keep when no more than these are served.
    pub(super) shrink_to: Option<usize>,
    /// No sequence comes back from `preempted` and none is admitted until one
    /// ends: the memory is full.
    pub(super) memory_is_full: bool,
    pub(super) next_age: u64,
    /// Rows of decodes so far, for whose turn it is.
    turn: usize,
    /// Steps so far.
    pub(super) n_steps: u64,
    /// Ended sequences that are in their cells still, oldest first.
    pub(super) ended: VecDeque<Ended>,
    /// What ended sequences had computed, in RAM.
    pub(super) prefix_cache: PrefixCache,
    /// Where long prompts are computed.
    pub(super) aside: Aside,
    pub(super) cost: StepCost,
    pub(super) drawing: Drawing,
    /// What steps of a lone sequence cost.
    pub(super) curve: Curve,
    /// Tokens that the step's lone sequence is guessed to say next.
    pub(super) draft: Vec<TokenId>,
    /// Whether tokens are guessed at all.
    pub(super) drafts: bool,
    /// How many threads a step uses.
    pub(super) pace: Pace,
    pub(super) eog: Vec<TokenId>,
    in_flight: Rc<RefCell<InFlight>>,
    pub(super) readers: Readers,
}

impl Worker {
    pub(super) fn new(shared: Arc<Shared>, context: Context, pace: Pace) -> Self {
        let can_go_back = !context.model().header().recurrent;
        let limits = Limits::new(&shared.options, shared.options.max_concurrent);
        let kept = shape(&context);
        let budget = prefix_cache_budget(context.model(), &shared.options, &limits);
        shared.metrics.threads.store(limits.threads, Relaxed);
        let drafts = shared.options.prompt_lookup && can_go_back;
        let mut worker = Self {
            eog: context.model().eog_tokens(),
            batch: Batch::new(limits.batch_size),
            shared,
            context,
            limits,
            waiting: VecDeque::new(),
            active: Vec::new(),
            preempted: VecDeque::new(),
            shrink_to: None,
            memory_is_full: false,
            next_age: 0,
            turn: 0,
            n_steps: 0,
            ended: VecDeque::new(),
            prefix_cache: PrefixCache::new(kept, budget),
            aside: Aside::new(),
            cost: StepCost::default(),
            drawing: Drawing::default(),
            curve: Curve::default(),
            draft: Vec::with_capacity(MAX_ROWS),
            drafts,
            pace,
            in_flight: Rc::new(RefCell::new(InFlight::new(can_go_back))),
            readers: Readers::default(),
        };
        worker.watch_cancellations();
        worker
    }

    /// Lets a step of the context stop when it is not worth its time.
    pub(super) fn watch_cancellations(&mut self) {
        let (in_flight, shared) = (self.in_flight.clone(), self.shared.clone());
        self.context.set_abort_check(move |now| shared.inbox.is_closing() || in_flight.borrow().is_not_worth_it(now));
    }

    /// Runs until the inbox closes. Whatever is left then ends as `Closed`.
    pub(super) fn run(mut self) {
        loop {
            if self.active.is_empty() && self.preempted.is_empty() {
                self.readers.wake();
                self.shared.inbox.gather(&mut self.waiting);
            } else {
                self.shared.inbox.drain(&mut self.waiting);
            }
            if self.shared.inbox.is_closing() {
                break;
            }
            self.drop_what_is_over(Instant::now());
            self.resize();
            self.let_in();
            let aside = self.next_aside();
            if !aside.is_empty() {
                self.readers.wake();
                self.prefill_aside(&aside);
                continue;
            }
            self.aside.goes_on = false;
            let rows = self.plan();
            if rows.iter().all(|&n| n == 0) {
                self.readers.wake();
                if self.store_oldest() {
                    continue;
                }
                let deadline = [self.aside.rest(), self.next_deadline()].into_iter().flatten().min();
                self.shared.inbox.sleep(deadline);
            } else {
                self.aside.age();
                self.step(&rows);
            }
        }
        self.close();
    }

    /// Whoever has room comes in. Copies of memory may be made for that, for
    /// which no end waits.
    pub(super) fn let_in(&mut self) {
        self.readers.wake_if_urgent();
        self.admit();
        self.serve_followers();
    }

    pub(super) fn plan(&self) -> Vec<usize> {
        let burst = if self.computes_aside() { self.burst() } else { Vec::new() };
        let candidates: Vec<Candidate> = self
            .active
            .iter()
            .enumerate()
            .map(|(index, sequence)| Candidate {
                n_pending: sequence.n_pending().min(self.rows_to_fork(sequence)),
                is_new: sequence.n_past() == 0,
                paused: sequence.follows.is_some() || sequence.ticket.is_full() || self.goes_aside(index, &burst),
            })
            .collect();
        let running = candidates.iter().filter(|candidate| !candidate.paused);
        let (decodes, prompts): (Vec<usize>, Vec<usize>) = running.map(|it| it.n_pending).partition(|&n| n == 1);
        let room = self.cost.room(decodes.len(), &prompts, self.limits.batch_size, self.computes_aside());
        scheduler::plan(&candidates, room, self.turn)
    }

    /// Evaluates the planned rows and samples where a sequence has come to its
    /// last token.
    pub(super) fn step(&mut self, rows: &[usize]) {
        self.n_steps += 1;
        self.store_overdue();
        self.batch.clear();
        self.guess(rows);
        let mut outputs = vec![None; rows.len()];
        let mut n_prefill = 0;
        {
            let mut in_flight = self.in_flight.borrow_mut();
            in_flight.clear();
            for ((sequence, &n), output) in self.active.iter().zip(rows).zip(&mut outputs) {
                if n == 0 {
                    continue;
                }
                in_flight.push(sequence.ticket.share(), n + self.draft.len());
                if sequence.is_in_prefill() {
                    n_prefill += n;
                } else {
                    self.turn = self.turn.wrapping_add(1);
                }
                for (token, position, wants_logits) in sequence.rows(n) {
                    let row = self.batch.push(token, position, sequence.seq_id, wants_logits);
                    if wants_logits {
                        *output = Some(row);
                    }
                }
                for (offset, &token) in self.draft.iter().enumerate() {
                    self.batch.push(token, sequence.tokens().len() + offset, sequence.seq_id, true);
                }
            }
        }
        self.readers.step_begins(self.batch.len(), Instant::now());
        self.pace.start();
        let started = Instant::now();
        let result = self.context.decode(&mut self.batch);
        // Without this the tickets of ended requests would live until the
        // next step.
        self.in_flight.borrow_mut().clear();
        match result {
            Ok(()) => {
                let elapsed = started.elapsed();
                self.cost.observe(n_prefill, self.batch.len(), elapsed);
                self.readers.stepped(self.batch.len(), elapsed);
                if rows.iter().sum::<usize>() == 1 {
                    self.curve.observe(self.batch.len(), elapsed);
                }
                self.adapt_threads(Some(self.batch.len()), elapsed);
                self.shared.metrics.steps.fetch_add(1, Relaxed);
                self.shared.metrics.step_time.observe(elapsed);
                self.take_results(rows, &outputs);
                self.pace.rest();
            }
            Err(DecodeError::NoCells) => self.make_room(),
            Err(DecodeError::Aborted) => self.resync(rows),
            Err(DecodeError::Failed(error)) => self.fail_step(rows, &error),
        }
    }

    /// The threads have computed for `elapsed`, which says how many the next
    /// step uses; `n_rows` in a whole step, `None` in a piece of one.
    pub(super) fn adapt_threads(&mut self, n_rows: Option<usize>, elapsed: Duration) {
        if let Some(threads) = self.pace.adapt(&mut self.context, n_rows, elapsed) {
            self.shared.metrics.threads.store(threads, Relaxed);
        }
    }

    /// Brings the metrics of what is active up to date.
    pub(super) fn note_load(&self) {
        let n_active = self.active.len() + self.preempted.len();
        self.shared.inbox.set_active(n_active);
        self.shared.metrics.active.store(n_active, Relaxed);
        let cached = self.active.iter().map(Sequence::n_cells).sum();
        self.shared.metrics.cache_tokens.store(cached, Relaxed);
    }

    fn close(mut self) {
        let closed = MullamaError::model_closed;
        self.shared.inbox.drain(&mut self.waiting);
        for request in self.waiting.drain(..) {
            self.shared.inbox.left_queue();
            self.shared.metrics.failed.fetch_add(1, Relaxed);
            self.readers.tell(request.fail(closed()));
        }
        for sequence in self.active.drain(..).chain(self.preempted.drain(..)) {
            self.shared.metrics.failed.fetch_add(1, Relaxed);
            self.readers.tell(sequence.fail(closed()));
        }
        self.shared.metrics.active.store(0, Relaxed);
        self.shared.metrics.cache_tokens.store(0, Relaxed);
        self.readers.wake();
    }
}

/// What can be kept of the memory of a context's sequences.
pub(super) fn shape(context: &Context) -> Shape {
    if context.has_parts() {
        Shape::Parts
    } else if context.trims_states() {
        Shape::Whole
    } else {
        Shape::Exact
    }
}
