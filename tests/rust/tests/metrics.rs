//! The seven figures of `RuntimeMetrics` against work counted by hand, and the
//! Prometheus text of all figures.
//!
//! Generations are counted for the whole process, so these tests take turns.

use futures_util::future::join_all;
use mullama::{AsyncModel, EngineMetrics, ModelOptions, MullamaError, MullamaRuntime, RuntimeMetrics};
use mullama_test_support::TinyModel;
use mullama_tests::{
    exactly, options,
    prometheus::{Family, parse},
    run, tiny, until, until_idle,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    future::{Future, pending},
    sync::{Arc, Barrier, Mutex, PoisonError, mpsc},
    time::{Duration, Instant},
};
use tokio::sync::oneshot;

static TURN: Mutex<()> = Mutex::new(());

fn in_turn(test: impl Future<Output = ()>) {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    run(test);
}

fn runtime() -> MullamaRuntime {
    MullamaRuntime::new().worker_threads(2).max_blocking_threads(3).build().unwrap()
}

// By hand.

#[test]
fn tasks_are_active_until_they_return_panic_or_are_aborted() {
    in_turn(async {
        let runtime = runtime();
        let counts = async || {
            let metrics = runtime.metrics().await;
            (metrics.active_tasks, metrics.completed_tasks)
        };
        assert_eq!(counts().await, (0, 0));
        for _ in 0..3 {
            runtime.spawn(async {}).await.unwrap();
        }
        runtime.spawn_blocking(|| ()).await.unwrap();
        assert_eq!(counts().await, (0, 4));
        runtime.spawn(async { panic!("on purpose") }).await.unwrap_err();
        runtime.spawn_blocking(|| panic!("on purpose")).await.unwrap_err();
        assert_eq!(counts().await, (0, 6));
        let endless: Vec<_> = (0..5).map(|_| runtime.spawn(pending::<()>())).collect();
        assert_eq!(counts().await, (5, 6));
        for (n, task) in (1..).zip(endless) {
            task.abort();
            assert!(task.await.unwrap_err().is_cancelled());
            assert_eq!(counts().await, (5 - n, 6 + n as u64));
        }
        // A handle that is dropped leaves its task alone.
        let (let_go, hold) = oneshot::channel::<()>();
        drop(runtime.spawn(hold));
        assert_eq!(counts().await, (1, 11));
        let_go.send(()).unwrap();
        while counts().await != (0, 12) {
            tokio::task::yield_now().await;
        }
        // What is spawned on Tokio itself is not the runtime's.
        runtime.tokio().spawn(async {}).await.unwrap();
        assert_eq!(counts().await, (0, 12));
    });
}

#[test]
fn workers_of_a_manager_are_tasks() {
    in_turn(async {
        let runtime = Arc::new(runtime());
        let manager = mullama::TaskManager::new(&runtime);
        manager.spawn_generation_worker().unwrap();
        manager.spawn_worker("endless", pending::<()>()).unwrap();
        assert_eq!(runtime.metrics().await.active_tasks, 2);
        manager.stop_all().await.unwrap();
        while runtime.metrics().await.active_tasks > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(runtime.metrics().await.completed_tasks, 2);
    });
}

#[test]
fn threads_are_those_that_exist() {
    in_turn(async {
        let runtime = runtime();
        let threads = async || {
            let metrics = runtime.metrics().await;
            (metrics.worker_threads, metrics.blocking_threads)
        };
        assert_eq!(threads().await, (2, 0));
        let (let_go, hold) = mpsc::channel::<()>();
        let (started, is_started) = oneshot::channel();
        let first = runtime.spawn_blocking(move || {
            started.send(()).unwrap();
            let _ = hold.recv();
        });
        is_started.await.unwrap();
        assert_eq!(threads().await, (2, 1));
        drop(let_go);
        first.await.unwrap();
        // Three at once, and one more that has to wait for one of them.
        let all_there = Arc::new(Barrier::new(3));
        let tasks = (0..3).map(|_| {
            let all_there = all_there.clone();
            runtime.spawn_blocking(move || {
                all_there.wait();
            })
        });
        let tasks: Vec<_> = tasks.chain([runtime.spawn_blocking(|| ())]).collect();
        join_all(tasks).await;
        assert_eq!(threads().await, (2, 3));
    });
}

#[test]
fn uptime_is_in_whole_seconds_since_the_start() {
    in_turn(async {
        let before = Instant::now();
        let runtime = runtime();
        let after = Instant::now();
        assert_eq!(runtime.metrics().await.uptime_seconds.min(before.elapsed().as_secs()), 0);
        loop {
            let least = after.elapsed().as_secs();
            let uptime = runtime.metrics().await.uptime_seconds;
            assert!((least..=before.elapsed().as_secs()).contains(&uptime));
            if uptime >= 1 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
}

#[test]
fn generations_count_when_they_end_with_a_result() {
    in_turn(async {
        let runtime = Arc::new(runtime());
        let tiny = tiny(ModelOptions { max_concurrent: 2, ..options() }).await;
        let model = &tiny.model;
        let before = runtime.metrics().await;

        // These do: whole ones, a stream, one that wants no token, a task's.
        let mut sum = Duration::ZERO;
        let results = join_all((1..=4).map(|n| model.generate_with("a", exactly(n)))).await;
        let mut add = |timings: mullama::Timings| sum += timings.queued + timings.prefill + timings.decode;
        for result in results {
            add(result.unwrap().timings);
        }
        let stream = model.generate_stream("a", exactly(3)).await.unwrap();
        while !stream.next_batch().await.unwrap().is_empty() {}
        add(stream.timings());
        add(model.generate_with("a", exactly(0)).await.unwrap().timings);
        let manager = mullama::TaskManager::new(&runtime);
        manager.spawn_generation_worker().unwrap();
        add(manager.submit(model, "a", exactly(2)).unwrap().await.unwrap().timings);
        let path = tiny.path();
        let blocking = mullama::Model::load_with(&path, options()).unwrap();
        add(blocking.generate_with("a", exactly(2)).unwrap().timings);

        // These don't: dropped, cancelled, timed out, closed, refused.
        let dropped = model.generate_stream("a", exactly(900)).await.unwrap();
        let cancelled = model.generate_stream("a", exactly(900)).await.unwrap();
        let queued = model.generate_stream("a", exactly(900)).await.unwrap();
        until(model, |metrics| metrics.active == 2).await;
        drop((dropped, queued));
        cancelled.cancel();
        until_idle(model).await;
        let late = model.generate_with("a", exactly(900).timeout(Duration::from_nanos(1))).await;
        assert!(matches!(late, Err(MullamaError::Timeout { .. })), "{late:?}");
        let refused = model.generate_with("a", exactly(3).top_p(7.0)).await;
        assert!(matches!(refused, Err(MullamaError::InvalidInput { .. })), "{refused:?}");
        let closed = model.generate_stream("a", exactly(900)).await.unwrap();
        until(model, |metrics| metrics.active == 1).await;
        model.close().await;
        while !closed.next_batch().await.unwrap_or_default().is_empty() {}

        let after = runtime.metrics().await;
        assert_eq!(after.total_generations - before.total_generations, 8);
        let total_ms = |metrics: &RuntimeMetrics| metrics.avg_generation_ms * metrics.total_generations as f64;
        let difference = total_ms(&after) - total_ms(&before) - sum.as_secs_f64() * 1000.0;
        assert!(difference.abs() < 0.01, "{difference} ms apart");
        assert!(after.avg_generation_ms > 0.0);
        // The process's, whichever runtime tells.
        let other = MullamaRuntime::shared().unwrap().metrics().await;
        assert_eq!(other.total_generations, after.total_generations);
    });
}

// The text.

fn check_engine(families: &BTreeMap<String, Family>, labels: &BTreeMap<String, String>, metrics: &EngineMetrics) {
    let numbers = [
        ("queued_requests", metrics.queued as u64),
        ("active_requests", metrics.active as u64),
        ("completed_requests_total", metrics.completed),
        ("cancelled_requests_total", metrics.cancelled),
        ("failed_requests_total", metrics.failed),
        ("prompt_tokens_total", metrics.prompt_tokens),
        ("cached_tokens_total", metrics.cached_tokens),
        ("generated_tokens_total", metrics.generated_tokens),
        ("drafted_tokens_total", metrics.drafted_tokens),
        ("accepted_tokens_total", metrics.accepted_tokens),
        ("steps_total", metrics.steps),
        ("threads", metrics.threads as u64),
        ("cache_bytes", metrics.cache_bytes),
        ("cache_size_bytes", metrics.cache_size_bytes),
        ("prefix_cache_bytes", metrics.prefix_cache_bytes),
        ("preemptions_total", metrics.preemptions),
        ("weights_bytes", metrics.weights_bytes),
        ("weights_shared", metrics.weights_shared.into()),
    ];
    for (name, wanted) in numbers {
        assert_eq!(families[&format!("mullama_engine_{name}")].value(labels), wanted as f64, "{name}");
    }
    assert_eq!(families["mullama_engine_load_seconds"].value(labels), metrics.load_time.as_secs_f64());
    families["mullama_engine_step_seconds"].check_histogram(labels, &metrics.step_time);
    families["mullama_engine_time_to_first_token_seconds"].check_histogram(labels, &metrics.time_to_first_token);
}

#[test]
fn the_text_tells_what_the_metrics_tell() {
    in_turn(async {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tiny.gguf");
        let name = "a \"quoted\" name\\with {all}\nof it, é=";
        let mut file = TinyModel::llama().seed(7).build();
        file.set("general.name", name);
        file.write_to(&path).unwrap();
        let load = || AsyncModel::load_with(&path, ModelOptions { max_concurrent: 1, ..options() });
        let (first, second) = (load().await.unwrap(), load().await.unwrap());
        first.generate_with("abc", exactly(5)).await.unwrap();
        second.generate_with("abcdef", exactly(7)).await.unwrap();
        second.generate_with("a", exactly(5).timeout(Duration::from_nanos(1))).await.unwrap_err();
        let running = second.generate_stream("a", exactly(900).buffer_size(1)).await.unwrap();
        let queued = second.generate_stream("a", exactly(900)).await.unwrap();
        drop(second.generate_stream("a", exactly(900)).await.unwrap());
        // The slow reader's sequence comes to rest after its first token.
        let at_rest = |metrics: &EngineMetrics| {
            let n_first = metrics.time_to_first_token.counts.iter().sum::<u64>();
            (metrics.queued, metrics.cancelled, metrics.generated_tokens, n_first) == (1, 1, 8, 2)
        };
        until(&second, at_rest).await;

        let runtime = runtime();
        runtime.spawn(async {}).await.unwrap();
        let endless = runtime.spawn(pending::<()>());
        // The last step may still be counted: a text between two equal readings.
        let read = || (first.metrics(), second.metrics());
        let (engines, text) = loop {
            let (before, text) = (read(), runtime.metrics_text().await);
            if before == read() {
                break (before, text);
            }
        };
        let metrics = runtime.metrics().await;
        let families = parse(&text);

        let none = BTreeMap::new();
        let value = |name: &str| families[&format!("mullama_{name}")].value(&none);
        assert_eq!(value("runtime_active_tasks"), 1.0);
        assert_eq!(value("runtime_completed_tasks_total"), 1.0);
        assert_eq!(value("runtime_worker_threads"), 2.0);
        assert_eq!(value("runtime_blocking_threads"), 0.0);
        assert_eq!(value("generations_total"), metrics.total_generations as f64);
        assert!((value("generation_mean_seconds") * 1000.0 - metrics.avg_generation_ms).abs() < 1e-9);
        assert!(value("runtime_uptime_seconds") <= metrics.uptime_seconds as f64);
        assert_eq!(families.len(), 7 + 21);

        let labels: BTreeSet<_> =
            families["mullama_engine_steps_total"].samples.iter().map(|(_, labels, _)| labels.clone()).collect();
        // In the order of their loads; the numbers are the process's.
        let mut labels: Vec<_> = labels.into_iter().filter(|labels| labels["model"] == name).collect();
        labels.sort_by_key(|labels| labels["engine"].parse::<u64>().unwrap());
        assert_eq!(labels.len(), 2);
        check_engine(&families, &labels[0], &engines.0);
        check_engine(&families, &labels[1], &engines.1);
        let first_tokens = families["mullama_engine_time_to_first_token_seconds"].of(&labels[1]);
        assert_eq!(first_tokens.iter().find(|(suffix, ..)| suffix == "_count").unwrap().2, 2.0);

        drop((running, queued));
        endless.abort();
        first.close().await;
        second.close().await;
        let text = runtime.metrics_text().await;
        assert!(!text.contains("quoted"), "a closed model is not listed");
        parse(&text);
    });
}

#[test]
fn the_text_stays_whole_while_everything_moves() {
    in_turn(async {
        let tiny = tiny(ModelOptions { max_concurrent: 2, ..options() }).await;
        let runtime = runtime();
        let model = tiny.model.clone();
        let work = runtime.spawn(async move {
            for _ in 0..40 {
                model.generate_with("abc", exactly(10)).await.unwrap();
            }
        });
        while !work.is_finished() {
            for family in parse(&runtime.metrics_text().await).values().filter(|family| family.kind == "histogram") {
                let buckets: Vec<_> = family.samples.iter().filter(|(suffix, ..)| suffix == "_bucket").collect();
                assert!(buckets.windows(2).all(|pair| pair[0].2 <= pair[1].2));
                let count = family.samples.iter().find(|(suffix, ..)| suffix == "_count").unwrap();
                assert_eq!(buckets.last().unwrap().2, count.2);
            }
            tokio::task::yield_now().await;
        }
        work.await.unwrap();
    });
}
