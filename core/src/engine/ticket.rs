//! What a request's caller and the engine share: the way tokens go out, and
//! the way a cancellation comes in. The engine's thread writes tokens; one
//! reader takes them, from any thread.

use super::totals;
use crate::{FinishReason, Generation, MullamaError, Timings, TokenData, Usage, process};
use std::{
    collections::VecDeque,
    ops::Deref,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Instant,
};

/// The end of a request as its reader sees it.
pub(crate) type End = Result<Generation, MullamaError>;

/// Wakes the thread that serves a ticket.
pub(super) trait Bell: Send + Sync {
    fn notify(&self);
}

/// One request's shared state.
pub(crate) struct Ticket {
    /// Where the serving thread sleeps, to tell it of a cancellation or of
    /// room.
    bell: Arc<dyn Bell>,
    /// When the request must be done.
    pub(super) deadline: Option<Instant>,
    /// How long that is from submission, for the message.
    pub(super) timeout_ms: u64,
    /// Tokens that may wait for the reader; `None` when nobody reads single
    /// tokens.
    buffer_size: Option<usize>,
    cancelled: AtomicBool,
    /// Tokens that wait for the reader. Kept beside the queue so that the
    /// engine can look without the lock.
    n_waiting: AtomicUsize,
    /// Set by the engine when it skips this sequence because the reader is
    /// slow; the reader that sees it wakes the engine.
    paused: AtomicBool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    tokens: VecDeque<TokenData>,
    end: Ending,
    usage: Usage,
    timings: Timings,
    seed: u64,
    /// Kept apart from `end`, which the reader takes.
    finish_reason: Option<FinishReason>,
    waker: Option<Waker>,
}

#[derive(Default)]
enum Ending {
    #[default]
    Running,
    Ended(End),
    /// The reader has the end.
    Taken,
}

/// What the reader gets next.
pub(crate) enum Batch {
    /// At least one token.
    Tokens(Vec<TokenData>),
    /// The request failed; given once.
    Failed(MullamaError),
    /// Nothing more comes.
    Done,
}

/// The reader's end of a ticket. Dropping it cancels the request.
pub(crate) struct Reader(Arc<Ticket>);

impl Deref for Reader {
    type Target = Ticket;

    fn deref(&self) -> &Ticket {
        &self.0
    }
}

#[cfg(feature = "tokio-runtime")]
impl Reader {
    /// Cancels the request when it is called; does not keep the ticket.
    pub(crate) fn canceller(&self) -> impl FnOnce() + Send + 'static {
        let ticket = Arc::downgrade(&self.0);
        move || {
            if let Some(ticket) = ticket.upgrade() {
                ticket.cancel();
            }
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

impl Ticket {
    /// The reader's end.
    pub(super) fn reader(self: &Arc<Self>) -> Reader {
        Reader(self.clone())
    }

    pub(super) fn new(
        bell: Arc<dyn Bell>,
        deadline: Option<Instant>,
        timeout_ms: u64,
        buffer_size: Option<usize>,
        seed: u64,
    ) -> Arc<Self> {
        Arc::new(Self {
            bell,
            deadline,
            timeout_ms,
            buffer_size,
            cancelled: AtomicBool::new(false),
            n_waiting: AtomicUsize::new(0),
            paused: AtomicBool::new(false),
            state: Mutex::new(State { seed, ..State::default() }),
        })
    }

    // The reader's side.

    /// Asks the engine to stop. Seen within one step; inside a step when
    /// nothing else is in flight.
    pub(crate) fn cancel(&self) {
        if process::is_forked_child() {
            return;
        }
        if !self.cancelled.swap(true, Ordering::AcqRel) && matches!(self.lock().end, Ending::Running) {
            self.bell.notify();
        }
    }

    /// Waits for tokens and gives all that are ready.
    pub(crate) fn poll_batch(&self, context: &mut Context<'_>) -> Poll<Batch> {
        if let Err(error) = process::check() {
            return Poll::Ready(Batch::Failed(error));
        }
        let mut state = self.lock();
        if !state.tokens.is_empty() {
            // The queue keeps its room.
            let tokens: Vec<_> = state.tokens.drain(..).collect();
            drop(state);
            self.took(tokens.len());
            return Poll::Ready(Batch::Tokens(tokens));
        }
        Self::poll_end(state, context)
    }

    /// Waits for one token.
    #[cfg(feature = "async")]
    pub(crate) fn poll_token(&self, context: &mut Context<'_>) -> Poll<Option<Result<TokenData, MullamaError>>> {
        if let Err(error) = process::check() {
            return Poll::Ready(Some(Err(error)));
        }
        let mut state = self.lock();
        if let Some(token) = state.tokens.pop_front() {
            drop(state);
            self.took(1);
            return Poll::Ready(Some(Ok(token)));
        }
        Self::poll_end(state, context).map(|batch| match batch {
            Batch::Failed(error) => Some(Err(error)),
            _ => None,
        })
    }

    /// Waits for the end, past all tokens. Who waits wants the whole result or
    /// none, so what was cancelled is an error.
    pub(crate) fn poll_result(&self, context: &mut Context<'_>) -> Poll<End> {
        process::check()?;
        let mut state = self.lock();
        match std::mem::replace(&mut state.end, Ending::Taken) {
            Ending::Ended(Ok(generation)) if generation.finish_reason == FinishReason::Cancelled => {
                Poll::Ready(Err(MullamaError::Cancelled))
            }
            Ending::Ended(end) => Poll::Ready(end),
            Ending::Taken => Poll::Ready(Err(MullamaError::Internal("a result was asked for twice".to_owned()))),
            Ending::Running => {
                state.end = Ending::Running;
                wait(&mut state, context);
                Poll::Pending
            }
        }
    }

    pub(crate) fn usage(&self) -> Usage {
        self.lock().usage
    }

    pub(crate) fn timings(&self) -> Timings {
        self.lock().timings
    }

    pub(crate) fn seed(&self) -> u64 {
        self.lock().seed
    }

    pub(crate) fn finish_reason(&self) -> Option<FinishReason> {
        self.lock().finish_reason.clone()
    }

    fn poll_end(mut state: MutexGuard<'_, State>, context: &mut Context<'_>) -> Poll<Batch> {
        match &state.end {
            Ending::Running => {
                wait(&mut state, context);
                Poll::Pending
            }
            Ending::Ended(Ok(_)) | Ending::Taken => Poll::Ready(Batch::Done),
            // An error is given once; then the stream is at its end.
            Ending::Ended(Err(_)) => match std::mem::replace(&mut state.end, Ending::Taken) {
                Ending::Ended(Err(error)) => Poll::Ready(Batch::Failed(error)),
                _ => Poll::Ready(Batch::Done),
            },
        }
    }

    fn took(&self, n: usize) {
        self.n_waiting.fetch_sub(n, Ordering::SeqCst);
        if self.paused.swap(false, Ordering::SeqCst) {
            self.bell.notify();
        }
    }

    // The engine's side.

    /// Whether the caller gave up or the deadline passed.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.is_cancelled() || self.deadline.is_some_and(|deadline| deadline <= now)
    }

    pub(super) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Acquire)
    }

    /// Whether tokens are wanted one by one.
    pub(super) fn wants_tokens(&self) -> bool {
        self.buffer_size.is_some()
    }

    /// Whether the reader is too far behind for another token.
    pub(super) fn is_full(&self) -> bool {
        let Some(buffer_size) = self.buffer_size else { return false };
        let full = || self.n_waiting.load(Ordering::SeqCst) >= buffer_size;
        if !full() {
            return false;
        }
        // Set first, then look again: a reader that takes tokens in between
        // either is seen here or sees the mark and wakes the engine. That needs
        // one order of all four accesses, hence `SeqCst`.
        self.paused.store(true, Ordering::SeqCst);
        if full() {
            return true;
        }
        self.paused.store(false, Ordering::SeqCst);
        false
    }

    /// Whether so many tokens wait that the reader should take some soon.
    pub(super) fn is_half_full(&self) -> bool {
        let is_half = |buffer_size| 2 * self.n_waiting.load(Ordering::Relaxed) >= buffer_size;
        self.buffer_size.is_some_and(is_half)
    }

    /// Hands over a token; the waker is the engine's to wake, after the step.
    pub(super) fn push(&self, token: TokenData, usage: Usage, timings: Timings) -> Option<Waker> {
        let mut state = self.lock();
        if token.finish_reason.is_some() {
            state.finish_reason.clone_from(&token.finish_reason);
        }
        state.tokens.push_back(token);
        state.usage = usage;
        state.timings = timings;
        self.n_waiting.fetch_add(1, Ordering::SeqCst);
        state.waker.take()
    }

    /// Ends the request; the first end counts.
    pub(super) fn finish(&self, end: End) -> Option<Waker> {
        let mut state = self.lock();
        if !matches!(state.end, Ending::Running) {
            return None;
        }
        if let Ok(generation) = &end {
            state.usage = generation.usage;
            state.timings = generation.timings;
            state.finish_reason = Some(generation.finish_reason.clone());
            if generation.finish_reason != FinishReason::Cancelled {
                totals::add(generation.timings.total());
            }
        }
        state.end = Ending::Ended(end);
        state.waker.take()
    }

    /// Nothing that can panic runs under the lock, so a poisoned one is whole.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn wait(state: &mut State, context: &Context<'_>) {
    match &mut state.waker {
        Some(waker) if waker.will_wake(context.waker()) => {}
        waker => *waker = Some(context.waker().clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct NoBell;

    impl Bell for NoBell {
        fn notify(&self) {}
    }

    fn ticket(buffer_size: Option<usize>) -> Arc<Ticket> {
        Ticket::new(Arc::new(NoBell), None, 0, buffer_size, 1)
    }

    fn token() -> TokenData {
        TokenData {
            text: String::new(),
            token_id: 1,
            index: 0,
            logprob: None,
            top_logprobs: Vec::new(),
            is_final: false,
            finish_reason: None,
        }
    }

    #[test]
    fn a_reader_should_take_tokens_before_it_holds_its_sequence_up() {
        let fill = |buffer_size, n: usize| {
            let ticket = ticket(Some(buffer_size));
            (0..n).for_each(|_| drop(ticket.push(token(), Usage::default(), Timings::default())));
            (ticket.is_half_full(), ticket.is_full())
        };
        assert_eq!(fill(4, 1), (false, false));
        assert_eq!(fill(4, 2), (true, false));
        assert_eq!(fill(4, 4), (true, true));
        assert_eq!(fill(1, 1), (true, true));
        assert!(!ticket(None).is_half_full(), "nobody reads");
    }
}
