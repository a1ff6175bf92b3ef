//! Decoding beside a busy neighbour: with the threads that the engine chooses,
//! and with a single one, in alternation.

use crate::{Result, TOPICS, exactly, load::Load, story};
use futures_util::{StreamExt, future::join_all};
use mullama::{AsyncModel, ModelOptions};
use serde_json::{Map, Value, json};
use std::time::{Duration, Instant};
use tokio::time::sleep;

const ROUNDS: usize = 3;
const TOKENS: usize = 64;

const LOADS: [Load; 6] =
    [Load::Quiet, Load::Threads(1), Load::Process, Load::Threads(2), Load::Flicker(50, 100), Load::Flicker(10, 50)];

/// Generated tokens per second of `n_requests` at once under each load: the
/// median of the rounds. The load is there a little before each measurement,
/// and the engine has been quiet before it, so what it takes to notice counts.
pub(crate) async fn busy(path: &str, n_requests: usize) -> Result<Value> {
    let options = ModelOptions { max_concurrent: n_requests, context_size: 512, ..ModelOptions::default() };
    let adaptive = AsyncModel::load_with(path, options.clone()).await?;
    let single = AsyncModel::load_with(path, ModelOptions { threads: 1, ..options }).await?;
    for model in [&adaptive, &single] {
        rate(model, n_requests).await?;
    }
    let mut result = Map::new();
    for load in LOADS {
        let mut rates = [Vec::new(), Vec::new()];
        for _ in 0..ROUNDS {
            for (model, rates) in [&adaptive, &single].into_iter().zip(&mut rates) {
                // Until the threads of the last round are back.
                sleep(Duration::from_millis(50)).await;
                let running = load.start()?;
                sleep(Duration::from_millis(20)).await;
                rates.push(rate(model, n_requests).await?);
                drop(running);
            }
        }
        let [adaptive, single] = rates.map(median);
        result.insert(
            load.name(),
            json!({
                "tokens_per_second": round(adaptive),
                "one_thread_tokens_per_second": round(single),
            }),
        );
    }
    adaptive.close().await;
    single.close().await;
    Ok(result.into())
}

async fn rate(model: &AsyncModel, n_requests: usize) -> Result<f64> {
    let prompts: Vec<String> = TOPICS[..n_requests].iter().map(|topic| story(topic)).collect();
    let start = Instant::now();
    let answers = join_all(prompts.iter().map(|prompt| model.generate_with(prompt, exactly(TOKENS)))).await;
    let elapsed = start.elapsed().as_secs_f64();
    let tokens: usize = answers.into_iter().map(|answer| answer.map_or(0, |a| a.usage.completion_tokens)).sum();
    Ok(tokens as f64 / elapsed)
}

/// How long after the begin of a load the engine uses fewer threads, and after
/// its end all of them again, and ten tokens in a row come at nine tenths of
/// the quiet speed: the longest of the rounds.
pub(crate) async fn recovery(path: &str) -> Result<Value> {
    let options = ModelOptions { max_concurrent: 1, context_size: 8192, ..ModelOptions::default() };
    let model = AsyncModel::load_with(path, options).await?;
    rate(&model, 1).await?;
    let threads = model.metrics().threads;
    let (mut noticed, mut back, mut quick) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let mut stream = model.generate_stream("Once upon a time", exactly(2000)).await?;
        let quiet = times(&mut stream, 40).await?;
        let quiet = (quiet[39] - quiet[9]).as_secs_f64() / 30.0;
        let load = Load::Threads(1).start()?;
        let start = Instant::now();
        while model.metrics().threads == threads && start.elapsed() < Duration::from_secs(5) {
            times(&mut stream, 1).await?;
        }
        noticed.push(start.elapsed());
        times(&mut stream, 40).await?;
        drop(load);
        let end = Instant::now();
        let mut is_back = None;
        let mut window = times(&mut stream, 10).await?;
        loop {
            window.extend(times(&mut stream, 1).await?);
            window.remove(0);
            if is_back.is_none() && model.metrics().threads == threads {
                is_back = Some(end.elapsed());
            }
            let pace = (window[9] - window[0]).as_secs_f64() / 9.0;
            if pace * 0.9 <= quiet || end.elapsed() > Duration::from_secs(5) {
                break;
            }
        }
        quick.push(end.elapsed());
        back.push(is_back.unwrap_or_else(|| end.elapsed()));
    }
    model.close().await;
    let longest = |times: Vec<Duration>| times.iter().max().map(|time| round(time.as_secs_f64() * 1e3));
    Ok(json!({
        "fewer_threads_after_ms": longest(noticed),
        "all_threads_after_ms": longest(back),
        "quiet_speed_after_ms": longest(quick),
    }))
}

/// Tokens per second of each of two engines that decode at once, and of one
/// alone.
pub(crate) async fn two_engines(path: &str) -> Result<Value> {
    let options = ModelOptions { max_concurrent: 1, context_size: 512, ..ModelOptions::default() };
    let first = AsyncModel::load_with(path, options.clone()).await?;
    let second = AsyncModel::load_with(path, options).await?;
    let mut alone = Vec::new();
    let mut both = Vec::new();
    for model in [&first, &second] {
        rate(model, 1).await?;
    }
    for _ in 0..ROUNDS {
        alone.push(rate(&first, 1).await?);
        let (a, b) = tokio::join!(long_rate(&first), long_rate(&second));
        both.push((a?, b?));
        sleep(Duration::from_millis(500)).await;
    }
    first.close().await;
    second.close().await;
    Ok(json!({
        "alone_tokens_per_second": round(median(alone)),
        "slower_of_both_tokens_per_second": round(median(both.iter().map(|(a, b)| a.min(*b)).collect())),
        "faster_of_both_tokens_per_second": round(median(both.iter().map(|(a, b)| a.max(*b)).collect())),
    }))
}

async fn long_rate(model: &AsyncModel) -> Result<f64> {
    let start = Instant::now();
    let answer = model.generate_with("Once upon a time", exactly(200)).await?;
    Ok(answer.usage.completion_tokens as f64 / start.elapsed().as_secs_f64())
}

/// When each of the next `n` tokens came.
async fn times(stream: &mut mullama::TokenStream, n: usize) -> Result<Vec<Instant>> {
    let mut times = Vec::with_capacity(n);
    for _ in 0..n {
        stream.next().await.ok_or("the stream ended")??;
        times.push(Instant::now());
    }
    Ok(times)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn round(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}
