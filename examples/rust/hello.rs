//! Loads a model and streams an answer: `hello MODEL.gguf [QUESTION]`.

use futures_util::StreamExt;
use mullama::{AsyncModel, MullamaError, StreamConfig};
use std::{env, io::Write};

#[tokio::main]
async fn main() -> Result<(), MullamaError> {
    let mut args = env::args().skip(1);
    let path = args.next().unwrap_or_else(|| "model.gguf".to_owned());
    let question = args.next().unwrap_or_else(|| "What is a llama?".to_owned());

    let model = AsyncModel::load(path).await?;
    let prompt = format!("<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n");
    let mut stream = model.generate_stream(&prompt, StreamConfig::new().max_tokens(80).temperature(0.0)).await?;
    while let Some(token) = stream.next().await {
        print!("{}", token?.text);
        let _ = std::io::stdout().flush();
    }
    println!("\n\n{:?}, ended by {:?}", stream.usage(), stream.finish_reason());
    Ok(())
}
