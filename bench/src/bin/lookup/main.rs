//! What prompt lookup gains: texts that repeat their prompt and texts that do
//! not, with and without it in alternation, beside what the same guesses would
//! gain without noise and what the best possible lookup would.
//!
//! `lookup MODEL [BLOCKS [TOKENS [TEXTS [deterministic]]]]`, where `TEXTS` is
//! `all`, a half (`0`, `1`), a kind (`repeats`, `new`), both (`new 1`) or
//! names, parted by commas.

mod costs;
#[path = "../../../../core/src/engine/curve.rs"]
mod curve;
#[path = "../../../../core/src/engine/lookup.rs"]
mod lookup;
mod oracle;
mod replay;
mod texts;

use costs::{Costs, MAX_ROWS, median};
use mullama::{AsyncModel, Generation, ModelOptions, MullamaError, StreamConfig};
use std::{env, sync::Arc, time::Instant};
use texts::{HALVES, Kind, TEXTS};

/// As the core's, whose files for lookup are compiled here too.
type TokenId = i32;

/// What the requests of one text said.
struct Measured {
    answer: Generation,
    /// Whether each answer was the same.
    same: bool,
    /// Seconds a token after the first one, without and with lookup: medians.
    seconds: [f64; 2],
    /// How much faster decode was, by block.
    ratios: Vec<f64>,
    /// The same of whole requests.
    whole: Vec<f64>,
}

#[tokio::main]
async fn main() -> Result<(), MullamaError> {
    let mut arguments = env::args().skip(1);
    let path = arguments.next().unwrap_or_default();
    let mut number = |default| arguments.next().and_then(|n| n.parse().ok()).unwrap_or(default);
    let (blocks, tokens) = (number(3), number(96));
    let wanted = arguments.next().unwrap_or_else(|| "all".to_owned());
    let deterministic = arguments.next().is_some();
    let load = |prompt_lookup| ModelOptions { prompt_lookup, deterministic, ..ModelOptions::default() };
    let off = Arc::new(AsyncModel::load_with(&path, load(false)).await?);
    let on = AsyncModel::load_with(&path, load(true)).await?;

    const STEPS: usize = 48;
    let mut steps = Vec::new();
    for text in TEXTS.iter().filter(|text| text.kind == Kind::New) {
        let config = StreamConfig::new().max_tokens(STEPS + 1).temperature(0.0).ignore_eos(true);
        let timings = off.generate_with(&text.prompt(), config).await?.timings;
        steps.push(timings.decode.as_secs_f64() / STEPS as f64);
    }
    let costs = Costs::measure(&off, median(steps)).await?;
    let relative: Vec<String> = (1..=MAX_ROWS).map(|n_rows| format!("{:.2}", costs.of(n_rows))).collect();
    println!("steps of 1 to {MAX_ROWS} rows of one sequence, in plain steps:\n{}", relative.join(" "));
    println!("a step after one of another size costs {:.2} more", costs.change);
    println!("the limit of any drafting: {:.2}\n", MAX_ROWS as f64 / costs.of(MAX_ROWS));
    println!(
        "{:19} half   off    on  ratio (95 %)          whole  modelled  best  guessed right  steps tokens",
        "text"
    );

    let mut of_all = Vec::new();
    for text in TEXTS.iter().filter(|text| text.is_among(&wanted)) {
        let before = on.metrics();
        let measured = measure([&off, &on], &text.prompt(), blocks, tokens).await?;
        let now = on.metrics();
        let each = |count: fn(&mullama::EngineMetrics) -> u64| (count(&now) - count(&before)) / (2 * blocks as u64);
        let mut known = off.tokenize_async(&text.prompt(), true).await?;
        let n_prompt = known.len();
        known.extend(&measured.answer.tokens);
        let replayed = replay::gain(&known, n_prompt, &costs);
        let best = oracle::best_gain(&known, n_prompt, 2, &costs);
        let (low, ratio, high) = interval(&measured.ratios);
        let [rate_off, rate_on] = measured.seconds.map(f64::recip);
        println!(
            "{:19} {:4} {rate_off:6.1} {rate_on:6.1} {ratio:5.3} ({low:.3} to {high:.3}) {:6.3}    {replayed:6.3} {best:5.2} {:8} {:5} {:6} {:6}{}",
            text.name,
            text.half,
            median(measured.whole),
            each(|metrics| metrics.drafted_tokens),
            each(|metrics| metrics.accepted_tokens),
            each(|metrics| metrics.steps),
            measured.answer.tokens.len(),
            if measured.same { "" } else { " answers differ: compare with `deterministic`" },
        );
        if env::var_os("ANSWERS").is_some() {
            println!("    {:?}", measured.answer.text);
        }
        of_all.push((text.kind, text.half, [ratio, replayed, best]));
    }
    println!();
    for kind in [Kind::Repeats, Kind::New] {
        for half in HALVES {
            let of_these: Vec<[f64; 3]> =
                of_all.iter().filter(|of| (of.0, of.1) == (kind, half)).map(|of| of.2).collect();
            if !of_these.is_empty() {
                let mean = |index: usize| {
                    let sum: f64 = of_these.iter().map(|ratios| ratios[index].ln()).sum();
                    (sum / of_these.len() as f64).exp()
                };
                let least = of_these.iter().map(|ratios| ratios[0]).fold(f64::INFINITY, f64::min);
                println!(
                    "{kind:?}, half {half}: mean {:.3}, least {least:.3}; modelled {:.3}; best possible {:.2}",
                    mean(0),
                    mean(1),
                    mean(2)
                );
            }
        }
    }
    Ok(())
}

/// Blocks of four requests each: without, with, with, without. What the
/// machine gains or loses steadily meanwhile is the same for both.
async fn measure(
    models: [&AsyncModel; 2],
    prompt: &str,
    blocks: usize,
    tokens: usize,
) -> Result<Measured, MullamaError> {
    let config = StreamConfig::new().max_tokens(tokens).temperature(0.0).repeat_penalty(1.0);
    // The prompt is kept from here on: each request computes as much of it.
    let answer = models[0].generate_with(prompt, config.clone()).await?;
    let other = models[1].generate_with(prompt, config.clone()).await?;
    let mut same = other.tokens == answer.tokens;
    let (mut ratios, mut whole, mut seconds) = (Vec::new(), Vec::new(), [Vec::new(), Vec::new()]);
    for _ in 0..blocks {
        let (mut decode, mut request) = ([0.0; 2], [0.0; 2]);
        for which in [0, 1, 1, 0] {
            let started = Instant::now();
            let now = models[which].generate_with(prompt, config.clone()).await?;
            let elapsed = started.elapsed();
            same &= now.tokens == answer.tokens;
            let n_decoded = now.usage.completion_tokens.saturating_sub(1).max(1) as f64;
            let a_token = (elapsed - now.timings.time_to_first_token).as_secs_f64() / n_decoded;
            decode[which] += a_token;
            request[which] += elapsed.as_secs_f64();
            seconds[which].push(a_token);
        }
        ratios.push(decode[0] / decode[1]);
        whole.push(request[0] / request[1]);
    }
    Ok(Measured { answer, same, seconds: seconds.map(median), ratios, whole })
}

/// The median, between what it is at least and at most with a certainty of
/// about 95 % if there are six values or more.
fn interval(values: &[f64]) -> (f64, f64, f64) {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let n = sorted.len();
    let rank = ((n as f64 - 1.96 * (n as f64).sqrt()) / 2.0).floor().max(0.0) as usize;
    (sorted[rank], median(sorted.clone()), sorted[n - 1 - rank])
}
