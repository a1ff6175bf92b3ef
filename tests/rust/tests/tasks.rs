//! `TaskManager`: its queue of generations, its workers, its samples, and its
//! ends.

use futures_util::{FutureExt, future::join_all};
use mullama::{GenerationTask, ModelOptions, MullamaError, MullamaRuntime, StreamConfig, TaskManager, WorkerStatus};
use mullama_tests::{Tiny, exactly, options, run, tiny, until, until_idle};
use std::{
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::sync::oneshot;

/// Without `enable_time`, which nothing here may need, and without a limit, so
/// that a shutdown which waits for a worker hangs, and the test fails.
fn runtime() -> Arc<MullamaRuntime> {
    Arc::new(MullamaRuntime::new().worker_threads(2).shutdown_timeout(Duration::MAX).build().unwrap())
}

fn manager(runtime: &Arc<MullamaRuntime>, n_workers: usize) -> TaskManager {
    let manager = TaskManager::new(runtime);
    for _ in 0..n_workers {
        manager.spawn_generation_worker().unwrap();
    }
    manager
}

async fn model() -> Tiny {
    tiny(ModelOptions { max_concurrent: 4, context_size: 8192, ..options() }).await
}

/// One that runs until it is stopped.
fn endless() -> StreamConfig {
    exactly(8000)
}

fn is_cancelled<T: std::fmt::Debug>(result: &Result<T, MullamaError>) -> bool {
    matches!(result, Err(MullamaError::Cancelled))
}

fn is_closed<T: std::fmt::Debug>(result: &Result<T, MullamaError>) -> bool {
    matches!(result, Err(MullamaError::Closed(what)) if what == "the runtime")
}

async fn until_status(manager: &TaskManager, name: &str, wanted: WorkerStatus) {
    while manager.worker_status().get(name) != Some(&wanted) {
        tokio::task::yield_now().await;
    }
}

// The queue.

#[test]
fn one_worker_serves_tasks_in_the_order_of_their_submission() {
    run(async {
        let (runtime, tiny) = (runtime(), model().await);
        let manager = manager(&runtime, 0);
        let metrics = || tiny.model.metrics();
        // Told apart by the lengths of their prompts.
        let prompts: Vec<String> = (1..8).map(|n| "abc".repeat(n)).collect();
        let tasks = prompts.iter().map(|prompt| manager.submit(&tiny.model, prompt, endless()).unwrap());
        let tasks: Vec<GenerationTask> = tasks.collect();
        assert_eq!(tasks.iter().map(GenerationTask::id).collect::<Vec<_>>(), (0..7).collect::<Vec<_>>());
        assert_eq!(metrics().steps, 0, "without a worker they wait");
        manager.spawn_generation_worker().unwrap();
        let mut n_tokens = 0;
        for (prompt, task) in prompts.iter().zip(tasks) {
            n_tokens += tiny.model.tokenize(prompt, true, true).unwrap().len() as u64;
            until(&tiny.model, |metrics| metrics.prompt_tokens >= n_tokens).await;
            assert_eq!(metrics().prompt_tokens, n_tokens);
            drop(task);
        }
        until_idle(&tiny.model).await;
        assert_eq!(metrics().cancelled, 7);
    });
}

#[test]
fn several_workers_share_one_queue() {
    run(async {
        let (runtime, tiny) = (runtime(), model().await);
        let manager = manager(&runtime, 3);
        let endless: Vec<_> = (0..2).map(|_| manager.submit(&tiny.model, "a", endless()).unwrap()).collect();
        until(&tiny.model, |metrics| metrics.active == 2).await;
        // The third serves all others.
        let tasks = (0..30).map(|n| manager.submit(&tiny.model, "a", exactly(n % 4)).unwrap());
        for (n, result) in join_all(tasks).await.into_iter().enumerate() {
            assert_eq!(result.unwrap().tokens.len(), n % 4);
        }
        drop(endless);
        until_idle(&tiny.model).await;
    });
}

#[test]
fn a_task_that_waits_gives_up_its_place_and_never_runs() {
    run(async {
        let (runtime, tiny) = (runtime(), model().await);
        let manager = manager(&runtime, 0);
        let cancelled = manager.submit(&tiny.model, "a", exactly(3)).unwrap();
        drop(manager.submit(&tiny.model, "a", exactly(3)).unwrap());
        let served = manager.submit(&tiny.model, "a", exactly(3)).unwrap();
        cancelled.cancel();
        cancelled.cancel();
        assert!(is_cancelled(&cancelled.await));
        manager.spawn_generation_worker().unwrap();
        assert_eq!(served.await.unwrap().tokens.len(), 3);
        let metrics = tiny.model.metrics();
        assert_eq!((metrics.completed, metrics.cancelled), (1, 0));
    });
}

#[test]
fn a_task_that_runs_is_stopped_by_cancel_and_by_its_drop() {
    run(async {
        let (runtime, tiny) = (runtime(), model().await);
        let manager = manager(&runtime, 2);
        let cancelled = manager.submit(&tiny.model, "a", endless()).unwrap();
        let dropped = manager.submit(&tiny.model, "a", endless()).unwrap();
        until(&tiny.model, |metrics| metrics.active == 2).await;
        cancelled.cancel();
        assert!(is_cancelled(&cancelled.await));
        drop(dropped);
        until_idle(&tiny.model).await;
        assert_eq!(tiny.model.metrics().cancelled, 2);
        let after = manager.submit(&tiny.model, "a", exactly(2)).unwrap();
        assert_eq!(after.await.unwrap().tokens.len(), 2, "the workers go on");
    });
}

#[test]
fn a_full_queue_refuses_and_a_cancelled_task_makes_room() {
    run(async {
        let (runtime, tiny) = (runtime(), model().await);
        let manager = manager(&runtime, 0);
        let submit = || manager.submit(&tiny.model, "a", exactly(0));
        let mut tasks: Vec<_> = (0..4096).map(|_| submit().unwrap()).collect();
        assert!(matches!(submit(), Err(MullamaError::QueueFull { limit: 4096 })));
        drop(tasks.swap_remove(2000));
        tasks.push(submit().unwrap());
        assert!(submit().is_err());
        manager.spawn_generation_worker().unwrap();
        assert!(join_all(tasks).await.iter().all(Result::is_ok));
    });
}

#[test]
fn what_is_wrong_with_a_task_is_told_at_once() {
    run(async {
        let (runtime, tiny) = (runtime(), model().await);
        let manager = manager(&runtime, 1);
        let refused = manager.submit(&tiny.model, "a", exactly(1).top_p(7.0));
        assert!(matches!(refused, Err(MullamaError::InvalidInput { field, .. }) if field == "top_p"));
        let too_long = manager.submit(&tiny.model, &"7".repeat(9000), exactly(1)).unwrap();
        assert!(matches!(too_long.await, Err(MullamaError::PromptTooLong { .. })));
        tiny.model.close().await;
        let closed = manager.submit(&tiny.model, "a", exactly(1));
        assert!(matches!(closed, Err(MullamaError::Closed(what)) if what == "the model"));
        assert_eq!(manager.worker_status()["generation-0"], WorkerStatus::Running);
    });
}

#[test]
fn a_result_is_given_once() {
    run(async {
        let (runtime, tiny) = (runtime(), model().await);
        let mut task = manager(&runtime, 0).submit(&tiny.model, "a", exactly(1)).unwrap();
        // The manager is gone, and its queue with it.
        assert!(is_cancelled(&(&mut task).await));
        assert!(matches!(task.await, Err(MullamaError::Internal(_))));
    });
}

// Workers.

#[test]
fn a_worker_tells_how_it_ended() {
    run(async {
        let runtime = runtime();
        let manager = manager(&runtime, 0);
        let (let_go, hold) = oneshot::channel::<()>();
        manager.spawn_worker("returns", async { hold.await.unwrap() }).unwrap();
        assert_eq!(manager.worker_status()["returns"], WorkerStatus::Running);
        let_go.send(()).unwrap();
        until_status(&manager, "returns", WorkerStatus::Completed).await;
        manager.spawn_worker("succeeds", async { Ok::<(), MullamaError>(()) }).unwrap();
        until_status(&manager, "succeeds", WorkerStatus::Completed).await;
        manager.spawn_worker("fails", async { Err::<(), _>(std::io::Error::other("no more")) }).unwrap();
        until_status(&manager, "fails", WorkerStatus::Failed("no more".to_owned())).await;
        manager.spawn_worker("panics", async { panic!("of number {}", 7) }).unwrap();
        until_status(&manager, "panics", WorkerStatus::Panicked("of number 7".to_owned())).await;
        manager.spawn_worker("endless", pending::<()>()).unwrap();
        assert_eq!(manager.worker_status().len(), 5);
        assert_eq!(runtime.spawn(async { 1 }).await.unwrap(), 1, "the runtime goes on");

        let failure = manager.stop_all().await.unwrap_err();
        assert!(matches!(&failure, MullamaError::OperationFailed(_)), "{failure:?}");
        assert_eq!(failure.to_string(), "operation failed: worker 'fails' failed: no more");
        assert_eq!(manager.worker_status()["endless"], WorkerStatus::Stopped);
        assert_eq!(manager.worker_status()["returns"], WorkerStatus::Completed);
        manager.stop_all().await.expect("a failure is reported once");
    });
}

#[test]
fn a_name_is_taken_while_its_worker_runs() {
    run(async {
        let runtime = runtime();
        let manager = manager(&runtime, 0);
        let taken = |result: Result<(), MullamaError>| match result {
            Err(MullamaError::InvalidInput { field, .. }) => field == "name",
            _ => false,
        };
        manager.spawn_worker("a", pending::<()>()).unwrap();
        assert!(taken(manager.spawn_worker("a", async {})));
        assert!(taken(manager.spawn_worker("", async {})));
        manager.stop_all().await.unwrap();
        assert_eq!(manager.worker_status()["a"], WorkerStatus::Stopped);
        manager.spawn_worker("a", async {}).unwrap();
        until_status(&manager, "a", WorkerStatus::Completed).await;

        // Automatic names pass over those that run.
        manager.spawn_worker("generation-1", pending::<()>()).unwrap();
        assert_eq!(manager.spawn_generation_worker().unwrap(), "generation-0");
        assert_eq!(manager.spawn_generation_worker().unwrap(), "generation-2");
        assert_eq!(manager.spawn_metrics_collector().unwrap(), "metrics");
        assert!(taken(manager.spawn_metrics_collector().map(drop)));
        assert!(taken(manager.spawn_worker("metrics", async {})));
        manager.stop_all().await.unwrap();
        assert_eq!(manager.spawn_generation_worker().unwrap(), "generation-0");
        assert_eq!(manager.spawn_metrics_collector().unwrap(), "metrics");
        assert_eq!(manager.worker_status().len(), 5);
    });
}

#[test]
fn dropping_the_last_clone_stops_the_workers() {
    run(async {
        let (runtime, tiny) = (runtime(), model().await);
        let manager = manager(&runtime, 1);
        let running = manager.submit(&tiny.model, "a", endless()).unwrap();
        let queued = manager.submit(&tiny.model, "a", endless()).unwrap();
        until(&tiny.model, |metrics| metrics.active == 1).await;
        let clone = manager.clone();
        drop(manager);
        assert_eq!(clone.worker_status()["generation-0"], WorkerStatus::Running);
        drop(clone);
        assert!(is_cancelled(&running.await));
        assert!(is_cancelled(&queued.await));
        until_idle(&tiny.model).await;
        while runtime.metrics().await.active_tasks > 0 {
            tokio::task::yield_now().await;
        }
    });
}

// The end.

#[test]
fn stop_all_ends_every_generation_and_the_manager_starts_anew() {
    run(async {
        let (runtime, tiny) = (runtime(), model().await);
        let manager = manager(&runtime, 2);
        let tasks: Vec<_> = (0..5).map(|_| manager.submit(&tiny.model, "a", endless()).unwrap()).collect();
        until(&tiny.model, |metrics| metrics.active == 2).await;
        manager.stop_all().await.unwrap();
        assert!(manager.worker_status().values().all(|status| *status == WorkerStatus::Stopped));
        for result in join_all(tasks).await {
            assert!(is_cancelled(&result), "{result:?}");
        }
        until_idle(&tiny.model).await;
        let task = manager.submit(&tiny.model, "a", exactly(3)).unwrap();
        manager.spawn_generation_worker().unwrap();
        assert_eq!(task.await.unwrap().tokens.len(), 3);
    });
}

#[test]
fn stop_all_may_be_called_many_times_at_once() {
    run(async {
        let runtime = runtime();
        let manager = manager(&runtime, 3);
        manager.spawn_worker("fails", async { Err::<(), _>("on purpose") }).unwrap();
        until_status(&manager, "fails", WorkerStatus::Failed("on purpose".to_owned())).await;
        let calls = (0..8).map(|_| {
            let manager = manager.clone();
            tokio::spawn(async move { manager.stop_all().await })
        });
        let results: Vec<_> = join_all(calls).await.into_iter().map(Result::unwrap).collect();
        assert_eq!(results.iter().filter(|result| result.is_err()).count(), 1, "{results:?}");
        assert!(manager.worker_status().values().all(|status| *status != WorkerStatus::Running));
    });
}

#[test]
fn a_worker_may_stop_all_others_and_goes_on() {
    run(async {
        let runtime = runtime();
        let manager = manager(&runtime, 2);
        let (tell, told) = oneshot::channel();
        let inside = manager.clone();
        let work = async move {
            inside.stop_all().await.unwrap();
            tokio::task::yield_now().await;
            tell.send(inside.worker_status()).unwrap();
        };
        manager.spawn_worker("last", work).unwrap();
        let seen = told.await.unwrap();
        assert_eq!(seen["generation-0"], WorkerStatus::Stopped);
        assert_eq!(seen["generation-1"], WorkerStatus::Stopped);
        assert_eq!(seen["last"], WorkerStatus::Running);
        until_status(&manager, "last", WorkerStatus::Completed).await;
    });
}

#[test]
fn two_workers_may_stop_each_other() {
    run(async {
        let runtime = runtime();
        let manager = manager(&runtime, 0);
        for name in ["one", "other"] {
            let inside = manager.clone();
            manager.spawn_worker(name, async move { inside.stop_all().await }).unwrap();
        }
        while manager.worker_status().values().any(|status| *status == WorkerStatus::Running) {
            tokio::task::yield_now().await;
        }
    });
}

#[test]
fn the_end_of_the_runtime_stops_the_workers_and_closes_the_manager() {
    for graceful in [true, false] {
        run(async {
            let (runtime, tiny) = (runtime(), model().await);
            let manager = manager(&runtime, 1);
            manager.spawn_metrics_collector().unwrap();
            manager.spawn_worker("endless", pending::<()>()).unwrap();
            let running = manager.submit(&tiny.model, "a", endless()).unwrap();
            let queued = manager.submit(&tiny.model, "a", endless()).unwrap();
            until(&tiny.model, |metrics| metrics.active == 1).await;
            let runtime = Arc::into_inner(runtime).unwrap();
            if graceful {
                runtime.shutdown().await.unwrap();
            } else {
                drop(runtime);
            }
            assert!(is_cancelled(&running.await));
            assert!(is_closed(&queued.await));
            manager.stop_all().await.unwrap();
            assert!(manager.worker_status().values().all(|status| *status == WorkerStatus::Stopped));
            assert!(is_closed(&manager.submit(&tiny.model, "a", exactly(1))));
            assert!(is_closed(&manager.spawn_generation_worker()));
            assert!(is_closed(&manager.spawn_metrics_collector()));
            assert!(is_closed(&manager.spawn_worker("late", async {})));
            manager.stop_all().await.unwrap();
        });
    }
}

#[test]
fn a_worker_that_never_awaits_delays_nobody_past_the_limit() {
    run(async {
        let limit = Duration::from_millis(20);
        let runtime = Arc::new(MullamaRuntime::new().worker_threads(1).shutdown_timeout(limit).build().unwrap());
        let manager = manager(&runtime, 0);
        let (let_go, hold) = std::sync::mpsc::channel::<()>();
        let (started, is_started) = oneshot::channel();
        let stuck = async move {
            started.send(()).unwrap();
            let _ = hold.recv();
        };
        manager.spawn_worker("stuck", stuck).unwrap();
        is_started.await.unwrap();
        Arc::into_inner(runtime).unwrap().shutdown().await.unwrap();
        manager.stop_all().await.unwrap();
        assert_eq!(manager.worker_status()["stuck"], WorkerStatus::Running, "its thread is still at it");
        drop(let_go);
        until_status(&manager, "stuck", WorkerStatus::Completed).await;
    });
}

// Samples.

#[test]
fn the_collector_keeps_the_newest_samples() {
    run(async {
        let runtime = runtime();
        let manager = manager(&runtime, 0);
        let mut newest = manager.watch_metrics();
        assert!(manager.metrics_history().is_empty());
        assert_eq!(newest.borrow_and_update().worker_threads, 0);
        let name = manager.spawn_metrics_collector_with(Duration::from_millis(1), 5).unwrap();
        newest.changed().await.unwrap();
        let first = manager.metrics_history()[0];
        assert_eq!((first.worker_threads, first.active_tasks), (2, 1));
        // Far more than it keeps; every one can be told by its count of tasks.
        for n in 1..=20 {
            runtime.spawn(async {}).await.unwrap();
            while newest.borrow_and_update().completed_tasks < n {
                newest.changed().await.unwrap();
            }
            assert!(manager.metrics_history().len() <= 5);
        }
        manager.stop_all().await.unwrap();
        let history = manager.metrics_history();
        assert_eq!(history.len(), 5);
        assert!(history.is_sorted_by_key(|sample| sample.completed_tasks));
        assert_eq!(history[4].completed_tasks, 20);
        assert_eq!(manager.worker_status()[&name], WorkerStatus::Stopped);

        // A smaller one after it keeps fewer.
        manager.spawn_metrics_collector_with(Duration::from_secs(3600), 2).unwrap();
        newest.changed().await.unwrap();
        assert_eq!(manager.metrics_history().len(), 2);
    });
}

#[test]
fn a_collector_without_interval_or_capacity_is_refused() {
    let runtime = runtime();
    let manager = manager(&runtime, 0);
    for (interval, capacity, wanted) in [(0, 5, "interval"), (5, 0, "capacity")] {
        match manager.spawn_metrics_collector_with(Duration::from_millis(interval), capacity) {
            Err(MullamaError::InvalidInput { field, .. }) => assert_eq!(field, wanted),
            other => panic!("{other:?}"),
        }
    }
    assert!(manager.worker_status().is_empty());
}

#[test]
fn a_manager_of_the_shared_runtime_works_like_any() {
    run(async {
        let manager = TaskManager::new(MullamaRuntime::shared().unwrap());
        let ran = Arc::new(AtomicUsize::new(0));
        let counter = ran.clone();
        manager
            .spawn_worker("count", async move {
                counter.fetch_add(1, Ordering::SeqCst);
            })
            .unwrap();
        until_status(&manager, "count", WorkerStatus::Completed).await;
        assert_eq!(ran.load(Ordering::SeqCst), 1);
        assert!(manager.stop_all().now_or_never().expect("nothing is waited for").is_ok());
    });
}
