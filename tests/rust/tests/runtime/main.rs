//! `MullamaRuntime`: its settings, its shutdown in every situation, and its
//! drop. What it counts is in `metrics.rs`.

mod end;
mod settings;

use futures_util::{FutureExt, StreamExt};
use mullama::{FinishReason, Generation, Model, MullamaError, MullamaRuntime, MullamaRuntimeBuilder};
use mullama_tests::{Tiny, exactly, options, run, tiny, until, until_idle};
use std::{
    future::pending,
    panic::{AssertUnwindSafe, catch_unwind},
    process::Command,
    sync::{Arc, mpsc},
    time::Duration,
};
use tokio::sync::oneshot;

fn builder() -> MullamaRuntimeBuilder {
    MullamaRuntime::new().worker_threads(2)
}

fn runtime() -> MullamaRuntime {
    builder().build().unwrap()
}

/// Without a limit, so that a shutdown that waits for what it should have
/// ended hangs, and the test fails.
fn patient() -> MullamaRuntime {
    builder().shutdown_timeout(Duration::MAX).build().unwrap()
}

/// At whose limit everything is aborted.
fn impatient() -> MullamaRuntime {
    builder().shutdown_timeout(Duration::from_millis(20)).build().unwrap()
}

/// Tells when it is dropped.
struct Dropped(Option<oneshot::Sender<()>>);

impl Drop for Dropped {
    fn drop(&mut self) {
        let _ = self.0.take().unwrap().send(());
    }
}

fn dropped() -> (Dropped, oneshot::Receiver<()>) {
    let (sender, receiver) = oneshot::channel();
    (Dropped(Some(sender)), receiver)
}

/// A generation under way in a task of the runtime, and one that waits behind
/// it, each as text and as a stream.
struct Running {
    tiny: Tiny,
    whole: Vec<tokio::task::JoinHandle<Result<Generation, MullamaError>>>,
    streams: Vec<tokio::task::JoinHandle<(Option<FinishReason>, bool)>>,
}

async fn generate_on(runtime: &MullamaRuntime) -> Running {
    let tiny = tiny(mullama::ModelOptions { max_concurrent: 2, context_size: 16_384, ..options() }).await;
    let spawn_whole = || {
        let model = tiny.model.clone();
        runtime.spawn(async move { model.generate_with("a", exactly(15_000)).await })
    };
    let spawn_stream = || {
        let model = tiny.model.clone();
        runtime.spawn(async move {
            let mut stream = model.generate_stream("a", exactly(15_000)).await.unwrap();
            let mut failed = false;
            while let Some(token) = stream.next().await {
                failed |= token.is_err();
            }
            (stream.finish_reason(), failed)
        })
    };
    let (mut whole, mut streams) = (vec![spawn_whole()], vec![spawn_stream()]);
    until(&tiny.model, |metrics| metrics.active == 2 && metrics.generated_tokens > 0).await;
    whole.push(spawn_whole());
    streams.push(spawn_stream());
    until(&tiny.model, |metrics| metrics.queued == 2).await;
    Running { tiny, whole, streams }
}

impl Running {
    /// All were cancelled, and the model serves others.
    async fn are_cancelled(self) {
        for task in self.whole {
            let result = task.await.unwrap();
            assert!(matches!(result, Err(MullamaError::Cancelled)), "{result:?}");
        }
        for task in self.streams {
            assert_eq!(task.await.unwrap(), (Some(FinishReason::Cancelled), false));
        }
        until_idle(&self.tiny.model).await;
        assert_eq!(self.tiny.model.metrics().cancelled, 4);
        assert_eq!(self.tiny.model.generate_with("a", exactly(3)).await.unwrap().tokens.len(), 3);
    }
}
