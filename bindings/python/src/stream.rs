//! The native side of both `TokenStream` classes.
//!
//! Tokens that have arrived wait in `State::ready` until Python takes them,
//! so a cancelled wait loses none, wherever it was cancelled.

use crate::{
    convert::{self, ToPython},
    errors,
    operation::Operation,
    owned::Owned,
    runtime,
};
use mullama::{FinishReason, MullamaError, TokenData};
use pyo3::prelude::*;
use std::{
    future::Future,
    mem,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};
use tokio::task::{AbortHandle, JoinHandle};

/// A stream of tokens. Dropping it stops the native work.
#[pyclass(frozen, module = "mullama._mullama")]
pub(crate) struct TokenStream(Owned<Arc<State>>);

struct State {
    /// Held by the one pull that waits for tokens.
    source: tokio::sync::Mutex<Source>,
    /// The core's stream, once there is one.
    stream: OnceLock<mullama::TokenStream>,
    shared: Mutex<Shared>,
}

enum Source {
    /// No pull came yet.
    Unopened(Submission),
    /// Being submitted, by a task of its own: a cancelled pull must not
    /// cancel it.
    Opening(JoinHandle<Result<(), MullamaError>>),
    /// Submitted, or failed.
    Opened,
}

/// The call that gives the core's stream.
type Submission = Pin<Box<dyn Future<Output = Result<mullama::TokenStream, MullamaError>> + Send>>;

/// Never locked across an `await`.
#[derive(Default)]
struct Shared {
    /// Tokens that Python has not taken.
    ready: Vec<TokenData>,
    /// Comes after `ready`; given once.
    error: Option<MullamaError>,
    /// Nothing will be added to `ready`.
    ended: bool,
    /// There was an error.
    failed: bool,
    /// `cancel` was called.
    cancelled: bool,
    /// The task of `Source::Opening`.
    opening: Option<AbortHandle>,
}

impl TokenStream {
    /// A stream that is submitted by the first `pull`.
    pub(crate) fn new(
        submission: impl Future<Output = Result<mullama::TokenStream, MullamaError>> + Send + 'static,
    ) -> Self {
        Self(Owned::new(Arc::new(State {
            source: tokio::sync::Mutex::new(Source::Unopened(Box::pin(submission))),
            stream: OnceLock::new(),
            shared: Mutex::default(),
        })))
    }

    /// A stream that is being submitted from now on.
    pub(crate) fn opened(
        py: Python<'_>,
        submission: impl Future<Output = Result<mullama::TokenStream, MullamaError>> + Send + 'static,
    ) -> PyResult<Self> {
        let stream = Self::new(submission);
        let state = stream.0.get(py)?;
        // Nobody else has it yet.
        if let Ok(mut source) = state.source.try_lock() {
            state.open(&mut source).map_err(|error| errors::to_py(py, error))?;
        }
        Ok(stream)
    }
}

#[pymethods]
impl TokenStream {
    /// All tokens that are there: a list, empty when a `pull` has to wait for
    /// some; `None` after the last one. Raises what ended the stream, once.
    fn take(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        let state = self.0.get(py)?;
        let mut shared = state.shared();
        let tokens = mem::take(&mut shared.ready);
        if tokens.is_empty() {
            if let Some(error) = shared.error.take() {
                return Err(errors::to_py(py, error));
            }
            if shared.ended {
                return Ok(None);
            }
        }
        drop(shared);
        tokens.to_python(py).map(Some)
    }

    /// Waits until `take` has something to give.
    fn pull(&self, py: Python<'_>) -> PyResult<Operation> {
        let state = self.0.get(py)?.clone();
        Ok(Operation::new(async move {
            state.pull().await;
            Ok(())
        }))
    }

    /// Ends the stream. Tokens that have arrived can still be taken.
    fn cancel(&self) {
        if let Some(state) = self.0.peek() {
            state.cancel();
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

impl Drop for TokenStream {
    fn drop(&mut self) {
        // A pull under way keeps the state alive, so dropping that is not enough.
        self.cancel();
    }
}

impl State {
    /// Moves the next tokens into `ready`, or the error into `error`.
    async fn pull(self: &Arc<Self>) {
        let mut source = self.source.lock().await;
        {
            let shared = self.shared();
            if shared.ended || !shared.ready.is_empty() {
                return;
            }
        }
        let batch = match self.opened(&mut source).await {
            Ok(stream) => stream.next_batch().await,
            Err(error) => Err(error),
        };
        let mut shared = self.shared();
        match batch {
            Ok(tokens) if tokens.is_empty() => shared.ended = true,
            Ok(tokens) => shared.ready.extend(tokens),
            Err(error) => {
                shared.ended = true;
                // Cancelled before it was submitted: no error, as after.
                if !(shared.cancelled && matches!(error, MullamaError::Cancelled)) {
                    shared.failed = true;
                    shared.error = Some(error);
                }
            }
        }
    }

    /// The core's stream, submitting the request first if that was not done.
    async fn opened(self: &Arc<Self>, source: &mut Source) -> Result<&mullama::TokenStream, MullamaError> {
        if let Source::Unopened(_) = source {
            self.open(source)?;
        }
        if let Source::Opening(task) = source {
            let opened = task.await;
            *source = Source::Opened;
            match opened {
                Ok(result) => result?,
                Err(error) if error.is_cancelled() => return Err(MullamaError::Cancelled),
                Err(error) => return Err(MullamaError::Internal(error.to_string())),
            }
        }
        self.stream.get().ok_or_else(|| MullamaError::Internal("the stream failed to open before".to_owned()))
    }

    fn open(self: &Arc<Self>, source: &mut Source) -> Result<(), MullamaError> {
        let runtime = runtime()?;
        let mut shared = self.shared();
        if shared.cancelled {
            return Err(MullamaError::Cancelled);
        }
        if let Source::Unopened(submission) = mem::replace(source, Source::Opened) {
            let state = self.clone();
            let task = runtime.spawn(async move {
                let stream = submission.await?;
                let stream = state.stream.get_or_init(|| stream);
                // `cancel` may have come too late for this task and too early
                // for the stream.
                if state.shared().cancelled {
                    stream.cancel();
                }
                Ok(())
            });
            shared.opening = Some(task.abort_handle());
            *source = Source::Opening(task);
        }
        Ok(())
    }

    fn cancel(&self) {
        let mut shared = self.shared();
        shared.cancelled = true;
        if let Some(task) = shared.opening.take() {
            task.abort();
        }
        drop(shared);
        if let Some(stream) = self.stream.get() {
            stream.cancel();
        }
    }

    /// The core's reason; until there is one, what a cancelled stream's will
    /// be.
    fn finish_reason(&self) -> Option<FinishReason> {
        let known = self.stream.get().and_then(mullama::TokenStream::finish_reason);
        let shared = self.shared();
        known.or((shared.cancelled && !shared.failed).then_some(FinishReason::Cancelled))
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
