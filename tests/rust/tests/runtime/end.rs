//! The end of a runtime, by `shutdown` and by its drop.

use crate::*;

#[test]
fn a_shutdown_cancels_the_generations_of_its_tasks() {
    run(async {
        let runtime = patient();
        let running = generate_on(&runtime).await;
        runtime.shutdown().await.unwrap();
        running.are_cancelled().await;
    });
}

#[test]
fn a_generation_in_a_task_within_a_task_is_cancelled_too() {
    run(async {
        let runtime = patient();
        let tiny = tiny(options()).await;
        let model = tiny.model.clone();
        let task = runtime.spawn(async move {
            let inner = tokio::spawn(async move { model.generate_with("a", exactly(900)).await });
            inner.await.unwrap()
        });
        until(&tiny.model, |metrics| metrics.active == 1).await;
        runtime.shutdown().await.unwrap();
        let result = task.await.unwrap();
        assert!(matches!(result, Err(MullamaError::Cancelled)), "{result:?}");
    });
}

#[test]
fn a_shutdown_cancels_the_stream_of_a_context() {
    run(async {
        let runtime = patient();
        let tiny = tiny(mullama::ModelOptions { context_size: 16_384, ..options() }).await;
        let model = Arc::new(tiny.model.clone());
        let (started, is_started) = oneshot::channel();
        let task = runtime.spawn(async move {
            let mut context = mullama::AsyncContext::new(model).await.unwrap();
            let mut stream = context.generate_stream_with(&[1, 5, 6], exactly(15_000)).await.unwrap();
            stream.next().await.unwrap().unwrap();
            started.send(()).unwrap();
            while let Some(token) = stream.next().await {
                token.unwrap();
            }
            stream.finish_reason()
        });
        is_started.await.unwrap();
        runtime.shutdown().await.unwrap();
        assert_eq!(task.await.unwrap(), Some(FinishReason::Cancelled));
    });
}

#[test]
fn a_shutdown_cancels_the_synchronous_calls_of_its_blocking_tasks() {
    let tiny = run(tiny(mullama::ModelOptions { context_size: 16_384, ..options() }));
    let (started, is_started) = mpsc::channel();
    let runtime = patient();
    let path = tiny.path();
    let whole = runtime.spawn_blocking(move || {
        let model = Model::load(path).unwrap();
        let mut tokens = model.generate_stream("a", exactly(1500)).unwrap();
        tokens.next().unwrap().unwrap();
        started.send(()).unwrap();
        assert!(tokens.all(|token| token.is_ok()));
        (tokens.finish_reason(), model.generate_with("a", exactly(3)))
    });
    is_started.recv().unwrap();
    run(async {
        runtime.shutdown().await.unwrap();
        let (reason, after) = whole.await.unwrap();
        assert_eq!(reason, Some(FinishReason::Cancelled));
        assert!(matches!(after, Err(MullamaError::Cancelled)), "nothing starts any more: {after:?}");
    });
}

#[test]
fn generations_of_others_go_on_through_a_shutdown() {
    run(async {
        let runtime = patient();
        let running = generate_on(&runtime).await;
        let model = running.tiny.model.clone();
        let other = tokio::spawn(async move { model.generate_with("b", exactly(40)).await });
        until(&running.tiny.model, |metrics| metrics.queued == 3).await;
        runtime.shutdown().await.unwrap();
        assert_eq!(other.await.unwrap().unwrap().tokens.len(), 40);
        running.are_cancelled().await;
    });
}

#[test]
fn a_shutdown_waits_for_tasks_that_end() {
    run(async {
        let runtime = patient();
        let (let_go, hold) = oneshot::channel::<()>();
        let (let_blocking_go, hold_blocking) = mpsc::channel::<()>();
        let task = runtime.spawn(async { hold.await.map(|()| "done") });
        let blocking = runtime.spawn_blocking(move || hold_blocking.recv().map(|()| "done"));
        let shutdown = tokio::spawn(runtime.shutdown());
        tokio::task::yield_now().await;
        assert!(!shutdown.is_finished());
        let_go.send(()).unwrap();
        let_blocking_go.send(()).unwrap();
        shutdown.await.unwrap().unwrap();
        assert_eq!(task.await.unwrap(), Ok("done"));
        assert_eq!(blocking.await.unwrap(), Ok("done"));
    });
}

#[test]
fn at_the_limit_tasks_are_aborted() {
    run(async {
        let runtime = impatient();
        let (guard, is_dropped) = dropped();
        let task = runtime.spawn(async move {
            let _guard = guard;
            pending::<()>().await;
        });
        runtime.shutdown().await.unwrap();
        assert!(task.await.unwrap_err().is_cancelled());
        is_dropped.await.unwrap();
    });
}

#[test]
fn at_the_limit_blocking_work_is_left_behind() {
    run(async {
        let runtime = builder().max_blocking_threads(1).shutdown_timeout(Duration::from_millis(20)).build().unwrap();
        let (let_go, hold) = mpsc::channel::<()>();
        let (started, is_started) = oneshot::channel();
        let running = runtime.spawn_blocking(move || {
            started.send(()).unwrap();
            let _ = hold.recv();
        });
        is_started.await.unwrap();
        let waiting = runtime.spawn_blocking(|| ());
        runtime.shutdown().await.unwrap();
        assert!(!running.is_finished());
        assert!(waiting.await.unwrap_err().is_cancelled());
        drop(let_go);
        running.await.unwrap();
    });
}

#[test]
fn a_limit_of_zero_aborts_at_once() {
    run(async {
        let runtime = builder().shutdown_timeout(Duration::ZERO).build().unwrap();
        let task = runtime.spawn(pending::<()>());
        runtime.shutdown().await.unwrap();
        assert!(task.await.unwrap_err().is_cancelled());
    });
}

#[test]
fn a_shutdown_works_on_any_executor() {
    let current_thread = tokio::runtime::Builder::new_current_thread().build().unwrap();
    current_thread.block_on(runtime().shutdown()).unwrap();
    pollster::block_on(runtime().shutdown()).unwrap();
    let host = runtime();
    run(async { host.spawn(async { runtime().shutdown().await }).await.unwrap().unwrap() });
    run(async { host.spawn_blocking(|| pollster::block_on(runtime().shutdown())).await.unwrap().unwrap() });
}

#[test]
fn a_task_may_shut_down_its_own_runtime_and_go_on() {
    run(async {
        let runtime = patient();
        let (pass_on, passed_on) = oneshot::channel::<MullamaRuntime>();
        let (let_go, hold) = oneshot::channel::<()>();
        let other = runtime.spawn(hold);
        let task = runtime.spawn(async {
            passed_on.await.unwrap().shutdown().await.unwrap();
            tokio::task::yield_now().await;
            "went on"
        });
        assert!(pass_on.send(runtime).is_ok());
        let_go.send(()).unwrap();
        assert_eq!(task.await.unwrap(), "went on");
        other.await.unwrap().unwrap();
    });
}

#[test]
fn a_shutdown_goes_on_when_nobody_waits_for_it() {
    run(async {
        let runtime = impatient();
        let task = runtime.spawn(pending::<()>());
        {
            let mut shutdown = Box::pin(runtime.shutdown());
            assert!(shutdown.as_mut().now_or_never().is_none());
        }
        assert!(task.await.unwrap_err().is_cancelled());
    });
}

#[test]
fn the_only_owner_of_an_arc_shuts_it_down() {
    run(async {
        let runtime = Arc::new(patient());
        let manager = mullama::TaskManager::new(&runtime);
        manager.spawn_metrics_collector().unwrap();
        manager.spawn_generation_worker().unwrap();
        let runtime = Arc::into_inner(runtime).expect("a manager and its workers own no part of it");
        runtime.shutdown().await.unwrap();
    });
}

#[test]
fn it_may_be_dropped_in_async_code_and_aborts_its_tasks() {
    run(async {
        let runtime = patient();
        let running = generate_on(&runtime).await;
        let (guard, is_dropped) = dropped();
        let task = runtime.spawn(async move {
            let _guard = guard;
            pending::<()>().await;
        });
        drop(runtime);
        assert!(task.await.unwrap_err().is_cancelled());
        is_dropped.await.unwrap();
        until_idle(&running.tiny.model).await;
        assert_eq!(running.tiny.model.metrics().cancelled, 4);
    });
}

#[test]
fn it_may_be_dropped_by_its_own_task_and_on_a_current_thread_runtime() {
    let current_thread = tokio::runtime::Builder::new_current_thread().build().unwrap();
    current_thread.block_on(async { drop(runtime()) });
    run(async {
        let runtime = patient();
        let (pass_on, passed_on) = oneshot::channel::<MullamaRuntime>();
        let task = runtime.spawn(async {
            drop(passed_on.await.unwrap());
            pending::<()>().await;
        });
        assert!(pass_on.send(runtime).is_ok());
        assert!(task.await.unwrap_err().is_cancelled());
    });
}

#[test]
fn it_is_running_until_it_is_not() {
    let runtime = runtime();
    assert!(runtime.is_running());
    // A task that panics on a worker changes nothing.
    run(async { runtime.spawn(async { panic!("on purpose") }).await.unwrap_err() });
    let outcome = catch_unwind(AssertUnwindSafe(|| runtime.tokio().block_on(async { panic!("on purpose") })));
    assert!(outcome.is_err());
    assert!(runtime.is_running());
}
