//! The queue of generation requests that the generation workers share, and
//! [`GenerationTask`], the caller's end of one.

use crate::{AsyncModel, Generation, MullamaError, StreamConfig, process};
use std::{
    collections::BTreeMap,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};
use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;

/// Tasks that may wait. A program that is so far behind does better to hold
/// back than to pile up prompts.
const CAPACITY: usize = 4096;

/// See the module.
#[derive(Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    /// One permit for an idle worker when a task comes.
    came: Notify,
}

#[derive(Default)]
struct State {
    next_id: u64,
    /// By id, which is their order.
    waiting: BTreeMap<u64, Job>,
}

/// A request for a worker.
struct Job {
    model: AsyncModel,
    prompt: String,
    config: StreamConfig,
    cancelled: CancellationToken,
    answer: oneshot::Sender<Result<Generation, MullamaError>>,
}

impl Queue {
    /// # Errors
    /// `QueueFull`.
    pub(super) fn push(
        self: &Arc<Self>,
        model: AsyncModel,
        prompt: String,
        config: StreamConfig,
    ) -> Result<GenerationTask, MullamaError> {
        let (answer, receiver) = oneshot::channel();
        let cancelled = CancellationToken::new();
        let mut state = self.lock();
        if state.waiting.len() >= CAPACITY {
            return Err(MullamaError::QueueFull { limit: CAPACITY });
        }
        let id = state.next_id;
        state.next_id += 1;
        state.waiting.insert(id, Job { model, prompt, config, cancelled: cancelled.clone(), answer });
        drop(state);
        self.came.notify_one();
        Ok(GenerationTask { id, queue: self.clone(), cancelled, receiver: Some(receiver) })
    }

    /// Serves one task after the other, oldest first, for ever. Dropping the
    /// future stops the one under way, which then ends as `Cancelled`.
    pub(super) async fn serve(self: Arc<Self>) {
        loop {
            let job = self.next().await;
            let mut answer = Answer(Some(job.answer));
            let generate = job.model.generate_with(&job.prompt, job.config);
            let result = job.cancelled.run_until_cancelled(generate).await;
            answer.give(result.unwrap_or(Err(MullamaError::Cancelled)));
        }
    }

    async fn next(&self) -> Job {
        loop {
            if let Some(job) = self.pop() {
                return job;
            }
            self.came.notified().await;
        }
    }

    fn pop(&self) -> Option<Job> {
        let mut state = self.lock();
        let (_, job) = state.waiting.pop_first()?;
        // A permit is one however often it was given, so whoever takes a task
        // wakes the next worker.
        if !state.waiting.is_empty() {
            self.came.notify_one();
        }
        Some(job)
    }

    /// Ends all tasks that wait.
    pub(super) fn clear(&self, error: &MullamaError) {
        let waiting = std::mem::take(&mut self.lock().waiting);
        for job in waiting.into_values() {
            // The caller may have dropped its end.
            let _ = job.answer.send(Err(error.clone()));
        }
    }

    /// Takes a task out that waits.
    fn take(&self, id: u64) -> Option<Job> {
        self.lock().waiting.remove(&id)
    }

    /// Nothing that can panic runs under the lock, so a poisoned one is whole.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The worker's end of a task's answer. Dropped without one, it tells why.
struct Answer(Option<oneshot::Sender<Result<Generation, MullamaError>>>);

impl Answer {
    fn give(&mut self, result: Result<Generation, MullamaError>) {
        if let Some(answer) = self.0.take() {
            let _ = answer.send(result);
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.give(Err(if std::thread::panicking() {
            MullamaError::Internal("the worker that ran the task panicked".to_owned())
        } else {
            MullamaError::Cancelled
        }));
    }
}

/// A generation that a worker of a [`TaskManager`](crate::TaskManager) makes;
/// awaiting it gives the result. Dropping it cancels the generation.
///
/// # Errors
/// What [`AsyncModel::generate_with`] gives; `Cancelled` after
/// [`GenerationTask::cancel`], or when its worker or the whole manager was
/// stopped; `Closed` when the runtime ended while it waited.
///
/// ```no_run
/// # async fn example(manager: &mullama::TaskManager, model: &mullama::AsyncModel) -> Result<(), mullama::MullamaError> {
/// let task = manager.submit(model, "Once upon a time", mullama::StreamConfig::new().max_tokens(40))?;
/// println!("{}", task.await?.text);
/// # Ok(())
/// # }
/// ```
#[must_use = "dropping it cancels the generation"]
pub struct GenerationTask {
    id: u64,
    queue: Arc<Queue>,
    cancelled: CancellationToken,
    /// `None` once the result was given.
    receiver: Option<oneshot::Receiver<Result<Generation, MullamaError>>>,
}

impl GenerationTask {
    /// Cancels the generation. One that waits gives up its place and never
    /// runs; one that runs stops within one step. Awaiting it gives
    /// `Cancelled`, unless it had ended before.
    pub fn cancel(&self) {
        if process::is_forked_child() {
            return;
        }
        self.cancelled.cancel();
        if let Some(job) = self.queue.take(self.id) {
            let _ = job.answer.send(Err(MullamaError::Cancelled));
        }
    }

    /// The task's number in its manager, in order of submission, from 0 on.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }
}

impl Future for GenerationTask {
    type Output = Result<Generation, MullamaError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        process::check()?;
        let Some(receiver) = &mut self.receiver else {
            return Poll::Ready(Err(MullamaError::Internal("a result was asked for twice".to_owned())));
        };
        Pin::new(receiver).poll(context).map(|result| {
            self.receiver = None;
            result.unwrap_or(Err(MullamaError::Cancelled))
        })
    }
}

impl Drop for GenerationTask {
    fn drop(&mut self) {
        self.cancel();
    }
}

impl std::fmt::Debug for GenerationTask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GenerationTask").field("id", &self.id).finish_non_exhaustive()
    }
}
