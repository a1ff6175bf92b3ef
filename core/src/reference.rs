//! The naive way to generate: one sequence, the whole prompt in one batch, then
//! a token at a time, straight over the llama layer. Tests hold the engine's
//! greedy tokens against it.

use crate::{
    ModelOptions, MullamaError, TokenId,
    llama::{Batch, CellMemory, Context, ContextParams, DecodeError, LoadParams, Model},
};
use std::{path::Path, sync::Arc};

/// The first `n` greedy tokens after each prompt; shorter where the model ends
/// its answer.
///
/// # Errors
/// Those of a load; `Generation` when a decode fails.
pub fn greedy(path: &Path, prompts: &[&str], n: usize) -> Result<Vec<Vec<TokenId>>, MullamaError> {
    let options = ModelOptions::default();
    let params = LoadParams {
        gpu_layers: 0,
        use_mmap: true,
        deterministic: false,
        validated: &mut |_| (),
        progress: &mut |_| true,
    };
    let model = Arc::new(Model::load(path, params)?);
    let context_params = ContextParams {
        n_ctx: options.context_size,
        n_batch: options.batch_size,
        n_rows_at_once: usize::MAX,
        n_seq_max: 1,
        n_outputs_max: 1,
        n_threads: options.effective_threads(),
        flash_attention: options.flash_attention,
        type_k: options.kv_type_k,
        type_v: options.kv_type_v,
        unified: true,
        parts: false,
        pieces: false,
        memory: CellMemory::Cleared,
    };
    let mut context = Context::new(model.clone(), &context_params)?;
    let mut batch = Batch::new(options.batch_size);
    prompts.iter().map(|prompt| greedy_of(&mut context, &model, &mut batch, prompt, n)).collect()
}

fn greedy_of(
    context: &mut Context,
    model: &Model,
    batch: &mut Batch,
    prompt: &str,
    n: usize,
) -> Result<Vec<TokenId>, MullamaError> {
    context.clear_sequence(0);
    let mut pending = model.tokenize(prompt, true, true)?;
    let mut position = 0;
    let mut generated = Vec::new();
    while generated.len() < n {
        batch.clear();
        let last = pending.len() - 1;
        let mut row = 0;
        for (index, token) in pending.drain(..).enumerate() {
            row = batch.push(token, position, 0, index == last);
            position += 1;
        }
        context.decode(batch).map_err(|error| match error {
            DecodeError::Failed(error) => error,
            other => MullamaError::Generation(format!("{other:?}")),
        })?;
        let logits = context.logits(row).ok_or_else(|| MullamaError::Internal("a row has no logits".to_owned()))?;
        let best = (0..logits.len()).fold(0, |best, index| if logits[index] > logits[best] { index } else { best });
        let token = best as TokenId;
        generated.push(token);
        if model.is_eog(token) {
            break;
        }
        pending.push(token);
    }
    Ok(generated)
}
