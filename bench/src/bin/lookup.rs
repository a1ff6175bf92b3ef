//! What prompt lookup gains: texts that repeat their prompt and texts that do
//! not, with and without it in alternation. Prints tokens a second.

use mullama::{AsyncModel, ModelOptions, MullamaError, StreamConfig};
use std::{env, time::Instant};

const ARTICLE: &str = "The harbour of Larsund was built in 1874 by the engineer Ida Falk. It has three basins, a \
                       stone pier of four hundred metres, and a lighthouse that was lit by gas until 1931. Today \
                       ferries leave for the islands every hour, and a museum shows the tools of the builders.";

const TEXTS: [(&str, &str); 5] = [
    ("story", "Write a long story about a fox who learns to sail."),
    ("list of ideas", "Give many different ideas for a birthday party."),
    ("copy", "Repeat this text word for word:\n"),
    ("edit", "Write this text again, with 1931 changed to 1932 and nothing else changed:\n"),
    ("extraction", "Quote the sentences of this text that name a year, exactly as they are:\n"),
];

#[tokio::main]
async fn main() -> Result<(), MullamaError> {
    let mut arguments = env::args().skip(1);
    let path = arguments.next().unwrap_or_default();
    let rounds = arguments.next().and_then(|n| n.parse().ok()).unwrap_or(3);
    let deterministic = arguments.next().is_some();
    let load = |prompt_lookup| ModelOptions { prompt_lookup, deterministic, ..ModelOptions::default() };
    let models = [AsyncModel::load_with(&path, load(false)).await?, AsyncModel::load_with(&path, load(true)).await?];
    for (index, (name, task)) in TEXTS.into_iter().enumerate() {
        let text = if index < 2 { "" } else { ARTICLE };
        let prompt = format!("<|im_start|>user\n{task}{text}<|im_end|>\n<|im_start|>assistant\n");
        let mut rates = [Vec::new(), Vec::new()];
        for _ in 0..rounds {
            for (model, rates) in models.iter().zip(&mut rates) {
                let config =
                    StreamConfig::new().max_tokens(96).temperature(0.0).repeat_penalty(1.0).ignore_eos(index < 2);
                let started = Instant::now();
                let answer = model.generate_with(&prompt, config).await?;
                let decode = started.elapsed() - answer.timings.time_to_first_token;
                rates.push((answer.usage.completion_tokens - 1) as f64 / decode.as_secs_f64());
            }
        }
        let [off, on] = rates.map(|mut rates| {
            rates.sort_by(f64::total_cmp);
            rates[rates.len() / 2]
        });
        println!("{name:14} off {off:6.1}  on {on:6.1}  ratio {:.2}", on / off);
    }
    let metrics = models[1].metrics();
    println!("{} of {} guessed tokens were right", metrics.accepted_tokens, metrics.drafted_tokens);
    Ok(())
}
