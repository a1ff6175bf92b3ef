//! What a worker is: its status, and the future that runs it and tells how it
//! ended.

use crate::runtime::tasks::Shared;
use std::{
    any::Any,
    fmt::Display,
    future::{Future, poll_fn},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    sync::{Arc, Weak},
    task::Poll,
};
use tokio_util::sync::CancellationToken;

tokio::task_local! {
    /// The worker that the current task is, and its manager.
    static SELF: (Weak<Shared>, u64);
}

/// How a worker of a [`TaskManager`](crate::TaskManager) is.
///
/// ```
/// use mullama::WorkerStatus;
/// assert_eq!(WorkerStatus::Failed("disk full".to_owned()).to_string(), "failed: disk full");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WorkerStatus {
    /// It has not ended.
    Running,
    /// It returned, without an error.
    Completed,
    /// It returned an error, whose text this is.
    Failed(String),
    /// It panicked, with this message.
    Panicked(String),
    /// It was stopped: by [`stop_all`](crate::TaskManager::stop_all), the drop
    /// of the manager, or the end of the runtime.
    Stopped,
}

impl Display for WorkerStatus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Running => f.write_str("running"),
            Self::Completed => f.write_str("completed"),
            Self::Failed(message) => write!(f, "failed: {message}"),
            Self::Panicked(message) => write!(f, "panicked: {message}"),
            Self::Stopped => f.write_str("stopped"),
        }
    }
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for () {}
    impl Sealed for super::Never {}
    impl<E> Sealed for Result<(), E> {}
}

/// The type `!` of a future that never returns, such as `async { loop { … } }`.
/// Stable Rust names it only as what a function returns.
type Never = <fn() -> ! as Returns>::Type;

#[doc(hidden)]
pub trait Returns {
    type Type;
}

impl<T> Returns for fn() -> T {
    type Type = T;
}

/// What the future of a worker may give: nothing, a result whose error has a
/// text, or never anything. Implemented for these three alone.
///
/// ```
/// # async fn example(manager: &mullama::TaskManager) -> Result<(), mullama::MullamaError> {
/// manager.spawn_worker("quiet", async {})?;
/// manager.spawn_worker("careful", async { std::fs::remove_file("lock") })?;
/// manager.spawn_worker("endless", async { loop { tokio::task::yield_now().await } })?;
/// # Ok(())
/// # }
/// ```
pub trait WorkerOutput: sealed::Sealed + Send + 'static {
    /// The text of the error, if it is one.
    #[doc(hidden)]
    fn failure(self) -> Option<String>;
}

impl WorkerOutput for () {
    fn failure(self) -> Option<String> {
        None
    }
}

impl WorkerOutput for Never {
    fn failure(self) -> Option<String> {
        match self {}
    }
}

impl<E: Display + Send + 'static> WorkerOutput for Result<(), E> {
    fn failure(self) -> Option<String> {
        self.err().map(|error| error.to_string())
    }
}

/// The worker of `manager` that the calling task is.
pub(super) fn current(manager: &Arc<Shared>) -> Option<u64> {
    SELF.try_with(|(of, id)| std::ptr::eq(of.as_ptr(), Arc::as_ptr(manager)).then_some(*id)).ok().flatten()
}

/// Tells the manager how a worker ended, whatever ends it: when it is dropped
/// without having been told, as by the runtime's end, it was stopped.
struct Report {
    manager: Weak<Shared>,
    id: u64,
    status: WorkerStatus,
}

impl Drop for Report {
    fn drop(&mut self) {
        if let Some(manager) = self.manager.upgrade() {
            manager.ended(self.id, std::mem::replace(&mut self.status, WorkerStatus::Stopped));
        }
    }
}

/// Runs `work` until it ends or `stop` is cancelled, which drops it, and
/// reports. A panic is caught.
pub(super) fn supervise<F>(
    manager: Weak<Shared>,
    id: u64,
    stop: CancellationToken,
    work: F,
) -> impl Future<Output = ()> + Send + 'static
where
    F: Future + Send + 'static,
    F::Output: WorkerOutput,
{
    let mut report = Report { manager: manager.clone(), id, status: WorkerStatus::Stopped };
    SELF.scope((manager, id), async move {
        report.status = match stop.run_until_cancelled(caught(work)).await {
            None => WorkerStatus::Stopped,
            Some(Err(panic)) => WorkerStatus::Panicked(message(&*panic)),
            Some(Ok(output)) => output.failure().map_or(WorkerStatus::Completed, WorkerStatus::Failed),
        };
        drop(report);
    })
}

/// The output, or what it panicked with.
async fn caught<F: Future>(work: F) -> Result<F::Output, Box<dyn Any + Send>> {
    let mut work = pin!(work);
    // What panicked is not polled again.
    poll_fn(|context| match catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(context))) {
        Ok(poll) => poll.map(Ok),
        Err(panic) => Poll::Ready(Err(panic)),
    })
    .await
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
}
