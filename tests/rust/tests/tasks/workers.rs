//! Workers, their names and statuses, and the collector's samples.

use crate::*;

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
        newest.borrow_and_update();
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
