//! What a pool costs: the time of a lease, and the memory of its size.

use crate::{Result, exactly};
use futures_util::future::try_join_all;
use mullama::{ModelOptions, ModelPool};
use serde_json::{Value, json};
use std::{fs, time::Instant};

/// Leases taken and given back one after the other, and by two tasks that
/// pass a single one to and fro.
pub(crate) async fn leases(path: &str) -> Result<Value> {
    const N: u32 = 100_000;
    let pool = ModelPool::with_options(path, ModelOptions { context_size: 64, ..ModelOptions::default() }, 1).await?;
    let start = Instant::now();
    for _ in 0..N {
        drop(pool.acquire().await?);
    }
    let alone = start.elapsed() / N;
    let pass = || {
        let pool = pool.clone();
        tokio::spawn(async move {
            for _ in 0..N / 2 {
                let lease = pool.acquire().await?;
                // The other one waits for it by now.
                tokio::task::yield_now().await;
                drop(lease);
            }
            Ok::<_, mullama::MullamaError>(())
        })
    };
    let start = Instant::now();
    for task in [pass(), pass()] {
        task.await??;
    }
    let passed = start.elapsed() / N;
    pool.close().await;
    Ok(json!({
        "acquire_and_release_us": alone.as_secs_f64() * 1e6,
        "passed_from_task_to_task_us": passed.as_secs_f64() * 1e6,
    }))
}

/// Resident memory of this process with a pool of that size, each lease of
/// which has generated something. To be called once in a process.
pub(crate) async fn memory(path: &str, size: usize) -> Result<Value> {
    const CONTEXT_SIZE: usize = 2048;
    let options = ModelOptions { context_size: CONTEXT_SIZE, ..ModelOptions::default() };
    let pool = ModelPool::with_options(path, options, size).await?;
    let leases = try_join_all((0..size).map(|_| pool.acquire())).await?;
    try_join_all(leases.iter().map(|lease| lease.generate_with("Once upon a time", exactly(32)))).await?;
    // What one token takes, told by the engine while it holds some.
    let mut stream = leases[0].generate_stream("Once upon a time", exactly(64).buffer_size(1)).await?;
    let cache = loop {
        futures_util::StreamExt::next(&mut stream).await.ok_or("the stream ended")??;
        let usage = stream.usage();
        let bytes = leases[0].metrics().cache_bytes;
        let held = (usage.prompt_tokens + usage.completion_tokens - 1) as u64;
        if bytes > 0 && bytes % held == 0 {
            break bytes / held * (CONTEXT_SIZE * size) as u64;
        }
    };
    Ok(json!({ "size": size, "resident_bytes": resident_bytes()?, "kv_cache_bytes": cache }))
}

fn resident_bytes() -> Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).ok_or("no VmRSS")?;
    let kib: u64 = line.split_whitespace().nth(1).ok_or("no number")?.parse()?;
    Ok(kib * 1024)
}
