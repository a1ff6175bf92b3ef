//! Tiny LoRA adapters for the tiny models.

use crate::gguf::{File, Tensor, Value};
use crate::rng::Rng;

/// A random adapter of the given rank for the query and output matrices of a
/// tiny model with attention.
///
/// # Panics
///
/// If the model has no attention layer.
#[must_use]
pub fn adapter_for(model: &File, rank: u64, seed: u64) -> File {
    let mut rng = Rng::new(seed);
    let mut file = File::default();
    let Some(Value::Str(arch)) = model.get("general.architecture") else { panic!("the model has no architecture") };
    file.set("general.architecture", arch.as_str());
    file.set("general.type", "adapter");
    file.set("adapter.type", "lora");
    file.set("adapter.lora.alpha", 4.0 * rank as f32);
    for target in &model.tensors {
        if !target.name.ends_with("attn_q.weight") && !target.name.ends_with("attn_output.weight") {
            continue;
        }
        let mut add = |suffix: &str, dims: [u64; 2]| {
            let deviation = 1.0 / (dims[0] as f32).sqrt();
            let values: Vec<f32> = (0..dims[0] * dims[1]).map(|_| deviation * rng.normal()).collect();
            file.tensors.push(Tensor::f32(format!("{}.{suffix}", target.name), &dims, &values));
        };
        add("lora_a", [target.dims[0], rank]);
        add("lora_b", [rank, target.dims[1]]);
    }
    assert!(!file.tensors.is_empty(), "the model has no attention layer to adapt");
    file
}
