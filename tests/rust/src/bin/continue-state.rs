//! Goes on from a saved state, as a process of its own: what the tests of
//! state files compare with a process that was never interrupted.
//!
//! `continue-state MODEL STATE SEED N` prints the next N token ids; a SEED of
//! `greedy` takes the likeliest tokens.

#![forbid(unsafe_code)]

use mullama::{Context, ContextOptions, Model, ModelOptions, MullamaError, StreamConfig};
use std::{env, process::ExitCode};

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [model, state, seed, n] = arguments.as_slice() else {
        eprintln!("usage: continue-state MODEL STATE SEED N");
        return ExitCode::FAILURE;
    };
    match tokens(model, state, seed.parse().ok(), n.parse().unwrap_or(0)) {
        Ok(tokens) => {
            println!("{}", tokens.join(" "));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn tokens(model: &str, state: &str, seed: Option<u64>, n: usize) -> Result<Vec<String>, MullamaError> {
    let model = Model::load_with(model, ModelOptions { threads: 1, context_size: 1024, ..ModelOptions::default() })?;
    let mut context = Context::new(&model, ContextOptions::default())?;
    context.load_state(state)?;
    let config = StreamConfig::new().max_tokens(n).ignore_eos(true).seed(seed);
    let config = if seed.is_none() { config.temperature(0.0) } else { config };
    let stream = context.generate_stream_with(&[], config)?;
    stream.map(|token| token.map(|token| token.token_id.to_string())).collect()
}
