//! What `deterministic` costs: prefill, and decode at 1 and at 16 requests,
//! with and without it in alternation. Prints tokens a second.
//!
//! `deterministic MODEL [ROUNDS]`

use futures_util::future::try_join_all;
use mullama::{AsyncModel, ModelOptions, MullamaError, StreamConfig};
use std::{env, time::Instant};

const AT_ONCE: usize = 16;
const TOKENS: usize = 48;

#[tokio::main]
async fn main() -> Result<(), MullamaError> {
    let mut arguments = env::args().skip(1);
    let path = arguments.next().unwrap_or_default();
    let rounds = arguments.next().and_then(|n| n.parse().ok()).unwrap_or(3);
    let load = |deterministic| ModelOptions {
        deterministic,
        prompt_lookup: false,
        prefix_cache_bytes: Some(0),
        context_size: 1024,
        max_concurrent: AT_ONCE,
        ..ModelOptions::default()
    };
    let models = [AsyncModel::load_with(&path, load(false)).await?, AsyncModel::load_with(&path, load(true)).await?];
    let mut rates: [[Vec<f64>; 3]; 2] = Default::default();
    for round in 0..rounds {
        for (model, rates) in models.iter().zip(&mut rates) {
            rates[0].push(prefill(model, round).await?);
            rates[1].push(decode(model, 1).await?);
            rates[2].push(decode(model, AT_ONCE).await?);
        }
    }
    let [off, on] = rates.map(|rates| {
        rates.map(|mut rates| {
            rates.sort_by(f64::total_cmp);
            rates[rates.len() / 2]
        })
    });
    for (index, name) in ["prefill of 700", "decode at 1", "decode at 16"].into_iter().enumerate() {
        println!("{name:15} off {:6.1}  on {:6.1}  ratio {:.2}", off[index], on[index], on[index] / off[index]);
    }
    Ok(())
}

fn greedy(n: usize) -> StreamConfig {
    StreamConfig::new().max_tokens(n).temperature(0.0).ignore_eos(true)
}

async fn prefill(model: &AsyncModel, round: usize) -> Result<f64, MullamaError> {
    let prompt: String = (0..220).map(|n| format!(" {}", (n * 37 + round) % 90 + 10)).collect();
    let answer = model.generate_with(&prompt, greedy(1)).await?;
    Ok(answer.usage.prompt_tokens as f64 / answer.timings.time_to_first_token.as_secs_f64())
}

async fn decode(model: &AsyncModel, n: usize) -> Result<f64, MullamaError> {
    let prompts: Vec<String> = (0..n).map(|n| format!("{n}: Once upon a time")).collect();
    let started = Instant::now();
    let answers = try_join_all(prompts.iter().map(|prompt| model.generate_with(prompt, greedy(TOKENS)))).await?;
    let first = answers.iter().map(|answer| answer.timings.time_to_first_token).max().unwrap_or_default();
    Ok((n * (TOKENS - 1)) as f64 / (started.elapsed() - first).as_secs_f64())
}
