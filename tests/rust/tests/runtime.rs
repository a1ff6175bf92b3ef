//! `MullamaRuntime`: its settings, its shutdown in every situation, and its
//! drop. What it counts is in `metrics.rs`.

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

// Settings.

#[test]
fn impossible_settings_are_refused_by_name() {
    let refusals: &[(&str, MullamaRuntimeBuilder)] = &[
        ("worker_threads", builder().worker_threads(0)),
        ("worker_threads", builder().worker_threads(1025)),
        ("worker_threads", builder().worker_threads(usize::MAX)),
        ("max_blocking_threads", builder().max_blocking_threads(0)),
        ("max_blocking_threads", builder().max_blocking_threads(usize::MAX)),
        ("thread_stack_size", builder().thread_stack_size(0)),
        ("thread_stack_size", builder().thread_stack_size(4096)),
        ("thread_stack_size", builder().thread_stack_size(usize::MAX)),
        ("thread_name", builder().thread_name("")),
        ("thread_name", builder().thread_name("a\0b")),
    ];
    for (wanted, builder) in refusals {
        for error in [builder.clone().build().map(drop), MullamaRuntime::configure_shared(builder.clone())] {
            match error {
                Err(MullamaError::InvalidInput { field, .. }) => assert_eq!(&field, wanted),
                other => panic!("{wanted}: {other:?}"),
            }
        }
    }
}

#[test]
fn the_threads_are_as_the_builder_says() {
    let runtime = builder().worker_threads(3).thread_name("named-so").build().unwrap();
    let name = || std::thread::current().name().map(str::to_owned);
    run(async {
        assert_eq!(runtime.spawn(async move { name() }).await.unwrap().as_deref(), Some("named-so"));
        assert_eq!(runtime.spawn_blocking(name).await.unwrap().as_deref(), Some("named-so"));
        assert_eq!(runtime.metrics().await.worker_threads, 3);
    });
}

#[test]
fn by_default_there_is_a_worker_for_every_processor() {
    let runtime = MullamaRuntime::new().build().unwrap();
    let processors = std::thread::available_parallelism().unwrap().get();
    assert_eq!(run(runtime.metrics()).worker_threads, processors);
}

#[test]
fn time_and_io_are_there_when_they_were_enabled() {
    async fn uses_time() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    async fn uses_io() {
        drop(tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap());
    }
    let cases = [
        (builder(), false, false),
        (builder().enable_time(), true, false),
        (builder().enable_io(), false, true),
        (builder().enable_all(), true, true),
    ];
    for (builder, has_time, has_io) in cases {
        let runtime = builder.build().unwrap();
        run(async {
            assert_eq!(runtime.spawn(uses_time()).await.is_ok(), has_time);
            assert_eq!(runtime.spawn(uses_io()).await.is_ok(), has_io);
        });
    }
}

#[test]
fn the_smallest_stack_is_enough_to_tokenize_and_generate_on() {
    let runtime = builder().thread_stack_size(128 * 1024).build().unwrap();
    run(async {
        let tiny = tiny(options()).await;
        let model = tiny.model.clone();
        let prompt = "1234567890 abc, ".repeat(1000);
        let task = runtime.spawn(async move {
            let tokens = model.tokenize_async(&prompt, true).await.unwrap();
            assert_eq!(model.detokenize(&tokens[1..]).unwrap().trim_start(), prompt);
            let long = model.tokenize_async(&"7".repeat(200_000), false).await.unwrap();
            assert!(!long.is_empty());
            model.generate_with("a", exactly(4)).await.unwrap()
        });
        assert_eq!(task.await.unwrap().tokens.len(), 4);
    });
}

#[test]
fn a_panic_in_a_task_stays_in_its_handle() {
    let runtime = runtime();
    run(async {
        assert!(runtime.spawn(async { panic!("on purpose") }).await.unwrap_err().is_panic());
        assert!(runtime.spawn_blocking(|| panic!("on purpose")).await.unwrap_err().is_panic());
        assert_eq!(runtime.spawn(async { 1 }).await.unwrap(), 1);
    });
}

#[test]
fn the_shared_runtime_is_configured_once_and_before_its_first_use() {
    let check = |steps: &str, wanted: &str| {
        let output = Command::new(env!("CARGO_BIN_EXE_configure_shared")).arg(steps).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(String::from_utf8(output.stdout).unwrap().replace('\n', "; "), wanted);
    };
    check("use", "use ok; 1 workers, named mullama-runtime; ");
    check(
        "bad,configure,configure,use",
        "bad invalid_input; configure ok; configure unsupported; use ok; 3 workers, named configured; ",
    );
    check("use,configure", "use ok; configure unsupported; 1 workers, named mullama-runtime; ");
}

// Shutdown.

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

// Drop.

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
