//! Answers several prompts at once on one model: `concurrent MODEL.gguf`.

use futures_util::future::try_join_all;
use mullama::{AsyncModel, ModelOptions, MullamaError, StreamConfig};
use std::env;

#[tokio::main]
async fn main() -> Result<(), MullamaError> {
    let path = env::args().nth(1).unwrap_or_else(|| "model.gguf".to_owned());
    let options = ModelOptions { max_concurrent: 8, ..ModelOptions::default() };
    let model = AsyncModel::load_with(path, options).await?;

    let topics = ["the sea", "a cat", "mountains", "coffee", "music", "trains", "winter", "robots"];
    let prompts: Vec<String> = topics.iter().map(|topic| format!("A short poem about {topic}:\n")).collect();
    let config = StreamConfig::new().max_tokens(40).temperature(0.0);
    let answers = try_join_all(prompts.iter().map(|prompt| model.generate_with(prompt, config.clone()))).await?;
    for (topic, answer) in topics.iter().zip(answers) {
        println!("== {topic} ({} tokens)\n{}\n", answer.usage.completion_tokens, answer.text.trim());
    }
    Ok(())
}
