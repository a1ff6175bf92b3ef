//! What this build and machine can compute on: [`backends`] that were built
//! in, [`devices`] that they found, and where a model's layers went
//! ([`LayerPlacement`]). Both functions run on the calling thread.

use crate::{MullamaError, llama, memory::SystemMemory, process};

/// A part of llama.cpp that computes on one sort of device: built in, or loaded
/// as a module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendInfo {
    /// ggml's name of it, such as `CPU`, `CUDA`, `Vulkan`, `BLAS`.
    pub name: String,
    /// Devices that it found on this machine; 0 where a driver or the hardware
    /// is missing.
    pub n_devices: usize,
    /// Which of its variants was chosen for this processor, such as `haswell`
    /// or `x64`; `None` where the build has one only. Builds with the feature
    /// `dynamic-backends` have variants of the backend `CPU`.
    pub variant: Option<String>,
}

/// What sort of device it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DeviceKind {
    /// The processor with the machine's memory.
    Cpu,
    /// A GPU with memory of its own.
    Gpu,
    /// A GPU that uses the machine's memory.
    IntegratedGpu,
    /// What helps the CPU with some operations, such as BLAS. It holds no
    /// layers.
    Accelerator,
}

impl DeviceKind {
    /// All kinds, for messages and bindings.
    pub const ALL: [Self; 4] = [Self::Cpu, Self::Gpu, Self::IntegratedGpu, Self::Accelerator];

    /// The lower-case name that Node and Python use.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Gpu => "gpu",
            Self::IntegratedGpu => "integrated_gpu",
            Self::Accelerator => "accelerator",
        }
    }
}

/// A device of this machine that a backend can use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceInfo {
    /// ggml's name of it, such as `CPU` or `CUDA0`; unique in the process.
    pub name: String,
    /// What the driver calls it.
    pub description: String,
    /// The [`BackendInfo::name`] of its backend.
    pub backend: String,
    /// What sort of device it is.
    pub kind: DeviceKind,
    /// Bytes free now. For the CPU what this process may still use, a limit of
    /// its control group included; 0 where the driver tells none.
    pub memory_free: u64,
    /// Bytes in all; 0 where the driver tells none.
    pub memory_total: u64,
}

/// How many of a model's layers one device holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerPlacement {
    /// The [`DeviceInfo::name`] of the device.
    pub device: String,
    /// Layers on it. The output layer counts as one.
    pub n_layers: usize,
}

/// The backends that this build has. No model need be loaded.
///
/// ```
/// # fn main() -> Result<(), mullama::MullamaError> {
/// for backend in mullama::backends()? {
///     println!("{}: {} devices", backend.name, backend.n_devices);
/// }
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// `Unsupported` (CPU, forked child), `OperationFailed` when a driver fails.
pub fn backends() -> Result<Vec<BackendInfo>, MullamaError> {
    process::check()?;
    let backends = llama::backends()?;
    claim_gpu()?;
    Ok(backends)
}

/// The devices that the backends found on this machine, in llama.cpp's
/// order. No model need be loaded.
///
/// ```
/// # fn main() -> Result<(), mullama::MullamaError> {
/// let devices = mullama::devices()?;
/// assert!(devices.iter().any(|device| device.kind == mullama::DeviceKind::Cpu));
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// `Unsupported` (CPU, forked child), `OperationFailed` when a driver fails.
pub fn devices() -> Result<Vec<DeviceInfo>, MullamaError> {
    process::check()?;
    let mut devices = llama::devices()?;
    claim_gpu()?;
    // ggml gives the machine's whole memory as free.
    if let Some(cpu) = devices.iter_mut().find(|device| device.kind == DeviceKind::Cpu) {
        let memory = SystemMemory::read();
        (cpu.memory_free, cpu.memory_total) = (memory.free, memory.total);
    }
    Ok(devices)
}

/// A GPU's driver does not survive a fork, so asking it makes this the process
/// that may use mullama. Without one, asking leaves the children free.
fn claim_gpu() -> Result<(), MullamaError> {
    if llama::has_gpu()? { process::claim() } else { Ok(()) }
}
