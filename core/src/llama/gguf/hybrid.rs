//! Which layers have a recurrent state instead of attention. llama.cpp gives a
//! hybrid model one memory for each kind of layer and does not survive that
//! one of them has no layer at all.

use super::{
    arch,
    fault::{Result, refuse},
    header::Header,
    hparams::Keys,
};

/// Checks the kinds of layers and writes them into the header.
pub(super) fn check(keys: &Keys<'_>, header: &mut Header) -> Result<()> {
    let n_layer = header.n_layer as usize;
    if arch::is_recurrent(keys.architecture) {
        header.recurrent_layers = vec![true; n_layer];
        return Ok(());
    }
    let Some(kind) = arch::hybrid(keys.architecture) else { return Ok(()) };
    let n_trunk = n_layer - header.n_draft_layers as usize;
    let feed_forward = keys.feed_forward(header.n_layer)?;
    let (mut recurrent, mut attention) = (vec![false; n_layer], vec![false; n_layer]);
    for layer in 0..n_trunk {
        let no_heads = header.n_head_kv[layer] == 0;
        (recurrent[layer], attention[layer]) = match kind {
            arch::Hybrid::ByHeads => (no_heads, !no_heads),
            arch::Hybrid::ByHeadsAndFeedForward => {
                let is_mixer = feed_forward[layer] == 0;
                (is_mixer && no_heads, is_mixer && !no_heads)
            }
            arch::Hybrid::ByInterval(default) => {
                let is_recurrent = recurrent_by_interval(keys, header.n_layer, layer, default)?;
                (is_recurrent, !is_recurrent)
            }
            // Attention and a state in each layer.
            arch::Hybrid::Both => (true, !no_heads),
        };
    }
    let lacks = match (recurrent.contains(&true), attention.contains(&true)) {
        (true, true) => None,
        (false, _) => Some("with a recurrent state"),
        (_, false) => Some("with attention"),
    };
    if let Some(lacks) = lacks {
        return refuse(format!("the hybrid model has no layer {lacks} (see '{}')", keys.name(kind.key())));
    }
    let needs_heads = match kind {
        arch::Hybrid::ByInterval(_) => &attention,
        arch::Hybrid::Both => &recurrent,
        _ => &Vec::new(),
    };
    if header.n_head_kv.iter().zip(needs_heads).any(|(n_head_kv, needed)| *needed && *n_head_kv == 0) {
        return refuse(format!("'{}' is 0 for a layer with attention", keys.name("attention.head_count_kv")));
    }
    if !matches!(kind, arch::Hybrid::Both) {
        header.recurrent_layers = recurrent;
    }
    Ok(())
}

fn recurrent_by_interval(keys: &Keys<'_>, n_layer: u32, layer: usize, default: u32) -> Result<bool> {
    if let Some(flags) = keys.per_layer("attention.recurrent_layers", n_layer, u32::MAX)? {
        return Ok(flags[layer] != 0);
    }
    let interval = keys.positive("full_attention_interval", i32::MAX as u32)?.unwrap_or(default);
    Ok(!(layer + 1).is_multiple_of(interval as usize))
}
