//! The end of workers: by `stop_all`, and with their manager or runtime.

use crate::*;

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
