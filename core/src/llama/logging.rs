//! llama.cpp's log, routed to `tracing` (target `llama.cpp`). Nothing reaches
//! stderr: without a `tracing` subscriber the log is silent. Kept too, for the
//! thread that loads: errors, as the reason of a failed load, and which device
//! each layer went to, which llama.cpp tells nowhere else.

use crate::LayerPlacement;
use llama_cpp_sys_2 as sys;
use std::{
    cell::RefCell,
    ffi::{CStr, c_char, c_void},
    panic::catch_unwind,
};

thread_local! {
    /// Error lines since `take_errors`; at most a few, since only loading and
    /// context creation log errors and both take them.
    static ERRORS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
    /// Devices of the layers since `take_placement`: one load takes its own.
    static PLACEMENT: RefCell<Vec<LayerPlacement>> = const { RefCell::new(Vec::new()) };
}

/// How many error lines are kept.
const MAX_ERRORS: usize = 8;

/// How llama.cpp and ggml take a callback for their log.
#[cfg(feature = "dynamic-backends")]
pub(super) type LogCallback = sys::ggml_log_callback;

/// The callback, for a module that has a log of its own.
#[cfg(feature = "dynamic-backends")]
pub(super) const CALLBACK: LogCallback = Some(on_log);

/// Installs the callback. The log is global to the process, so this is done
/// once, before anything else of llama.cpp runs.
pub(super) fn install() {
    // SAFETY: `on_log` has the signature llama.cpp asks for, never unwinds,
    // and uses no user data.
    unsafe { sys::llama_log_set(Some(on_log), std::ptr::null_mut()) };
}

/// The error lines that llama.cpp logged on this thread, and forgets them.
pub(super) fn take_errors() -> String {
    let lines = ERRORS.with(|errors| std::mem::take(&mut *errors.borrow_mut()));
    lines.join("; ")
}

/// Where the layers went that llama.cpp has placed on this thread, and forgets
/// it. Devices come in the order of their first layer.
pub(super) fn take_placement() -> Vec<LayerPlacement> {
    PLACEMENT.with(|placement| std::mem::take(&mut *placement.borrow_mut()))
}

/// Reads lines like `load_tensors: layer  12 assigned to device CPU, is_swa = 0`
/// of this very llama.cpp; a test holds their number against the model's layers.
fn placed_on(line: &str) -> Option<&str> {
    let (_, rest) = line.strip_prefix("load_tensors: layer ")?.split_once("assigned to device ")?;
    Some(rest.rsplit_once(", is_swa").map_or(rest, |(device, _)| device))
}

fn count_layer(device: &str) {
    PLACEMENT.with(|placement| {
        let mut placement = placement.borrow_mut();
        match placement.iter_mut().find(|entry| entry.device == device) {
            Some(entry) => entry.n_layers += 1,
            None => placement.push(LayerPlacement { device: device.to_owned(), n_layers: 1 }),
        }
    });
}

unsafe extern "C" fn on_log(level: sys::ggml_log_level, text: *const c_char, _: *mut c_void) {
    if text.is_null() {
        return;
    }
    // SAFETY: llama.cpp passes a string that ends in a zero byte and lives
    // through the call.
    let line = unsafe { CStr::from_ptr(text) }.to_string_lossy();
    let line = line.trim();
    if line.is_empty() {
        return;
    }
    if let Some(device) = placed_on(line) {
        count_layer(device);
    }
    // A subscriber is foreign code: if it panics, the panic stops here.
    let _ = catch_unwind(|| match level {
        sys::GGML_LOG_LEVEL_ERROR => {
            tracing::error!(target: "llama.cpp", "{line}");
            ERRORS.with(|errors| {
                let mut errors = errors.borrow_mut();
                if errors.len() < MAX_ERRORS {
                    errors.push(line.to_owned());
                }
            });
        }
        sys::GGML_LOG_LEVEL_WARN => tracing::warn!(target: "llama.cpp", "{line}"),
        sys::GGML_LOG_LEVEL_INFO => tracing::debug!(target: "llama.cpp", "{line}"),
        _ => tracing::trace!(target: "llama.cpp", "{line}"),
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_counted_by_device_in_the_order_of_their_first() {
        let lines = [
            "load_tensors: layer   0 assigned to device CPU, is_swa = 0",
            "load_tensors: layer   1 assigned to device CUDA0, is_swa = 1",
            "load_tensors: layer   2 assigned to device CUDA0, is_swa = 0",
            "load_tensors: offloaded 2/3 layers to GPU",
            "llama_context: layer 1 is assigned to device CPU but the Flash Attention tensor is not",
        ];
        lines.into_iter().filter_map(placed_on).for_each(count_layer);
        let placement: Vec<_> = take_placement().into_iter().map(|entry| (entry.device, entry.n_layers)).collect();
        assert_eq!(placement, [("CPU".to_owned(), 1), ("CUDA0".to_owned(), 2)]);
        assert!(take_placement().is_empty());
    }
}
