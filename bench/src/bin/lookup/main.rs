//! What prompt lookup gains: texts that repeat their prompt and texts that do
//! not, with and without it in alternation, beside what the best possible
//! lookup would gain.
//!
//! `lookup MODEL [ROUNDS [TOKENS [deterministic]]]`

mod oracle;
mod texts;

use mullama::{AsyncContext, AsyncModel, Batch, ContextOptions, Generation, ModelOptions, MullamaError, StreamConfig};
use oracle::Costs;
use std::{env, sync::Arc, time::Instant};
use texts::{Kind, TEXTS};

/// Most rows of a step whose cost is measured.
const MAX_ROWS: usize = 16;

#[tokio::main]
async fn main() -> Result<(), MullamaError> {
    let mut arguments = env::args().skip(1);
    let path = arguments.next().unwrap_or_default();
    let mut number = |default| arguments.next().and_then(|n| n.parse().ok()).unwrap_or(default);
    let (rounds, tokens) = (number(3), number(96));
    let deterministic = arguments.next().is_some();
    let load = |prompt_lookup| ModelOptions { prompt_lookup, deterministic, ..ModelOptions::default() };
    let off = Arc::new(AsyncModel::load_with(&path, load(false)).await?);
    let on = AsyncModel::load_with(&path, load(true)).await?;

    let costs = costs(&off).await?;
    let relative: Vec<String> = costs.iter().map(|cost| format!("{:.2}", cost / costs[0])).collect();
    println!("a plain step takes {:.1} ms; steps of 1 to {MAX_ROWS} rows, in plain steps:", costs[0] * 1e3);
    println!("{}", relative.join(" "));
    println!("the limit of any drafting: {:.2}", (MAX_ROWS as f64) * costs[0] / costs[MAX_ROWS - 1]);

    println!(
        "\ntext                half   off    on   ratio  guessed right  tokens  best possible after 1, 2, 3 tokens"
    );
    let mut ratios = Vec::new();
    for text in TEXTS {
        let mut rates = [Vec::new(), Vec::new()];
        let before = on.metrics();
        let mut answer = None;
        for _ in 0..rounds {
            for (model, rates) in [&*off, &on].into_iter().zip(&mut rates) {
                let (generation, rate) = decode(model, &text.prompt(), tokens, text.kind == Kind::New).await?;
                rates.push(rate);
                answer.get_or_insert(generation);
            }
        }
        let [rate_off, rate_on] = rates.map(median);
        let now = on.metrics();
        let (n_drafted, n_right) =
            (now.drafted_tokens - before.drafted_tokens, now.accepted_tokens - before.accepted_tokens);
        let Some(answer) = answer else { break };
        let mut known = off.tokenize_async(&text.prompt(), true).await?;
        let n_prompt = known.len();
        known.extend(&answer.tokens);
        let best = [1, 2, 3].map(|gram| format!("{:.2}", oracle::best_gain(&known, n_prompt, gram, &costs)));
        println!(
            "{:19} {:4} {rate_off:6.1} {rate_on:6.1}  {:5.2} {n_drafted:8} {n_right:6} {:6}   {}",
            text.name,
            text.half,
            rate_on / rate_off,
            answer.tokens.len(),
            best.join(" ")
        );
        if env::var_os("ANSWERS").is_some() {
            println!("    {:?}", answer.text);
        }
        ratios.push((text.kind, text.half, rate_on / rate_off));
    }
    for kind in [Kind::Repeats, Kind::New] {
        for half in [0, 1] {
            let of_these = ratios.iter().filter(|ratio| (ratio.0, ratio.1) == (kind, half)).map(|ratio| ratio.2);
            let (n, product) = of_these.fold((0, 1.0), |(n, product), ratio| (n + 1, product * ratio));
            println!("{kind:?}, half {half}: mean ratio {:.3}", f64::powf(product, 1.0 / f64::from(n)));
        }
    }
    Ok(())
}

/// A greedy answer, and its tokens a second after the first one.
async fn decode(model: &AsyncModel, prompt: &str, n: usize, on: bool) -> Result<(Generation, f64), MullamaError> {
    let config = StreamConfig::new().max_tokens(n).temperature(0.0).repeat_penalty(1.0).ignore_eos(on);
    let started = Instant::now();
    let answer = model.generate_with(prompt, config).await?;
    let decode = started.elapsed() - answer.timings.time_to_first_token;
    let rate = (answer.usage.completion_tokens - 1) as f64 / decode.as_secs_f64();
    Ok((answer, rate))
}

/// Seconds of steps of one sequence by their number of rows, all of which give
/// logits: medians.
async fn costs(model: &Arc<AsyncModel>) -> Result<Costs, MullamaError> {
    const DEPTH: usize = 200;
    const TIMES: usize = 15;
    let mut context = AsyncContext::with_options(model.clone(), ContextOptions::default()).await?;
    let tokens: Vec<i32> = (0..DEPTH as i32).map(|n| 1000 + n * 7).collect();
    let mut prompt = Batch::new();
    prompt.add_sequence(0, &tokens);
    context.process_batch(vec![prompt]).await?;
    let mut times = vec![Vec::new(); MAX_ROWS];
    for _ in 0..TIMES {
        for (index, times) in times.iter_mut().enumerate() {
            let mut batch = Batch::new();
            for row in 0..=index {
                batch.add(2000 + row as i32, DEPTH + row, &[0], true);
            }
            let started = Instant::now();
            context.process_batch(vec![batch]).await?;
            times.push(started.elapsed().as_secs_f64());
            context.truncate(DEPTH).await?;
        }
    }
    Ok(times.into_iter().map(median).collect())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
