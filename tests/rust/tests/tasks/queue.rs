//! Generations in the queue: order, places, cancellation.

use crate::*;
use mullama::EngineMetrics;

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
            // Each prompt begins with the one before it.
            let seen = |metrics: &EngineMetrics| metrics.prompt_tokens + metrics.cached_tokens;
            until(&tiny.model, |metrics| seen(metrics) >= n_tokens).await;
            assert_eq!(seen(&metrics()), n_tokens);
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
