//! Writes a tiny model, a malformed one or an adapter, for tests that aren't
//! written in Rust.
//!
//! ```text
//! tiny-model <kind> <out-path> [--seed N] [--n-vocab N] [--n-ctx-train N] [--n-window N] [--bias TOKEN=LOGITS]...
//! tiny-model --list
//! ```
//!
//! A kind is `llama`, `sliding-window`, `recurrent`, `lora` (an adapter for
//! `llama`), or the name of a corruption.

#![forbid(unsafe_code)]

use mullama_test_support::{Corruption, Kind, TinyModel, corrupt, lora};
use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("tiny-model: {message}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &[String]) -> Result<(), String> {
    if args == ["--list"] {
        let kinds = Kind::ALL.iter().map(|(name, _)| *name);
        let corruptions = corrupt::ALL.iter().map(|corruption| corruption.name);
        for name in kinds.chain(["lora"]).chain(corruptions) {
            println!("{name}");
        }
        return Ok(());
    }
    let [kind, path, options @ ..] = args else {
        return Err("usage: tiny-model <kind> <out-path> [--option value]..., or tiny-model --list".to_owned());
    };
    let written = if let Some((_, found)) = Kind::ALL.iter().find(|(name, _)| name == kind) {
        configure(TinyModel::new(*found), options)?.write_to(path)
    } else if kind == "lora" {
        lora::adapter_for(&configure(TinyModel::llama(), options)?.build(), 4, 1).write_to(path)
    } else if let Some(corruption) = Corruption::named(kind) {
        corruption.write_to(path)
    } else {
        return Err(format!("unknown kind '{kind}'; --list prints them all"));
    };
    written.map_err(|error| format!("could not write '{path}': {error}"))
}

fn configure(mut model: TinyModel, options: &[String]) -> Result<TinyModel, String> {
    for pair in options.chunks(2) {
        let [option, value] = pair else { return Err(format!("the option '{}' has no value", pair[0])) };
        let number = || value.parse::<u32>().map_err(|_| format!("'{value}' is no number"));
        model = match option.as_str() {
            "--seed" => model.seed(u64::from(number()?)),
            "--n-layer" => model.n_layer(number()?),
            "--n-vocab" => model.n_vocab(number()?),
            "--n-ctx-train" => model.n_ctx_train(number()?),
            "--n-window" => model.n_window(number()?),
            "--bias" => {
                let parsed = value.split_once('=').and_then(|(id, bias)| Some((id.parse().ok()?, bias.parse().ok()?)));
                let (token, bias) = parsed.ok_or_else(|| format!("'{value}' is not TOKEN=LOGITS"))?;
                model.token_bias(token, bias)
            }
            _ => return Err(format!("unknown option '{option}'")),
        };
    }
    Ok(model)
}
