//! mullama from Rust, as a system of the side-by-side benchmark:
//! `bench-rows JOB.json`. The job and the workloads are those of
//! `bench/systems/host.py`; one JSON object a workload goes to standard output.

#![forbid(unsafe_code)]

use futures_util::{StreamExt, future::try_join_all};
use mullama::{AsyncModel, ModelOptions, StreamConfig, TokenStream};
use serde_json::{Value, json};
use std::{
    env,
    error::Error,
    fs,
    time::{Duration, Instant},
};
use tokio::time::sleep;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const TOKENS: usize = 64;
const FEWER_TOKENS: usize = 32;

/// Greedy, of exactly `n` tokens.
fn exactly(n: usize) -> StreamConfig {
    StreamConfig::new().max_tokens(n).temperature(0.0).ignore_eos(true).timeout(Duration::from_secs(600))
}

#[tokio::main]
async fn main() -> Result<()> {
    let path = env::args().nth(1).ok_or("usage: bench-rows JOB.json")?;
    let job: Value = serde_json::from_str(&fs::read_to_string(path)?)?;
    let texts: Value = serde_json::from_str(&fs::read_to_string(string(&job["texts"])?)?)?;
    let options = ModelOptions {
        max_concurrent: whole(&job["at_once"])?,
        context_size: whole(&job["context"])?,
        threads: whole(&job["threads"])?,
        prompt_lookup: job["prompt_lookup"].as_bool().ok_or("no prompt_lookup")?,
        ..ModelOptions::default()
    };
    let start = Instant::now();
    let model = AsyncModel::load_with(string(&job["model"])?, options).await?;
    let loaded = start.elapsed().as_secs_f64();
    let workloads: Vec<&str> =
        job["workloads"].as_array().ok_or("no workloads")?.iter().filter_map(Value::as_str).collect();
    if workloads != ["load"] {
        model.generate_with("warm up", exactly(8)).await?;
    }
    for workload in workloads {
        let (name, count) = workload.split_once('-').unwrap_or((workload, "1"));
        let count: usize = count.parse()?;
        let mut result = match name {
            "load" => json!({ "seconds": loaded, "resident_mib": resident_mib()? }),
            // Beside a busy core some systems are too slow for more.
            "single" | "plain" => single(&model, &texts, 3).await?,
            "busy_single" => single(&model, &texts, 1).await?,
            "at_once" if count <= 16 => at_once(&model, &texts, count, TOKENS).await?,
            "at_once" | "busy" => at_once(&model, &texts, count, FEWER_TOKENS).await?,
            "gap" => gap(&model, &texts).await?,
            "cancel" => cancel(&model, &texts, count).await?,
            other => return Err(format!("there is no workload '{other}'").into()),
        };
        result["workload"] = json!(workload);
        println!("{result}");
    }
    model.close().await;
    Ok(())
}

fn string(value: &Value) -> Result<&str> {
    value.as_str().ok_or_else(|| format!("{value} is no text").into())
}

fn whole(value: &Value) -> Result<usize> {
    Ok(usize::try_from(value.as_u64().ok_or_else(|| format!("{value} is no number"))?)?)
}

fn resident_mib() -> Result<f64> {
    let pages: f64 = fs::read_to_string("/proc/self/statm")?.split(' ').nth(1).ok_or("no number")?.parse()?;
    Ok(pages * 4096.0 / 1_048_576.0)
}

/// A request streamed to its end: when it was submitted, and when each of its
/// tokens arrived.
async fn ask(model: &AsyncModel, prompt: &str, tokens: usize) -> Result<(Instant, Vec<Instant>)> {
    let start = Instant::now();
    let stream = model.generate_stream(prompt, exactly(tokens)).await?;
    Ok((start, arrivals(stream).await?))
}

async fn arrivals(mut stream: TokenStream) -> Result<Vec<Instant>> {
    let mut times = Vec::new();
    while let Some(token) = stream.next().await {
        token?;
        times.push(Instant::now());
    }
    Ok(times)
}

fn first_ms((start, times): &(Instant, Vec<Instant>)) -> Result<f64> {
    Ok((*times.first().ok_or("no token")? - *start).as_secs_f64() * 1e3)
}

async fn single(model: &AsyncModel, texts: &Value, times: usize) -> Result<Value> {
    let mut speeds = Vec::new();
    for n in 0..times {
        let start = Instant::now();
        ask(model, string(&texts["short"][n])?, TOKENS).await?;
        speeds.push(TOKENS as f64 / start.elapsed().as_secs_f64());
    }
    speeds.sort_by(f64::total_cmp);
    Ok(json!({ "tokens_per_second": speeds[times / 2] }))
}

async fn at_once(model: &AsyncModel, texts: &Value, count: usize, tokens: usize) -> Result<Value> {
    let prompts = (count..2 * count).map(|n| string(&texts["short"][n])).collect::<Result<Vec<_>>>()?;
    let start = Instant::now();
    let answers = try_join_all(prompts.into_iter().map(|prompt| ask(model, prompt, tokens))).await?;
    let speed = (count * tokens) as f64 / start.elapsed().as_secs_f64();
    let firsts = answers.iter().map(first_ms).collect::<Result<Vec<_>>>()?;
    Ok(json!({ "tokens_per_second": speed, "slowest_first_ms": firsts.into_iter().fold(0.0, f64::max) }))
}

/// A tiny prompt behind a long prefill; a running stream under another one,
/// between two alone.
async fn gap(model: &AsyncModel, texts: &Value) -> Result<Value> {
    let long = |n: usize| string(&texts["long"][n]);
    let (behind, tiny) = tokio::join!(ask(model, long(0)?, 4), async {
        sleep(Duration::from_millis(300)).await;
        ask(model, string(&texts["tiny"])?, 4).await
    });
    behind?;

    let before = first_ms(&ask(model, long(1)?, 4).await?)?;
    let mut running = model.generate_stream(string(&texts["short"][0])?, exactly(1000)).await?;
    for _ in 0..16 {
        running.next().await.ok_or("no token")??;
    }
    let mut last = Instant::now();
    let mut longest = Duration::ZERO;
    let beside = {
        let prefill = ask(model, long(2)?, 4);
        tokio::pin!(prefill);
        loop {
            tokio::select! {
                biased;
                token = running.next() => {
                    token.ok_or("the running stream ended")??;
                    longest = longest.max(last.elapsed());
                    last = Instant::now();
                }
                done = &mut prefill => break first_ms(&done?)?,
            }
        }
    };
    drop(running);
    let alone = f64::midpoint(before, first_ms(&ask(model, long(3)?, 4).await?)?);
    Ok(json!({
        "longest_gap_ms": longest.as_secs_f64() * 1e3,
        "prefill_beside_ms": beside,
        "prefill_alone_ms": alone,
        "prefill_ratio": beside / alone,
        "tiny_first_ms": first_ms(&tiny?)?,
    }))
}

/// From a cancellation in a prefill until the engine says that it is idle.
async fn cancel(model: &AsyncModel, texts: &Value, times: usize) -> Result<Value> {
    let prompts = texts["longer"].as_array().ok_or("no prompts")?;
    let mut idle = Vec::new();
    for n in 0..times {
        let stream = model.generate_stream(string(&prompts[n % prompts.len()])?, exactly(8)).await?;
        sleep(Duration::from_millis(200 + 37 * n as u64)).await;
        let start = Instant::now();
        drop(stream);
        loop {
            let metrics = model.metrics();
            if metrics.active == 0 && metrics.queued == 0 {
                break;
            }
            sleep(Duration::from_millis(1)).await;
        }
        idle.push(start.elapsed().as_secs_f64() * 1e3);
    }
    Ok(json!({ "idle_ms": idle }))
}
