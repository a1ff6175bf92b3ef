//! [`Operation`]: one call into the core, not begun yet. Python either starts
//! it for an event loop or waits for it; `mullama` and `mullama.sync` share
//! everything else.
//!
//! The future is made on the thread that starts the operation: what must keep
//! the order of the calls is done while it is made (`begun.rs`).

use crate::{
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
    sync::{Mutex, OnceLock, PoisonError, mpsc},
    time::Duration,
};
use tokio::task::AbortHandle;

/// How often a waiting thread looks for Ctrl-C.
const SIGNAL_INTERVAL: Duration = Duration::from_millis(50);

type Work = Box<dyn FnOnce(Sink) -> Pin<Box<dyn Future<Output = Outcome> + Send>> + Send>;

/// Dropping it cancels what it started.
#[pyclass(frozen, module = "mullama._mullama")]
pub(crate) struct Operation(Owned<Inner>);

struct Inner {
    /// Empty once started.
    work: Mutex<Option<Work>>,
    task: OnceLock<AbortHandle>,
    /// Whether it is one of the tasks that the runtime's metrics count.
    counted: bool,
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

    fn made(work: Work, counted: bool) -> Self {
        Self(Owned::new(Inner { work: Mutex::new(Some(work)), task: OnceLock::new(), counted }))
    }

    fn begin(&self, py: Python<'_>, sink: Sink) -> PyResult<()> {
        let inner = self.0.get(py)?;
        let work = inner.work.lock().unwrap_or_else(PoisonError::into_inner).take();
        let work = work.ok_or_else(|| errors::internal(py, "the operation was started already"))?;
        let runtime = runtime().map_err(|error| errors::to_py(py, error))?;
        let reply = Reply::new(sink.clone());
        let future = {
            // A future that is polled while it is made may need a timer.
            let _inside = runtime.tokio().enter();
            work(sink)
        };
        let task = async move { reply.send(future.await) };
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
    Box::new(move |sink| {
        let future = begin(sink);
        Box::pin(async move {
            let value = future.await?;
            Ok(Box::new(move |py: Python<'_>| value.to_python(py)) as _)
        })
    })
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
                // `Disconnected` can't be: `Reply` always sends.
                Err(_) => {}
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
        if let Some(task) = self.0.peek().and_then(|inner| inner.task.get()) {
            task.abort();
        }
    }
}

impl Drop for Operation {
    fn drop(&mut self) {
        self.cancel();
    }
}
