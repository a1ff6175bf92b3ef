//! Exits, with code 7, while a context's thread generates.
//!
//! `exit-mid-stream MODEL`

#![forbid(unsafe_code)]

use mullama::{Context, ContextOptions, Model, MullamaError, StreamConfig};
use std::process::exit;

fn main() {
    let path = std::env::args().nth(1).unwrap_or_default();
    if let Err(error) = generate_and_exit(&path) {
        eprintln!("{error}");
    }
}

fn generate_and_exit(path: &str) -> Result<(), MullamaError> {
    let model = Model::load(path)?;
    let mut context = Context::new(&model, ContextOptions::default())?;
    let config = StreamConfig::new().max_tokens(1000).ignore_eos(true).buffer_size(1000);
    let mut stream = context.generate_stream_with(&[300, 301], config)?;
    if let Some(token) = stream.next() {
        token?;
        // Nothing is dropped: the exit finds the thread at work.
        exit(7);
    }
    Ok(())
}
