//! SKELETON: owned by the devices work.
#![allow(unused_variables, missing_docs)]

use crate::{MullamaError, context::skeleton};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendInfo {
    pub name: String,
    pub n_devices: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeviceKind {
    Cpu,
    Gpu,
    IntegratedGpu,
    Accelerator,
}

impl DeviceKind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Gpu => "gpu",
            Self::IntegratedGpu => "integrated_gpu",
            Self::Accelerator => "accelerator",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceInfo {
    pub name: String,
    pub description: String,
    pub backend: String,
    pub kind: DeviceKind,
    pub memory_free: u64,
    pub memory_total: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerPlacement {
    pub device: String,
    pub n_layers: usize,
}

pub fn backends() -> Result<Vec<BackendInfo>, MullamaError> {
    Err(skeleton())
}

pub fn devices() -> Result<Vec<DeviceInfo>, MullamaError> {
    Err(skeleton())
}
