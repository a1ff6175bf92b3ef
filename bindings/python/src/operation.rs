//! [`Operation`]: one call into the core, not begun yet. Python either starts
//! it for an event loop or waits for it; `mullama` and `mullama.sync` share
//! everything else.
//!
//! The future is made on the thread that starts the operation: what must keep
//! the order of the calls is done while it is made (`begun.rs`).

use crate::{
    begun,
    convert::ToPython,
    errors, gate,
    mailbox::Mailbox,
    owned::Owned,
    runtime,
    sink::{Message, Outcome, Reply, Sink},
};
use mullama::MullamaError;
use pyo3::prelude::*;
use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, mpsc},
    time::Duration,
};
use tokio::{sync::OwnedMutexGuard, task::AbortHandle};

/// How often a waiting thread looks for Ctrl-C.
const SIGNAL_INTERVAL: Duration = Duration::from_millis(50);

/// Makes the future that gives the reply, which is sent when it is dropped, and
/// what is to be dropped after that.
type Work = Box<dyn FnOnce(Sink, Reply) -> Pin<Box<dyn Future<Output = (Reply, Turn)> + Send>> + Send>;

/// The right to be the next to reply.
type Turn = Option<OwnedMutexGuard<()>>;

/// Dropping it cancels what it started.
#[pyclass(frozen, module = "mullama._mullama")]
pub(crate) struct Operation(Owned<Inner>);

struct Inner {
    /// Empty once started.
    work: Mutex<Option<Work>>,
    task: OnceLock<AbortHandle>,
    /// Whether it is one of the tasks that the runtime's metrics count.
    counted: bool,
    /// Dropped as soon as nobody waits for the result any more.
    kept: Mutex<Option<Box<dyn Send>>>,
}

impl Operation {
    /// Of a future whose result Python gets.
    pub(crate) fn new<T, F>(future: F) -> Self
    where
        T: ToPython + Send + 'static,
        F: Future<Output = Result<T, MullamaError>> + Send + 'static,
    {
        Self::begun_by(move || future)
    }

    /// Of a future that is made when the operation is started.
    pub(crate) fn begun_by<T, F>(begin: impl FnOnce() -> F + Send + 'static) -> Self
    where
        T: ToPython + Send + 'static,
        F: Future<Output = Result<T, MullamaError>> + Send + 'static,
    {
        Self::with_sink(move |_| begin())
    }

    /// Of a future that also sends progress.
    pub(crate) fn with_sink<T, F>(begin: impl FnOnce(Sink) -> F + Send + 'static) -> Self
    where
        T: ToPython + Send + 'static,
        F: Future<Output = Result<T, MullamaError>> + Send + 'static,
    {
        Self::made(work(begin), true)
    }

    /// Of a future that only looks on or waits for other work: who counts the
    /// runtime's tasks does not want to find it among them.
    pub(crate) fn uncounted<T, F>(begin: impl FnOnce(Sink) -> F + Send + 'static) -> Self
    where
        T: ToPython + Send + 'static,
        F: Future<Output = Result<T, MullamaError>> + Send + 'static,
    {
        Self::made(work(begin), false)
    }

    /// Of a future whose result leaves after those of the operations on the
    /// same queue that were started before. It must not be ready before
    /// theirs. Errors leave at once. `kept` is dropped when nobody waits for
    /// the result any more.
    pub(crate) fn in_order<T, F>(
        queue: Arc<tokio::sync::Mutex<()>>,
        kept: impl Send + 'static,
        begin: impl FnOnce() -> F + Send + 'static,
    ) -> Self
    where
        T: ToPython + Send + 'static,
        F: Future<Output = Result<T, MullamaError>> + Send + 'static,
    {
        let work: Work = Box::new(move |_, reply| {
            let place = begun::begin(queue.lock_owned());
            let future = outcome(begin());
            Box::pin(async move {
                let outcome = future.await;
                let turn = if outcome.is_ok() { Some(place.finish().await) } else { None };
                (reply.with(outcome), turn)
            })
        });
        let operation = Self::made(work, true);
        if let Some(inner) = operation.0.peek() {
            *lock(&inner.kept) = Some(Box::new(kept));
        }
        operation
    }

    fn made(work: Work, counted: bool) -> Self {
        let (work, kept) = (Mutex::new(Some(work)), Mutex::new(None));
        Self(Owned::new(Inner { work, task: OnceLock::new(), counted, kept }))
    }

    fn begin(&self, py: Python<'_>, sink: Sink) -> PyResult<()> {
        let inner = self.0.get(py)?;
        let work = lock(&inner.work).take();
        let work = work.ok_or_else(|| errors::internal(py, "the operation was started already"))?;
        let runtime = runtime().map_err(|error| errors::to_py(py, error))?;
        let reply = Reply::new(sink.clone());
        let task = {
            // A future that is polled while it is made may need a timer.
            let _inside = runtime.tokio().enter();
            work(sink, reply)
        };
        let task = if inner.counted { runtime.spawn(task) } else { runtime.tokio().spawn(task) };
        let _ = inner.task.set(task.abort_handle());
        Ok(())
    }
}

fn work<T, F>(begin: impl FnOnce(Sink) -> F + Send + 'static) -> Work
where
    T: ToPython + Send + 'static,
    F: Future<Output = Result<T, MullamaError>> + Send + 'static,
{
    Box::new(move |sink, reply| {
        let future = outcome(begin(sink));
        Box::pin(async move { (reply.with(future.await), None) })
    })
}

async fn outcome<T, F>(future: F) -> Outcome
where
    T: ToPython + Send + 'static,
    F: Future<Output = Result<T, MullamaError>> + Send + 'static,
{
    let value = future.await?;
    Ok(Box::new(move |py: Python<'_>| value.to_python(py)))
}

/// Nothing that can panic runs under these locks, so a poisoned one is whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[pymethods]
impl Operation {
    /// Starts it and returns the key under which `mailbox` gets its messages.
    fn start(&self, py: Python<'_>, mailbox: &Mailbox) -> PyResult<u64> {
        let (sink, key) = mailbox.sink(py)?;
        self.begin(py, sink)?;
        Ok(key)
    }

    /// Starts it and waits, with the GIL released. A signal handler that
    /// raises (Ctrl-C does) cancels it within `SIGNAL_INTERVAL`.
    #[pyo3(signature = (on_progress=None))]
    fn wait(&self, py: Python<'_>, on_progress: Option<Py<PyAny>>) -> PyResult<Py<PyAny>> {
        let (sender, mut receiver) = mpsc::channel();
        self.begin(py, Sink::Thread(sender))?;
        let result = loop {
            let messages = &mut receiver;
            let (message, ticket) = py.detach(move || {
                let message = messages.recv_timeout(SIGNAL_INTERVAL);
                (message, gate::EXIT.pass())
            });
            drop(ticket);
            match message {
                Ok(Message::Done(outcome)) => return errors::finish(py, outcome),
                Ok(Message::Progress(share)) => {
                    if let Some(Err(error)) = on_progress.as_ref().map(|callback| callback.call1(py, (share,))) {
                        break Err(error);
                    }
                }
                // `Disconnected` can't be: `Reply` always sends. News are for
                // those who wait for a stream.
                Err(_) | Ok(Message::News) => {}
            }
            if let Err(error) = py.check_signals() {
                break Err(error);
            }
        };
        self.cancel();
        result
    }

    /// Drops the future, which stops the native work. Nothing happens when it
    /// is done or was not started.
    fn cancel(&self) {
        let Some(inner) = self.0.peek() else { return };
        if let Some(task) = inner.task.get() {
            task.abort();
        }
        drop(lock(&inner.kept).take());
    }
}

impl Drop for Operation {
    fn drop(&mut self) {
        self.cancel();
    }
}
