//! ggml's registry of backends and devices, and what it means for
//! `gpu_layers`. Any thread may ask: the registry never changes after the
//! start.

use super::{
    backend,
    shim::{self, ErrorText, RawBackend, RawDevice},
};
use crate::{BackendInfo, DeviceInfo, DeviceKind, MullamaError};
use llama_cpp_sys_2 as sys;
use std::ffi::{CStr, c_char};

/// The backends that this build has.
///
/// # Errors
/// `Unsupported` (CPU, driver), `OperationFailed` when a driver fails.
pub(crate) fn backends() -> Result<Vec<BackendInfo>, MullamaError> {
    read_all(|index, error| {
        let mut raw = RawBackend { name: std::ptr::null(), n_devices: 0 };
        // SAFETY: both pointers are valid; the shim writes no more than
        // `error.size()` bytes.
        let status = unsafe { shim::mullama_backend_at(index, &raw mut raw, error.as_mut_ptr(), error.size()) };
        let name = text(raw.name);
        let variant = if name == CPU { backend::cpu_variant() } else { None };
        (status, BackendInfo { name, n_devices: raw.n_devices, variant })
    })
}

/// The devices that the backends found.
///
/// # Errors
/// `Unsupported` (CPU, driver), `OperationFailed` when a driver fails.
pub(crate) fn devices() -> Result<Vec<DeviceInfo>, MullamaError> {
    read_all(|index, error| {
        let mut raw = RawDevice {
            name: std::ptr::null(),
            description: std::ptr::null(),
            backend: std::ptr::null(),
            memory_free: 0,
            memory_total: 0,
            kind: 0,
        };
        // SAFETY: both pointers are valid; the shim writes no more than
        // `error.size()` bytes.
        let status = unsafe { shim::mullama_device_at(index, &raw mut raw, error.as_mut_ptr(), error.size()) };
        let info = DeviceInfo {
            name: text(raw.name),
            description: text(raw.description),
            backend: text(raw.backend),
            kind: kind(raw.kind),
            memory_free: raw.memory_free,
            memory_total: raw.memory_total,
        };
        (status, info)
    })
}

/// Whether there is a GPU to keep layers on. Asks no device for its memory,
/// which would make some drivers take a share of it.
///
/// # Errors
/// `Unsupported` (CPU, driver).
pub(crate) fn has_gpu() -> Result<bool, MullamaError> {
    backend::ensure_started()?;
    Ok([sys::GGML_BACKEND_DEVICE_TYPE_GPU, sys::GGML_BACKEND_DEVICE_TYPE_IGPU].into_iter().any(|kind| {
        // SAFETY: llama.cpp was started; the search reads the registry alone.
        !unsafe { sys::ggml_backend_dev_by_type(kind) }.is_null()
    }))
}

/// The `gpu_layers` that llama.cpp gets. Without a GPU that is 0, and a warning
/// says so: a model that is slower than expected must not be a riddle.
///
/// # Errors
/// `Unsupported` (CPU, driver), `OperationFailed` when a driver fails.
pub(super) fn usable_gpu_layers(wanted: i32) -> Result<i32, MullamaError> {
    if wanted == 0 || has_gpu()? {
        return Ok(wanted);
    }
    let names: Vec<String> = backends()?.into_iter().map(|backend| backend.name).collect();
    let built_in = names.join(", ");
    if names.iter().all(|name| CPU_BACKENDS.contains(&name.as_str())) {
        tracing::warn!(
            "gpu_layers '{wanted}' has no effect, the model runs on the CPU: this build has no GPU backend \
             (built in: {built_in}); build mullama with one, such as the feature `vulkan` or `cuda`, or set \
             gpu_layers to 0"
        );
    } else {
        tracing::warn!(
            "gpu_layers '{wanted}' has no effect, the model runs on the CPU: no GPU was found (built in: \
             {built_in}); check that its driver is installed and visible to this process, or set gpu_layers to 0"
        );
    }
    Ok(0)
}

/// ggml's name of the backend that has variants.
const CPU: &str = "CPU";

/// ggml's names of the backends that compute on the CPU.
const CPU_BACKENDS: [&str; 2] = [CPU, "BLAS"];

/// Reads entries from index 0 on, until there is none.
fn read_all<T>(read: impl Fn(usize, &mut ErrorText) -> (i32, T)) -> Result<Vec<T>, MullamaError> {
    backend::ensure_started()?;
    let mut entries = Vec::new();
    loop {
        let mut error = ErrorText::new();
        match read(entries.len(), &mut error) {
            (shim::OK, entry) => entries.push(entry),
            (shim::NULL, _) => return Ok(entries),
            _ => return Err(MullamaError::OperationFailed(format!("a backend's driver failed: {}", error.text()))),
        }
    }
}

fn text(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: ggml's names and descriptions end in a zero byte and live as
    // long as the registry, which is never destroyed before the exit.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

fn kind(raw: i32) -> DeviceKind {
    match sys::ggml_backend_dev_type::try_from(raw) {
        Ok(sys::GGML_BACKEND_DEVICE_TYPE_CPU) => DeviceKind::Cpu,
        Ok(sys::GGML_BACKEND_DEVICE_TYPE_GPU) => DeviceKind::Gpu,
        Ok(sys::GGML_BACKEND_DEVICE_TYPE_IGPU) => DeviceKind::IntegratedGpu,
        _ => DeviceKind::Accelerator,
    }
}
