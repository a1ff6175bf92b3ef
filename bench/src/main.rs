//! Measures the Rust API on a real model: `mullama-bench MODEL.gguf WORKLOAD…`.
//! Prints one JSON object a workload. The figures depend on the machine: only
//! ratios to something measured in the same minutes mean anything.

#![forbid(unsafe_code)]

mod busy;
mod load;
mod pool;

use futures_util::{StreamExt, future::join_all};
use mullama::{AsyncModel, ModelOptions, StreamConfig};
use serde_json::{Value, json};
use std::{
    env,
    error::Error,
    time::{Duration, Instant},
};
use tokio::time::sleep;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const TOPICS: [&str; 16] = [
    "rust",
    "python",
    "the sea",
    "a cat",
    "mountains",
    "a castle",
    "coffee",
    "music",
    "trains",
    "winter",
    "robots",
    "gardens",
    "stars",
    "a river",
    "bread",
    "chess",
];

fn story(topic: &str) -> String {
    format!("Write a long and detailed story about {topic}. Once upon a time")
}

/// About `n` tokens of text that no cache has seen.
fn long_prompt(n: usize, salt: usize) -> String {
    let words = "the quick brown fox jumps over the lazy dog while seven wizards boil green tea near a quiet river";
    let words: Vec<&str> = words.split(' ').collect();
    // A word with a digit is about two of SmolLM2's tokens.
    (0..n / 2).map(|i| format!("{}{} ", words[(i + salt) % words.len()], (i + salt) % 7)).collect()
}

/// Greedy, of exactly `n` tokens.
fn exactly(n: usize) -> StreamConfig {
    StreamConfig::new().max_tokens(n).temperature(0.0).ignore_eos(true).timeout(Duration::from_secs(600))
}

const USAGE: &str = "usage: mullama-bench MODEL.gguf [throughput|gap|cancel]…
       mullama-bench MODEL.gguf busy-1|busy-16|recovery|two-engines|leases|memory-N";

#[tokio::main]
async fn main() -> Result<()> {
    let mut args = env::args().skip(1);
    let path = args.next().ok_or(USAGE)?;
    if path == load::SPIN {
        // Ended by the one who started it, or, should that fail, by itself.
        load::spin_for(Duration::from_secs(120));
        return Ok(());
    }
    let mut workloads: Vec<String> = args.collect();
    if workloads.is_empty() {
        workloads = ["throughput", "gap", "cancel"].map(str::to_owned).to_vec();
    }
    let print = |workload: &str, result: Value| {
        println!("{}", json!({ "system": "mullama (Rust)", "workload": workload, "result": result }));
    };
    if let [workload] = workloads.as_slice()
        && let Some(result) = with_own_model(&path, workload).await?
    {
        print(workload, result);
        return Ok(());
    }
    let options = ModelOptions { max_concurrent: 16, context_size: 8192, ..ModelOptions::default() };
    let model = AsyncModel::load_with(&path, options).await?;
    model.generate_with("warm up", exactly(8)).await?;
    for workload in workloads {
        let result = match workload.as_str() {
            "throughput" => throughput(&model).await?,
            "gap" => gap(&model).await?,
            "cancel" => cancel(&model).await?,
            other => return Err(format!("unknown workload '{other}'").into()),
        };
        print(&workload, result);
    }
    model.close().await;
    Ok(())
}

/// The workloads that load a model in their own way; `None` for others.
async fn with_own_model(path: &str, workload: &str) -> Result<Option<Value>> {
    Ok(Some(match workload.split_once('-') {
        Some(("memory", size)) => pool::memory(path, size.parse()?).await?,
        Some(("busy", n_requests)) => busy::busy(path, n_requests.parse()?).await?,
        _ if workload == "leases" => pool::leases(path).await?,
        _ if workload == "recovery" => busy::recovery(path).await?,
        _ if workload == "two-engines" => busy::two_engines(path).await?,
        _ => return Ok(None),
    }))
}

/// Generated tokens per second of `k` requests of 64 tokens at once, prefill
/// included; the best of three rounds.
async fn throughput(model: &AsyncModel) -> Result<Value> {
    let mut result = serde_json::Map::new();
    for k in [1, 4, 16] {
        let mut best = 0.0_f64;
        for _ in 0..3 {
            let prompts: Vec<String> = TOPICS[..k].iter().map(|topic| story(topic)).collect();
            let start = Instant::now();
            let answers = join_all(prompts.iter().map(|prompt| model.generate_with(prompt, exactly(64)))).await;
            let elapsed = start.elapsed().as_secs_f64();
            let tokens: usize = answers.into_iter().map(|answer| answer.map_or(0, |a| a.usage.completion_tokens)).sum();
            best = best.max(tokens as f64 / elapsed);
        }
        result.insert(format!("{k}_at_once_tokens_per_second"), json!((best * 10.0).round() / 10.0));
    }
    Ok(result.into())
}

/// The longest gap of a running stream while a 2,000-token prompt is
/// prefilled, and the first token of a 3-token prompt that comes 0.3 s later.
async fn gap(model: &AsyncModel) -> Result<Value> {
    let mut stream = model.generate_stream("Once upon a time", exactly(500)).await?;
    let long = {
        let model = model.clone();
        tokio::spawn(async move {
            sleep(Duration::from_millis(800)).await;
            let start = Instant::now();
            let answer = model.generate_with(&long_prompt(2000, 3), exactly(4)).await;
            (start.elapsed(), answer.map(|answer| answer.usage.prompt_tokens))
        })
    };
    let mut last = Instant::now();
    let mut longest = Duration::ZERO;
    let mut n = 0;
    while let Some(token) = stream.next().await {
        token?;
        n += 1;
        if n > 1 {
            longest = longest.max(last.elapsed());
        }
        last = Instant::now();
    }
    let (took, prompt_tokens) = long.await?;

    let long = {
        let model = model.clone();
        tokio::spawn(async move { model.generate_with(&long_prompt(2000, 5), exactly(4)).await })
    };
    sleep(Duration::from_millis(300)).await;
    let start = Instant::now();
    let mut short = model.generate_stream("Hello there", exactly(4)).await?;
    let _ = short.next().await;
    let first_token = start.elapsed();
    long.await??;

    let start = Instant::now();
    model.generate_with(&long_prompt(2000, 9), exactly(4)).await?;
    let undisturbed = start.elapsed();
    Ok(json!({
        "prompt_tokens": prompt_tokens?,
        "longest_gap_ms": longest.as_millis() as u64,
        "long_prompt_beside_a_stream_ms": took.as_millis() as u64,
        "long_prompt_alone_ms": undisturbed.as_millis() as u64,
        "short_prompt_first_token_ms": first_token.as_millis() as u64,
    }))
}

/// From a cancellation until the engine is idle, in each phase of a request.
async fn cancel(model: &AsyncModel) -> Result<Value> {
    let mut prefill = Vec::new();
    let mut decode = Vec::new();
    let mut queued = Vec::new();
    for round in 0..20 {
        let prompt = long_prompt(4000, round);
        let stream = model.generate_stream(&prompt, exactly(64)).await?;
        sleep(Duration::from_millis(100 + 37 * round as u64)).await;
        prefill.push(until_idle(model, || drop(stream)).await);

        let mut stream = model.generate_stream("Once upon a time", exactly(4000)).await?;
        stream.next().await.ok_or("no token")??;
        decode.push(until_idle(model, || drop(stream)).await);

        let running: Vec<_> = join_all((0..17).map(|_| model.generate_stream("Once upon a time", exactly(4000)))).await;
        sleep(Duration::from_millis(50)).await;
        queued.push(until_idle(model, || drop(running)).await);
    }
    let summary = |mut times: Vec<Duration>| {
        times.sort();
        json!({ "median_ms": times[times.len() / 2].as_secs_f64() * 1e3, "max_ms": times[times.len() - 1].as_secs_f64() * 1e3 })
    };
    Ok(
        json!({ "in_prefill": summary(prefill), "in_decode": summary(decode), "seventeen_one_of_them_queued": summary(queued) }),
    )
}

async fn until_idle(model: &AsyncModel, cancel: impl FnOnce()) -> Duration {
    let start = Instant::now();
    cancel();
    loop {
        let metrics = model.metrics();
        if metrics.active == 0 && metrics.queued == 0 {
            return start.elapsed();
        }
        sleep(Duration::from_millis(1)).await;
    }
}
