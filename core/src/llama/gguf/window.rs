//! Which layers see only a sliding window, and which share the keys and values
//! of others. llama.cpp asserts that both fit its two caches.

use super::{
    arch,
    fault::{Result, refuse},
    header::Header,
    hparams::Keys,
    metadata::{Kind, Value},
};

const PATTERN: &str = "attention.sliding_window_pattern";
const MAX_WINDOW: u32 = i32::MAX as u32;

/// Checks the windows and writes them into the header.
pub(super) fn check(keys: &Keys<'_>, header: &mut Header) -> Result<()> {
    let window = keys.size("attention.sliding_window", MAX_WINDOW)?;
    let Some(use_of) = arch::window(keys.architecture) else { return Ok(()) };
    let has_windows = match use_of.needs {
        arch::Needs::Nothing => true,
        arch::Needs::Window => window.is_some_and(|window| window > 0),
        arch::Needs::NoZero => window != Some(0),
    };
    if !has_windows {
        return match keys.architecture {
            // Their graphs are made for windows alone.
            "afmoe" | "llama4" => refuse(format!("'{}' is 0 or missing", keys.name("attention.sliding_window"))),
            _ => Ok(()),
        };
    }
    let n_layer = header.n_layer as usize;
    let Some(layers) = windowed_layers(keys, &use_of, n_layer, header.n_draft_layers as usize)? else {
        // llama.cpp says that the pattern is missing.
        return Ok(());
    };
    if !layers.contains(&true) {
        return refuse(format!("'{}' leaves no layer with a sliding window", keys.name(PATTERN)));
    }
    check_shared_layers(keys, &layers)?;
    header.sliding_window = window.or(Some(use_of.default_window)).filter(|window| *window > 0);
    header.windowed_layers = layers;
    Ok(())
}

/// For each layer whether it has a window.
fn windowed_layers(
    keys: &Keys<'_>,
    use_of: &arch::WindowUse,
    n_layer: usize,
    n_draft_layers: usize,
) -> Result<Option<Vec<bool>>> {
    let name = keys.name(PATTERN);
    if let Some(Value::Array(array)) = keys.metadata.get(&name) {
        if !matches!(array.kind, Kind::Bool | Kind::U32 | Kind::I32) {
            return refuse(format!("'{name}' is an array of the type {}", array.kind.name()));
        }
        let mut layers: Vec<bool> = array.integers().map(|flag| flag != 0).collect();
        layers.resize(n_layer, false);
        return Ok(Some(layers));
    }
    let period = keys.size(PATTERN, MAX_WINDOW)?.or(use_of.default_period);
    let Some(period) = period.map(|period| period as usize) else { return Ok(None) };
    let in_period = |layer: usize| match period {
        0 => true,
        _ if use_of.dense_first => !layer.is_multiple_of(period),
        _ => layer % period < period - 1,
    };
    Ok(Some((0..n_layer).map(|layer| layer + n_draft_layers < n_layer && in_period(layer)).collect()))
}

/// The last layers of some models use the keys and values of the last two
/// layers that have their own: one with a window and one without.
fn check_shared_layers(keys: &Keys<'_>, layers: &[bool]) -> Result<()> {
    let n_layer = layers.len();
    let n_own = match keys.architecture {
        "gemma3n" => 20,
        "gemma4" => {
            let shared = keys.size("attention.shared_kv_layers", MAX_WINDOW)?.unwrap_or(0);
            n_layer.saturating_sub(shared as usize)
        }
        _ => return Ok(()),
    };
    let fits = |layer: &usize| layers[*layer] == layers[n_own - if layers[*layer] { 2 } else { 1 }];
    if n_own < 2 || !(n_own..n_layer).all(|layer| fits(&layer)) {
        return refuse(format!("'{}' does not fit '{}'", keys.name("attention.shared_kv_layers"), keys.name(PATTERN)));
    }
    Ok(())
}
