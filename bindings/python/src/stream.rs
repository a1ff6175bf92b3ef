//! The native side of both `TokenStream` classes.
//!
//! Tokens wait in the core until Python takes all that are ready, on its own
//! thread. Who finds none is told when there are some: an event loop through
//! its mailbox, a thread that waits directly. No task runs for a token, and a
//! wait that is cancelled loses none, wherever it was cancelled.

use crate::{
    convert::{self, ToPython},
    errors, gate,
    mailbox::{Letters, Mailbox},
    owned::Owned,
    runtime,
};
use mullama::{FinishReason, MullamaError, TokenData};
use pyo3::prelude::*;
use std::{
    future::{Future, pending},
    mem,
    pin::{Pin, pin},
    sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError},
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};
use tokio::task::AbortHandle;

/// How often a waiting thread looks for Ctrl-C.
const SIGNAL_INTERVAL: Duration = Duration::from_millis(50);

/// A stream of tokens. Dropping it stops the native work.
#[pyclass(frozen, module = "mullama._mullama")]
pub(crate) struct TokenStream(Owned<Arc<Source>>);

/// What Python and those who tell it share.
struct Source {
    /// The core's stream, once there is one.
    stream: OnceLock<mullama::TokenStream>,
    state: Mutex<State>,
}

/// The call that gives the core's stream.
type Submission = Pin<Box<dyn Future<Output = Result<mullama::TokenStream, MullamaError>> + Send>>;

struct State {
    /// Not begun yet.
    submission: Option<Submission>,
    /// The task of the submission.
    opening: Option<AbortHandle>,
    /// Counts the stream as a task of the runtime, until it is dropped.
    counted: Option<Box<dyn Send>>,
    /// Tokens that came while somebody was about to wait for them.
    ready: Vec<TokenData>,
    /// Comes after `ready`; given once.
    error: Option<MullamaError>,
    /// Nothing will be added to `ready`.
    ended: bool,
    /// There was an error.
    failed: bool,
    /// `cancel` was called.
    cancelled: bool,
    /// Who waits; told once.
    listeners: Vec<Listener>,
}

enum Listener {
    /// A wait in an event loop, by the key of its message.
    Loop(Arc<Letters>, u64),
    Thread(Arc<Signal>),
}

/// Tells a thread that there is something to take.
#[derive(Default)]
struct Signal {
    given: Mutex<bool>,
    changed: Condvar,
}

impl TokenStream {
    /// A stream that is submitted when it is first waited for.
    pub(crate) fn new(
        submission: impl Future<Output = Result<mullama::TokenStream, MullamaError>> + Send + 'static,
    ) -> Self {
        let state = State {
            submission: Some(Box::pin(submission)),
            opening: None,
            counted: None,
            ready: Vec::new(),
            error: None,
            ended: false,
            failed: false,
            cancelled: false,
            listeners: Vec::new(),
        };
        Self(Owned::new(Arc::new(Source { stream: OnceLock::new(), state: Mutex::new(state) })))
    }

    /// A stream that is being submitted from now on.
    pub(crate) fn opened(
        py: Python<'_>,
        submission: impl Future<Output = Result<mullama::TokenStream, MullamaError>> + Send + 'static,
    ) -> PyResult<Self> {
        let stream = Self::new(submission);
        let source = stream.0.get(py)?;
        source.open(&mut source.lock()).map_err(|error| errors::to_py(py, error))?;
        Ok(stream)
    }
}

#[pymethods]
impl TokenStream {
    /// All tokens that are there: a list, empty when there is none yet; `None`
    /// after the last one. Raises what ended the stream, once.
    fn take(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        let source = self.0.get(py)?;
        let mut state = source.lock();
        source.advance(&mut state);
        let tokens = mem::take(&mut state.ready);
        if tokens.is_empty() {
            if let Some(error) = state.error.take() {
                drop(state);
                // A daemon thread must not hear at exit that its model was closed.
                drop(py.detach(|| gate::EXIT.pass()));
                return Err(errors::to_py(py, error));
            }
            if state.ended {
                return Ok(None);
            }
        }
        drop(state);
        tokens.to_python(py).map(Some)
    }

    /// Has the mailbox get one message, when `take` has something to give; gives
    /// its key. `None` when there is something already.
    fn listen(&self, py: Python<'_>, mailbox: &Mailbox) -> PyResult<Option<u64>> {
        let (letters, key) = mailbox.address(py)?;
        let is_waiting = self.register(py, || Listener::Loop(letters, key))?;
        Ok(is_waiting.then_some(key))
    }

    /// Nobody waits for the message with the key any more.
    fn forget(&self, key: u64, mailbox: &Mailbox) {
        if let Some(source) = self.0.peek() {
            let is_of = |listener: &Listener| matches!(listener, Listener::Loop(letters, at) if *at == key && mailbox.is_of(letters));
            source.lock().listeners.retain(|listener| !is_of(listener));
        }
    }

    /// Waits until `take` has something to give, with the GIL released. A signal
    /// handler that raises (Ctrl-C does) ends the wait within
    /// `SIGNAL_INTERVAL`; nothing is lost.
    fn wait(&self, py: Python<'_>) -> PyResult<()> {
        let signal = Arc::new(Signal::default());
        if !self.register(py, || Listener::Thread(signal.clone()))? {
            return Ok(());
        }
        loop {
            let (is_given, ticket) = py.detach(|| (signal.wait(), gate::EXIT.pass()));
            drop(ticket);
            if is_given {
                return Ok(());
            }
            if let Err(error) = py.check_signals() {
                let is_own = |other: &Listener| matches!(other, Listener::Thread(other) if Arc::ptr_eq(other, &signal));
                self.0.get(py)?.lock().listeners.retain(|listener| !is_own(listener));
                return Err(error);
            }
        }
    }

    /// Ends the stream. Tokens that have arrived can still be taken.
    fn cancel(&self) {
        if let Some(source) = self.0.peek() {
            source.cancel();
        }
    }

    fn usage(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let stream = self.0.get(py)?.stream.get();
        stream.map(mullama::TokenStream::usage).unwrap_or_default().to_python(py)
    }

    fn timings(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let stream = self.0.get(py)?.stream.get();
        stream.map(mullama::TokenStream::timings).unwrap_or_default().to_python(py)
    }

    /// `None` until it was submitted.
    fn seed(&self, py: Python<'_>) -> PyResult<Option<u64>> {
        Ok(self.0.get(py)?.stream.get().map(mullama::TokenStream::seed))
    }

    /// The reason and, if that was it, the stop string.
    fn finish_reason(&self, py: Python<'_>) -> PyResult<(Option<&'static str>, Option<String>)> {
        Ok(convert::reason(self.0.get(py)?.finish_reason()))
    }
}

impl TokenStream {
    /// Takes in one who waits, unless there is something to take already.
    fn register(&self, py: Python<'_>, listener: impl FnOnce() -> Listener) -> PyResult<bool> {
        let source = self.0.get(py)?;
        let mut state = source.lock();
        source.open(&mut state).map_err(|error| errors::to_py(py, error))?;
        if source.advance(&mut state) {
            return Ok(false);
        }
        state.listeners.push(listener());
        Ok(true)
    }
}

impl Drop for TokenStream {
    fn drop(&mut self) {
        self.cancel();
    }
}

impl Source {
    /// Takes what the core has ready. Gives whether there is something for
    /// Python; if not, those who wait are told when there is.
    fn advance(self: &Arc<Self>, state: &mut State) -> bool {
        if state.ended || !state.ready.is_empty() {
            return true;
        }
        let Some(stream) = self.stream.get() else { return false };
        let waker = Waker::from(self.clone());
        match pin!(stream.next_batch()).poll(&mut Context::from_waker(&waker)) {
            Poll::Pending => return false,
            Poll::Ready(Ok(tokens)) if tokens.is_empty() => state.end(None),
            Poll::Ready(Ok(tokens)) => state.ready = tokens,
            Poll::Ready(Err(error)) => state.end(Some(error)),
        }
        true
    }

    /// Submits the request, if that was not done.
    fn open(self: &Arc<Self>, state: &mut State) -> Result<(), MullamaError> {
        if state.submission.is_none() {
            return Ok(());
        }
        let runtime = runtime()?;
        let Some(submission) = state.submission.take() else { return Ok(()) };
        state.counted = Some(Box::new(Box::pin(runtime.counted(pending::<()>()))));
        let source = self.clone();
        let task = runtime.tokio().spawn(async move {
            let opened = submission.await;
            let mut state = source.lock();
            state.opening = None;
            match opened {
                Ok(stream) => {
                    // `cancel` came too late for this task and too early for
                    // the stream.
                    if state.cancelled {
                        stream.cancel();
                    }
                    let _ = source.stream.set(stream);
                }
                // Cancelled before it was submitted: no error, as after.
                Err(MullamaError::Cancelled) if state.cancelled => state.end(None),
                Err(error) => state.end(Some(error)),
            }
            drop(state);
            source.wake();
        });
        state.opening = Some(task.abort_handle());
        Ok(())
    }

    fn cancel(self: &Arc<Self>) {
        let mut state = self.lock();
        state.cancelled = true;
        let opening = state.opening.take();
        let submission = state.submission.take();
        if submission.is_some() || opening.is_some() {
            state.end(None);
        }
        let counted = state.counted.take();
        let listeners = if state.ended { mem::take(&mut state.listeners) } else { Vec::new() };
        drop(state);
        // Not under the lock: what they hold may be a lease for which others
        // wait.
        drop((submission, counted));
        if let Some(task) = opening {
            task.abort();
        }
        if let Some(stream) = self.stream.get() {
            stream.cancel();
        }
        listeners.into_iter().for_each(Listener::tell);
    }

    /// The core's reason; until there is one, what a cancelled stream's will
    /// be.
    fn finish_reason(&self) -> Option<FinishReason> {
        let known = self.stream.get().and_then(mullama::TokenStream::finish_reason);
        let state = self.lock();
        known.or((state.cancelled && !state.failed).then_some(FinishReason::Cancelled))
    }

    /// Nothing that can panic runs under the lock, so a poisoned one is whole.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn end(&mut self, error: Option<MullamaError>) {
        self.ended = true;
        self.failed |= error.is_some();
        self.error = error;
        // Who takes the end does not find the stream among the active tasks.
        self.counted = None;
    }
}

impl Wake for Source {
    fn wake(self: Arc<Self>) {
        let listeners = mem::take(&mut self.lock().listeners);
        listeners.into_iter().for_each(Listener::tell);
    }
}

impl Listener {
    fn tell(self) {
        match self {
            Self::Loop(letters, key) => letters.tell(key),
            Self::Thread(signal) => signal.give(),
        }
    }
}

impl Signal {
    fn give(&self) {
        *self.lock() = true;
        self.changed.notify_one();
    }

    /// Waits for `SIGNAL_INTERVAL` at most; gives whether the signal was given.
    fn wait(&self) -> bool {
        let until = self.changed.wait_timeout_while(self.lock(), SIGNAL_INTERVAL, |given| !*given);
        *until.unwrap_or_else(PoisonError::into_inner).0
    }

    fn lock(&self) -> MutexGuard<'_, bool> {
        self.given.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
