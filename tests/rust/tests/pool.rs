//! Pools: leases, their order, and changes of their number.

#![forbid(unsafe_code)]

use futures_util::{FutureExt as _, StreamExt as _, future::join_all};
use mullama::{BlockingModelPool, FinishReason, KvType, ModelOptions, ModelPool, MullamaError};
use mullama_test_support::{Kind, TinyModel};
use mullama_tests::{exactly, options, run};
use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};
use tempfile::TempDir;

/// More tokens than any of these requests is let to generate.
const ENDLESS: usize = 100_000;

struct Tiny {
    pool: ModelPool,
    _dir: TempDir,
}

async fn pool_of(kind: Kind, options: ModelOptions, size: usize) -> Tiny {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tiny.gguf");
    TinyModel::new(kind).seed(7).write_to(&path).unwrap();
    Tiny { pool: ModelPool::with_options(&path, options, size).await.unwrap(), _dir: dir }
}

async fn pool(size: usize) -> Tiny {
    pool_of(Kind::Llama, ModelOptions { context_size: 65_536, timeout: None, ..options() }, size).await
}

fn closed<T: std::fmt::Debug>(result: Result<T, MullamaError>) {
    assert!(matches!(result, Err(MullamaError::Closed(_))), "{result:?}");
}

async fn until(condition: impl Fn() -> bool) {
    while !condition() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[test]
fn a_lease_is_out_from_its_acquisition_until_it_is_dropped() {
    run(async {
        let Tiny { pool, _dir } = &pool(2).await;
        let lease = pool.acquire().await.unwrap();
        assert_eq!((pool.stats().size, pool.stats().available, pool.stats().in_use), (2, 1, 1));
        assert_eq!(lease.generate_with("a", exactly(5)).await.unwrap().tokens.len(), 5);
        drop(lease);
        let stats = pool.stats();
        assert_eq!((stats.available, stats.in_use, stats.acquired_total), (2, 0, 1));
    });
}

#[test]
fn many_tasks_on_a_pool_that_is_resized_lose_nothing_and_keep_their_order() {
    run(async {
        let Tiny { pool, _dir } = pool(4).await;
        let (served, most) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicUsize::new(0)));
        // Polled in this order, so that they come in this order.
        let mut acquiring: Vec<_> = (0..64)
            .map(|_| {
                Box::pin({
                    let pool = pool.clone();
                    async move { pool.acquire().await }
                })
            })
            .collect();
        let ready: Vec<_> = acquiring.iter_mut().map(|acquire| acquire.as_mut().now_or_never()).collect();
        assert_eq!(ready.iter().filter(|lease| lease.is_some()).count(), 4);
        let tasks = ready.into_iter().zip(acquiring).enumerate().map(|(number, (ready, acquiring))| {
            let (served, most, pool) = (served.clone(), most.clone(), pool.clone());
            tokio::spawn(async move {
                let lease = match ready {
                    Some(lease) => lease.unwrap(),
                    None => acquiring.await.unwrap(),
                };
                most.fetch_max(pool.stats().in_use, Ordering::SeqCst);
                served.lock().unwrap().push(number);
                lease.generate_with(&format!("request {number}"), exactly(20)).await.unwrap().tokens.len()
            })
        });
        let tasks: Vec<_> = tasks.collect();
        until(|| served.lock().unwrap().len() >= 10).await;
        pool.resize(8).await.unwrap();
        assert_eq!(pool.stats().size, 8);
        until(|| served.lock().unwrap().len() >= 30).await;
        pool.resize(2).await.unwrap();
        until(|| pool.stats().in_use <= 2).await;
        for task in join_all(tasks).await {
            assert_eq!(task.unwrap(), 20);
        }
        let stats = pool.stats();
        assert_eq!((stats.size, stats.available, stats.in_use, stats.waiting), (2, 2, 0, 0));
        assert_eq!(stats.acquired_total, 64);
        assert!(stats.wait_ms_avg > 0.0);
        assert_eq!(most.load(Ordering::SeqCst), 8);
        // They are granted in order; several that were granted together may
        // note it in any order.
        let served = served.lock().unwrap();
        for (place, number) in served.iter().enumerate() {
            assert!(place.abs_diff(*number) <= 8, "{number} was served at place {place}: {served:?}");
        }
    });
}

#[test]
fn a_lease_never_waits_for_the_requests_of_another() {
    run(async {
        let Tiny { pool, _dir } = &pool(2).await;
        let (greedy, modest) = (pool.acquire().await.unwrap(), pool.acquire().await.unwrap());
        let mut streams = Vec::new();
        for _ in 0..3 {
            streams.push(greedy.generate_stream("a", exactly(ENDLESS).buffer_size(ENDLESS)).await.unwrap());
        }
        assert!(streams[0].next().await.unwrap().is_ok());
        assert_eq!(modest.generate_with("b", exactly(5)).await.unwrap().tokens.len(), 5);
        assert_eq!(greedy.metrics().queued, 2, "two of the three wait for their own lease's turn");
        // The second has its turn when the first has left.
        drop(streams.remove(0));
        assert!(streams[0].next().await.unwrap().is_ok());
    });
}

#[test]
fn a_lease_is_not_refused_because_another_has_filled_the_queue() {
    run(async {
        let options = ModelOptions { context_size: 65_536, max_queue: 1, timeout: None, ..options() };
        let Tiny { pool, _dir } = &pool_of(Kind::Llama, options, 2).await;
        let (greedy, modest) = (pool.acquire().await.unwrap(), pool.acquire().await.unwrap());
        let mut streams = Vec::new();
        let refused = loop {
            match greedy.generate_stream("a", exactly(ENDLESS)).await {
                Ok(stream) => streams.push(stream),
                Err(error) => break error,
            }
        };
        assert!(matches!(refused, MullamaError::QueueFull { limit: 1 }), "{refused}");
        assert_eq!(modest.generate_with("b", exactly(5)).await.unwrap().tokens.len(), 5);
        drop(streams);
    });
}

#[test]
fn a_lease_with_a_stream_under_way_is_back_when_the_stream_has_ended() {
    run(async {
        let Tiny { pool, _dir } = &pool(1).await;
        let lease = pool.acquire().await.unwrap();
        let mut stream = lease.generate_stream("a", exactly(ENDLESS)).await.unwrap();
        assert!(stream.next().await.unwrap().is_ok());
        drop(lease);
        assert_eq!(pool.stats().in_use, 1);
        let mut waiting = Box::pin(pool.acquire());
        assert!(waiting.as_mut().now_or_never().is_none());
        drop(stream);
        waiting.await.unwrap();
    });
}

#[test]
fn a_copy_of_the_model_works_only_while_the_lease_is_out() {
    run(async {
        let Tiny { pool, _dir } = &pool(1).await;
        let lease = pool.acquire().await.unwrap();
        let copy = (*lease).clone();
        copy.generate("a", 2).await.unwrap();
        assert!(copy.is_ready());
        drop(lease);
        assert!(!copy.is_ready());
        closed(copy.generate("a", 2).await);
        closed(copy.generate_stream("a", exactly(2)).await);
        closed(copy.tokenize("a", true, false));
        // The next one is not disturbed by it.
        let next = pool.acquire().await.unwrap();
        closed(copy.generate("a", 2).await);
        next.generate("a", 2).await.unwrap();
    });
}

#[test]
fn closing_the_model_of_a_lease_does_not_end_the_pool() {
    run(async {
        let Tiny { pool, _dir } = &pool(1).await;
        let lease = pool.acquire().await.unwrap();
        lease.close().await;
        closed(lease.generate("a", 2).await);
        drop(lease);
        pool.acquire().await.unwrap().generate("a", 2).await.unwrap();
    });
}

#[test]
fn a_wait_that_is_given_up_leaves_its_place_to_the_next() {
    run(async {
        let Tiny { pool, _dir } = &pool(1).await;
        let lease = pool.acquire().await.unwrap();
        let mut waits: Vec<_> = (0..3).map(|_| Box::pin(pool.acquire())).collect();
        assert!(waits.iter_mut().all(|wait| wait.as_mut().now_or_never().is_none()));
        assert_eq!(pool.stats().waiting, 3);
        drop(waits.remove(0));
        assert_eq!(pool.stats().waiting, 2);
        drop(lease);
        // Granted to the first, which is dropped before it takes the lease.
        drop(waits.remove(0));
        let lease = waits.remove(0).await.unwrap();
        assert_eq!((pool.stats().in_use, pool.stats().waiting), (1, 0));
        assert!(pool.try_acquire().unwrap().is_none());
        drop(lease);
        assert!(pool.try_acquire().unwrap().is_some());
    });
}

#[test]
fn a_wait_ends_when_its_time_is_over() {
    run(async {
        let Tiny { pool, _dir } = &pool(1).await;
        let lease = pool.acquire_timeout(Duration::ZERO).await.unwrap();
        let error = pool.acquire_timeout(Duration::from_millis(20)).await.unwrap_err();
        assert!(matches!(error, MullamaError::Timeout { after_ms: 20, .. }), "{error}");
        assert_eq!(pool.stats().waiting, 0);
        let (next, ()) = tokio::join!(pool.acquire_timeout(Duration::MAX), async { drop(lease) });
        drop(next.unwrap());
        assert_eq!(pool.stats().available, 1);
    });
}

#[test]
fn a_wait_with_a_limit_needs_no_executor_with_a_timer() {
    let Tiny { pool, _dir } = run(pool(1));
    let lease = pool.try_acquire().unwrap().unwrap();
    let error = futures_executor::block_on(pool.acquire_timeout(Duration::from_millis(5))).unwrap_err();
    assert_eq!(error.code(), "timeout");
    drop(lease);
}

#[test]
fn closing_ends_waits_and_requests_as_closed() {
    run(async {
        let Tiny { pool, _dir } = &pool(1).await;
        let lease = pool.acquire().await.unwrap();
        let (waiting, running, resizing, ()) =
            tokio::join!(pool.acquire(), lease.generate_with("a", exactly(ENDLESS)), pool.resize(1), async {
                until(|| lease.metrics().generated_tokens > 0).await;
                pool.close().await;
            });
        closed(waiting);
        closed(running);
        resizing.unwrap();
        closed(pool.acquire().await);
        closed(pool.try_acquire());
        closed(pool.resize(2).await);
        pool.close().await;
        drop(lease);
        assert_eq!(pool.stats().in_use, 0);
    });
}

#[test]
fn impossible_sizes_are_refused() {
    run(async {
        let Tiny { pool, _dir } = &pool(1).await;
        for size in [0, 257] {
            let error = pool.resize(size).await.unwrap_err();
            assert!(matches!(&error, MullamaError::InvalidInput { field, .. } if field == "size"), "{error}");
        }
        let error = ModelPool::with_options("missing.gguf", options(), 0).await.unwrap_err();
        assert_eq!(error.code(), "invalid_input");
        assert_eq!(pool.stats().size, 1);
    });
}

#[test]
fn a_pool_that_has_no_memory_to_grow_stays_as_it_is() {
    run(async {
        let options = ModelOptions { context_size: 4_000_000, timeout: None, ..options() };
        let Tiny { pool, _dir } = &pool_of(Kind::Llama, options, 1).await;
        let lease = pool.acquire().await.unwrap();
        let error = pool.resize(256).await.unwrap_err();
        assert_eq!(error.code(), "out_of_memory");
        assert_eq!(pool.stats().size, 1);
        lease.generate("a", 2).await.unwrap();
        pool.resize(2).await.unwrap();
    });
}

/// Bytes of memory that this process has.
#[cfg(target_os = "linux")]
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

#[cfg(target_os = "linux")]
#[test]
fn growing_that_is_given_up_keeps_no_memory() {
    run(async {
        let Tiny { pool, _dir } = &pool_of(Kind::Llama, ModelOptions { context_size: 4096, ..options() }, 1).await;
        // What 64 take is several times this.
        let limit = resident() + (64 << 20);
        // Before the engine came to it, and in the midst of it.
        for ms in [0, 1, 5, 20] {
            let _ = tokio::time::timeout(Duration::from_millis(ms), pool.resize(64)).await;
            if pool.stats().size == 64 {
                pool.resize(1).await.unwrap();
            }
            // Other tests take memory too, but not for ever.
            until(|| resident() < limit).await;
        }
        assert_eq!(pool.stats().size, 1);
        pool.acquire().await.unwrap().generate("a", 2).await.unwrap();
    });
}

/// Each kind of memory moves to another context and back in the middle of a
/// text, which does not notice.
#[test]
fn what_runs_goes_on_when_the_pool_is_resized() {
    for (name, kind) in Kind::ALL {
        run(async {
            // Numbers of 32 bits, so that neighbours change a token's numbers
            // by next to nothing.
            let options = ModelOptions { kv_type_k: KvType::F32, kv_type_v: KvType::F32, ..options() };
            let Tiny { pool, _dir } = &pool_of(kind, options, 2).await;
            let (first, second) = (pool.acquire().await.unwrap(), pool.acquire().await.unwrap());
            let prompt = "some words that come before ".repeat(6);
            let alone = first.generate_with(&prompt, exactly(200).logprobs(2)).await.unwrap();
            let mut stream = first.generate_stream(&prompt, exactly(200).buffer_size(1)).await.unwrap();
            let beside = second.generate_stream("beside", exactly(700)).await.unwrap();
            let mut tokens = Vec::new();
            for size in [5, 2, 3, 2] {
                for _ in 0..10 {
                    tokens.push(stream.next().await.unwrap().unwrap().token_id);
                }
                pool.resize(size).await.unwrap();
                until(|| pool.stats().size == size).await;
            }
            while let Some(token) = stream.next().await {
                tokens.push(token.unwrap().token_id);
            }
            assert_eq!(tokens.len(), 200, "{name}");
            assert_eq!(stream.finish_reason(), Some(FinishReason::Length));
            // Near-ties may still fall either way; up to the first one the
            // tokens are the same.
            let mut compared = 0;
            for (place, want) in alone.logprobs.unwrap().iter().enumerate() {
                if want.top[0].logprob - want.top[1].logprob < 0.001 {
                    break;
                }
                assert_eq!(tokens[place], want.token_id, "{name} at {place}");
                compared += 1;
            }
            assert!(compared > 45, "{name}: only {compared} tokens tell anything");
            // Nothing was computed twice: the memory moved.
            assert!(first.metrics().prompt_tokens < 600, "{name}");
            drop(beside);
        });
    }
}

#[test]
fn threads_share_a_blocking_pool() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tiny.gguf");
    TinyModel::llama().seed(7).write_to(&path).unwrap();
    let pool = BlockingModelPool::new(&path, options(), 2).unwrap();
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let model = pool.acquire().unwrap();
                assert_eq!(model.generate_with("a", exactly(10)).unwrap().tokens.len(), 10);
            });
        }
    });
    assert_eq!((pool.stats().acquired_total, pool.stats().available), (8, 2));
    pool.resize(1).unwrap();
    let lease = pool.try_acquire().unwrap().unwrap();
    assert!(pool.try_acquire().unwrap().is_none());
    assert_eq!(pool.acquire_timeout(Duration::from_millis(5)).unwrap_err().code(), "timeout");
    thread::scope(|scope| {
        let waiting = scope.spawn(|| pool.acquire());
        while pool.stats().waiting == 0 {
            thread::yield_now();
        }
        pool.close();
        closed(waiting.join().unwrap());
    });
    closed(lease.generate("a", 2));
}
