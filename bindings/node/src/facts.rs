//! The objects that JavaScript gets about models, pools, workers, devices and
//! the runtime. Times are milliseconds; an absent value is an absent property.

use crate::convert::{count, ms, number};
use mullama::{
    BackendInfo, DeviceInfo, EngineMetrics, Histogram, LayerPlacement, ModelInfo, PoolStats, RuntimeMetrics,
    WorkerStatus,
};
use napi_derive::napi;

#[napi(object, object_from_js = false)]
pub struct Info {
    pub name: String,
    pub architecture: String,
    pub n_params: f64,
    pub n_vocab: u32,
    pub n_embd: u32,
    pub n_layer: u32,
    pub n_head: u32,
    pub n_ctx_train: u32,
    pub size_bytes: f64,
}

impl From<ModelInfo> for Info {
    fn from(info: ModelInfo) -> Self {
        Self {
            name: info.name,
            architecture: info.architecture,
            n_params: number(info.n_params),
            n_vocab: count(info.n_vocab),
            n_embd: count(info.n_embd),
            n_layer: count(info.n_layer),
            n_head: count(info.n_head),
            n_ctx_train: count(info.n_ctx_train),
            size_bytes: number(info.size_bytes),
        }
    }
}

#[napi(object, object_from_js = false)]
pub struct Durations {
    pub bounds: Vec<f64>,
    pub counts: Vec<f64>,
    pub sum: f64,
}

impl From<Histogram> for Durations {
    fn from(histogram: Histogram) -> Self {
        Self {
            bounds: histogram.bounds.into_iter().map(ms).collect(),
            counts: histogram.counts.into_iter().map(number).collect(),
            sum: ms(histogram.sum),
        }
    }
}

#[napi(object, object_from_js = false)]
pub struct Metrics {
    pub queued: u32,
    pub active: u32,
    pub completed: f64,
    pub cancelled: f64,
    pub failed: f64,
    pub prompt_tokens: f64,
    pub cached_tokens: f64,
    pub generated_tokens: f64,
    pub drafted_tokens: f64,
    pub accepted_tokens: f64,
    pub steps: f64,
    pub step_time: Durations,
    pub time_to_first_token: Durations,
    pub threads: u32,
    pub cache_bytes: f64,
    pub prefix_cache_bytes: f64,
    pub preemptions: f64,
    pub cache_size_bytes: f64,
    pub weights_bytes: f64,
    pub weights_shared: bool,
    pub load_time: f64,
}

impl From<EngineMetrics> for Metrics {
    fn from(metrics: EngineMetrics) -> Self {
        Self {
            queued: count(metrics.queued),
            active: count(metrics.active),
            completed: number(metrics.completed),
            cancelled: number(metrics.cancelled),
            failed: number(metrics.failed),
            prompt_tokens: number(metrics.prompt_tokens),
            cached_tokens: number(metrics.cached_tokens),
            generated_tokens: number(metrics.generated_tokens),
            drafted_tokens: number(metrics.drafted_tokens),
            accepted_tokens: number(metrics.accepted_tokens),
            steps: number(metrics.steps),
            step_time: metrics.step_time.into(),
            time_to_first_token: metrics.time_to_first_token.into(),
            threads: count(metrics.threads),
            cache_bytes: number(metrics.cache_bytes),
            prefix_cache_bytes: number(metrics.prefix_cache_bytes),
            preemptions: number(metrics.preemptions),
            cache_size_bytes: number(metrics.cache_size_bytes),
            weights_bytes: number(metrics.weights_bytes),
            weights_shared: metrics.weights_shared,
            load_time: ms(metrics.load_time),
        }
    }
}

#[napi(object, object_from_js = false)]
pub struct PoolFigures {
    pub size: u32,
    pub available: u32,
    pub in_use: u32,
    pub waiting: u32,
    pub acquired_total: f64,
    pub wait_ms_avg: f64,
}

impl From<PoolStats> for PoolFigures {
    fn from(stats: PoolStats) -> Self {
        Self {
            size: count(stats.size),
            available: count(stats.available),
            in_use: count(stats.in_use),
            waiting: count(stats.waiting),
            acquired_total: number(stats.acquired_total),
            wait_ms_avg: stats.wait_ms_avg,
        }
    }
}

#[napi(object, object_from_js = false)]
pub struct RuntimeFigures {
    pub active_tasks: u32,
    pub completed_tasks: f64,
    pub worker_threads: u32,
    pub blocking_threads: u32,
    pub total_generations: f64,
    pub avg_generation_ms: f64,
    pub uptime_seconds: f64,
}

impl From<RuntimeMetrics> for RuntimeFigures {
    fn from(metrics: RuntimeMetrics) -> Self {
        Self {
            active_tasks: count(metrics.active_tasks),
            completed_tasks: number(metrics.completed_tasks),
            worker_threads: count(metrics.worker_threads),
            blocking_threads: count(metrics.blocking_threads),
            total_generations: number(metrics.total_generations),
            avg_generation_ms: metrics.avg_generation_ms,
            uptime_seconds: number(metrics.uptime_seconds),
        }
    }
}

#[napi(object, object_from_js = false)]
pub struct WorkerState {
    pub state: &'static str,
    pub message: Option<String>,
}

impl From<WorkerStatus> for WorkerState {
    fn from(status: WorkerStatus) -> Self {
        let (state, message) = match status {
            WorkerStatus::Running => ("running", None),
            WorkerStatus::Completed => ("completed", None),
            WorkerStatus::Failed(message) => ("failed", Some(message)),
            WorkerStatus::Panicked(message) => ("panicked", Some(message)),
            WorkerStatus::Stopped => ("stopped", None),
        };
        Self { state, message }
    }
}

#[napi(object, object_from_js = false)]
pub struct Backend {
    pub name: String,
    pub n_devices: u32,
    pub variant: Option<String>,
}

impl From<BackendInfo> for Backend {
    fn from(backend: BackendInfo) -> Self {
        Self { name: backend.name, n_devices: count(backend.n_devices), variant: backend.variant }
    }
}

#[napi(object, object_from_js = false)]
pub struct Device {
    pub name: String,
    pub description: String,
    pub backend: String,
    pub kind: &'static str,
    pub memory_free: f64,
    pub memory_total: f64,
}

impl From<DeviceInfo> for Device {
    fn from(device: DeviceInfo) -> Self {
        Self {
            name: device.name,
            description: device.description,
            backend: device.backend,
            kind: device.kind.name(),
            memory_free: number(device.memory_free),
            memory_total: number(device.memory_total),
        }
    }
}

#[napi(object, object_from_js = false)]
pub struct Placement {
    pub device: String,
    pub n_layers: u32,
}

impl From<LayerPlacement> for Placement {
    fn from(placement: LayerPlacement) -> Self {
        Self { device: placement.device, n_layers: count(placement.n_layers) }
    }
}
