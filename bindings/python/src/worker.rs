//! Custom workers of a `TaskManager` whose work Python does: an asyncio task,
//! or a thread. To the core such a worker is a future that waits for the end
//! of that work; when the core drops the future, Python is told to stop.

use crate::{operation::Operation, owned::Owned};
use mullama::MullamaError;
use pyo3::prelude::*;
use std::future::Future;
use tokio::sync::watch;

/// Python's end of a worker. Losing it ends the worker.
#[pyclass(frozen, module = "mullama._mullama")]
pub(crate) struct Worker(Owned<Inner>);

struct Inner {
    /// Where the end of the work is told.
    end: watch::Sender<Option<End>>,
    /// True once the work should stop.
    stop: watch::Receiver<bool>,
}

/// How the work ended.
#[derive(Clone)]
pub(crate) enum End {
    Completed,
    Failed(String),
}

/// The work as others see it.
#[derive(Clone)]
pub(crate) struct Work {
    name: String,
    end: watch::Receiver<Option<End>>,
}

/// Tells Python to stop when it is dropped.
struct Stop(watch::Sender<bool>);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.send_replace(true);
    }
}

/// A worker: Python's end, the work, and the future that stands for it in the
/// core.
pub(crate) fn worker(name: String) -> (Worker, Work, impl Future<Output = Result<(), String>> + Send + 'static) {
    let (end, ended) = watch::channel(None);
    let (stop, stopped) = watch::channel(false);
    let work = Work { name, end: ended };
    let stop = Stop(stop);
    let future = {
        let mut work = work.clone();
        async move {
            let _stop = stop;
            match work.end().await {
                End::Completed => Ok(()),
                End::Failed(message) => Err(message),
            }
        }
    };
    (Worker(Owned::new(Inner { end, stop: stopped })), work, future)
}

impl Work {
    pub(crate) fn is_of(&self, worker: &Worker) -> bool {
        worker.0.peek().is_some_and(|worker| worker.end.subscribe().same_channel(&self.end))
    }

    /// Waits for the end.
    pub(crate) async fn end(&mut self) -> End {
        match self.end.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(end)) => end.clone(),
            _ => End::Failed("its event loop was closed".to_owned()),
        }
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.end.borrow().is_some() || self.end.has_changed().is_err()
    }

    /// The error for work that fails while it is being stopped.
    pub(crate) async fn failure(&mut self) -> Option<MullamaError> {
        match self.end().await {
            End::Completed => None,
            End::Failed(message) => {
                Some(MullamaError::OperationFailed(format!("worker '{}' failed: {message}", self.name)))
            }
        }
    }
}

#[pymethods]
impl Worker {
    /// Ends when the work should stop, and also when it has ended.
    fn stopping(&self, py: Python<'_>) -> PyResult<Operation> {
        let mut stop = self.0.get(py)?.stop.clone();
        Ok(Operation::uncounted(move |_| async move {
            // An error says that nobody is left who could tell.
            let _ = stop.wait_for(|stop| *stop).await;
            Ok(())
        }))
    }

    /// The work has returned, or was cancelled because it should stop.
    fn complete(&self, py: Python<'_>) -> PyResult<()> {
        self.end(py, End::Completed)
    }

    /// The work has failed.
    fn fail(&self, py: Python<'_>, message: String) -> PyResult<()> {
        self.end(py, End::Failed(message))
    }
}

impl Worker {
    fn end(&self, py: Python<'_>, end: End) -> PyResult<()> {
        self.0.get(py)?.end.send_replace(Some(end));
        Ok(())
    }
}
