//! A large KV cache is cleared while the model is loaded, and is the one that
//! is used. Linux only, as that is.

#![cfg(target_os = "linux")]

use mullama::{Model, ModelOptions};
use mullama_test_support::{Quant, TinyModel};
use mullama_tests::{events, exactly, options};
use std::sync::{Mutex, PoisonError};
use tracing::Level;

const TAKEN: &str = "the memory of a context was cleared before it was made";
const NOT_TAKEN: &str = "memory was cleared for a context that did not take it";

/// Which of the two a load tells, and that the model answers as one with a
/// small cache.
fn told_by(model: &TinyModel, large: ModelOptions) -> Vec<String> {
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tiny.gguf");
    model.write_to(&path).unwrap();
    let small = ModelOptions { context_size: 64, max_concurrent: 1, cache_size: None, ..large.clone() };
    let wanted = Model::load_with(&path, small).unwrap().generate_with("abc", exactly(16)).unwrap();
    events::from(Level::DEBUG);
    let model = Model::load_with(&path, large).unwrap();
    let told = events::seen().into_iter().filter(|text| text == TAKEN || text == NOT_TAKEN).collect();
    assert_eq!(model.generate_with("abc", exactly(16)).unwrap().tokens, wanted.tokens);
    told
}

fn large() -> TinyModel {
    TinyModel::llama().seed(7).n_embd(256).n_head(4, 2).n_ff(512)
}

#[test]
fn a_large_cache_is_taken_and_a_small_one_is_not_prepared() {
    let of = |context_size| ModelOptions { context_size, max_concurrent: 2, ..options() };
    // Not a multiple of what llama.cpp rounds up to.
    assert_eq!(told_by(&large(), of(50_001)), [TAKEN]);
    assert!(told_by(&large(), of(1000)).is_empty());
}

#[test]
fn sequences_with_cells_of_their_own_are_taken_too() {
    let model = large().quantized(Quant::Q8_0, Quant::Q8_0);
    let of = |context_size| ModelOptions { context_size, max_concurrent: 7, deterministic: true, ..options() };
    assert_eq!(told_by(&model, of(20_001)), [TAKEN]);
}

#[test]
fn layers_with_a_window_have_caches_that_are_made_as_ever() {
    let of = |context_size| ModelOptions { context_size, max_concurrent: 4, ..options() };
    assert!(told_by(&TinyModel::sliding_window().n_embd(256).n_head(4, 2), of(50_000)).is_empty());
}
