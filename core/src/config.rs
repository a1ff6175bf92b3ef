//! How a model is loaded: [`ModelOptions`], the full set, and
//! [`AsyncConfig`], the seven fields most programs need. Validation of both
//! lives here and nowhere else; the bindings pass values through.

use crate::{MullamaError, error::MullamaError as E};
use std::{fmt, sync::Arc, time::Duration};

/// Most sequences that llama.cpp keeps apart in one context
/// (`LLAMA_MAX_SEQ` in its `llama-cparams.h`).
pub(crate) const MAX_SEQUENCES: usize = 256;

/// Longest context accepted, in tokens per request. Well past every model's
/// training length; it keeps sizes in 32 bits.
pub(crate) const MAX_CONTEXT_SIZE: usize = 1 << 24;

/// Smallest context accepted, in tokens per request.
pub(crate) const MIN_CONTEXT_SIZE: usize = 8;

/// Called with the share of the model that is loaded, from 0 to 1. Returning
/// `false` stops the load with [`MullamaError::Cancelled`].
pub type ProgressCallback = Arc<dyn Fn(f32) -> bool + Send + Sync>;

/// The number type of the KV cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum KvType {
    /// 32-bit floats.
    F32,
    /// 16-bit floats, llama.cpp's default.
    #[default]
    F16,
    /// Brain floats of 16 bits.
    Bf16,
    /// 8-bit blocks: half the memory of `F16`, a little slower to prefill.
    Q8_0,
}

impl KvType {
    /// All types, for messages and bindings.
    pub const ALL: [Self; 4] = [Self::F32, Self::F16, Self::Bf16, Self::Q8_0];

    /// The lower-case name that Node and Python use.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::Q8_0 => "q8_0",
        }
    }

    /// Bytes that one number takes. A `Q8_0` block is 32 numbers of one byte
    /// and a 16-bit scale (`block_q8_0` in ggml's `ggml-common.h`).
    pub(crate) fn bytes_per_element(self) -> f64 {
        match self {
            Self::F32 => 4.0,
            Self::F16 | Self::Bf16 => 2.0,
            Self::Q8_0 => 34.0 / 32.0,
        }
    }
}

impl std::str::FromStr for KvType {
    type Err = MullamaError;

    /// # Errors
    /// `InvalidInput` for a name that is none of [`KvType::ALL`].
    fn from_str(name: &str) -> Result<Self, E> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.name() == name)
            .ok_or_else(|| E::invalid("kv_type", name, "use one of f32, f16, bf16, q8_0"))
    }
}

/// Every option of a load.
///
/// ```
/// use mullama::ModelOptions;
/// let options = ModelOptions { context_size: 4096, max_concurrent: 8, ..Default::default() };
/// assert!(options.validate().is_ok());
/// ```
#[derive(Clone)]
pub struct ModelOptions {
    /// Layers to keep on a GPU; 0 (the default) none, -1 all. A build or
    /// machine without a GPU runs all layers on the CPU and warns in the log.
    pub gpu_layers: i32,
    /// Tokens (prompt and answer) that each request may use; 8 to 16,777,216.
    /// Default 2048.
    pub context_size: usize,
    /// Threads that decode. Default: the processors that the process may use
    /// (affinity and cgroup quota); more than that are not used.
    pub threads: usize,
    /// `Some(true)` forces flash attention on, `Some(false)` off; `None` (the
    /// default) lets llama.cpp decide.
    pub flash_attention: Option<bool>,
    /// Requests that generate at the same time, 1 to 256; more wait their
    /// turn. Each has its own `context_size` tokens. Default 4.
    pub max_concurrent: usize,
    /// Requests that may wait, 1 or more; one more fails with `QueueFull`.
    /// Default 4096.
    pub max_queue: usize,
    /// Time from submission to the last token, for requests that set none of
    /// their own; `None` or zero is no limit. Default 30 s.
    pub timeout: Option<Duration>,
    /// Most tokens evaluated in one decode step; at least `max_concurrent`, at
    /// most 8192. Prefill is cut into chunks of at most this. Default 512.
    pub batch_size: usize,
    /// Tokens that the KV cache holds over all requests; at least
    /// `context_size`. `None` (the default) is room for `max_concurrent` full
    /// requests. With less, a request may have to wait for others to end, or
    /// make room for them and go on later; none fails by it.
    pub cache_size: Option<usize>,
    /// Number type of the K half of the KV cache. Default `F16`.
    pub kv_type_k: KvType,
    /// Number type of the V half of the KV cache. `Q8_0` needs flash
    /// attention. Default `F16`.
    pub kv_type_v: KvType,
    /// Bytes of RAM for what requests have computed, so that later ones with
    /// the same beginning need not compute it again; 0 keeps nothing. Requests
    /// that are served at the same time share what they have in common in any
    /// case. `None` (the default) is a quarter of the KV cache's bytes, and at
    /// most half of the memory that is free after the load. Taken as it fills.
    pub prefix_cache_bytes: Option<u64>,
    /// Map the file instead of reading it into memory. Default `true`.
    pub use_mmap: bool,
    /// Whether a request gives the same tokens and log-probabilities whatever
    /// runs beside it and however its prompt is cut into steps. Default
    /// `false`. Each request then has memory of its own for `context_size`
    /// tokens, attention is flash attention, keys of the default type `F16`
    /// become `Q8_0`, and models with K-quants use kernels that are slower for
    /// prompts. CPU only; models with a recurrent state or with matrices of
    /// `F32`, `F16` or `BF16` are `Unsupported`.
    /// Contexts of the model take its types and kernels, not the guarantee.
    pub deterministic: bool,
    /// Whether a request that is served alone guesses its next tokens from
    /// where its last ones stood before, and evaluates several at once where
    /// that is quicker. Default `true`. Changes no distribution, and under
    /// `deterministic` no result. Never done beside other requests, nor for
    /// models with a recurrent state.
    pub prompt_lookup: bool,
    /// Progress of the load, called on the model's own thread.
    pub progress: Option<ProgressCallback>,
    /// Stops the load when it is cancelled.
    #[cfg(feature = "async")]
    pub cancellation: Option<tokio_util::sync::CancellationToken>,
}

impl Default for ModelOptions {
    fn default() -> Self {
        Self {
            gpu_layers: 0,
            context_size: 2048,
            threads: available_threads(),
            flash_attention: None,
            max_concurrent: 4,
            max_queue: 4096,
            timeout: Some(Duration::from_secs(30)),
            batch_size: 512,
            cache_size: None,
            kv_type_k: KvType::F16,
            kv_type_v: KvType::F16,
            prefix_cache_bytes: None,
            use_mmap: true,
            deterministic: false,
            prompt_lookup: true,
            progress: None,
            #[cfg(feature = "async")]
            cancellation: None,
        }
    }
}

impl fmt::Debug for ModelOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ModelOptions")
            .field("gpu_layers", &self.gpu_layers)
            .field("context_size", &self.context_size)
            .field("threads", &self.threads)
            .field("flash_attention", &self.flash_attention)
            .field("max_concurrent", &self.max_concurrent)
            .field("max_queue", &self.max_queue)
            .field("timeout", &self.timeout)
            .field("batch_size", &self.batch_size)
            .field("cache_size", &self.cache_size)
            .field("kv_type_k", &self.kv_type_k)
            .field("kv_type_v", &self.kv_type_v)
            .field("prefix_cache_bytes", &self.prefix_cache_bytes)
            .field("use_mmap", &self.use_mmap)
            .field("deterministic", &self.deterministic)
            .field("prompt_lookup", &self.prompt_lookup)
            .finish_non_exhaustive()
    }
}

impl ModelOptions {
    /// Checks every field against its range.
    ///
    /// # Errors
    /// `InvalidInput` naming the first field that is out of range.
    pub fn validate(&self) -> Result<(), MullamaError> {
        if self.gpu_layers < -1 {
            return Err(E::invalid("gpu_layers", self.gpu_layers, "use -1 for all, 0 for none, or a count"));
        }
        in_range("context_size", self.context_size, MIN_CONTEXT_SIZE, MAX_CONTEXT_SIZE)?;
        in_range("threads", self.threads, 1, 4096)?;
        in_range("max_concurrent", self.max_concurrent, 1, MAX_SEQUENCES)?;
        in_range("max_queue", self.max_queue, 1, usize::MAX)?;
        in_range("batch_size", self.batch_size, self.max_concurrent.max(16), 8192)?;
        if let Some(cache_size) = self.cache_size {
            in_range("cache_size", cache_size, self.context_size, MAX_CONTEXT_SIZE * MAX_SEQUENCES)?;
        }
        if self.kv_type_v == KvType::Q8_0 && self.flash_attention == Some(false) {
            return Err(E::invalid("kv_type_v", "q8_0", "a quantized V cache needs flash_attention"));
        }
        if self.deterministic { self.validate_deterministic() } else { Ok(()) }
    }

    /// What contradicts `deterministic`.
    fn validate_deterministic(&self) -> Result<(), MullamaError> {
        if self.gpu_layers != 0 {
            return Err(E::invalid("gpu_layers", self.gpu_layers, "deterministic runs on the CPU alone; use 0"));
        }
        if self.flash_attention == Some(false) {
            return Err(E::invalid("flash_attention", false, "deterministic needs it; leave it out or use true"));
        }
        if self.kv_type_k == KvType::F32 {
            return Err(E::invalid("kv_type_k", "f32", "under deterministic use q8_0 or bf16, or leave it out"));
        }
        let all = self.context_size * self.max_concurrent;
        match self.cache_size {
            Some(cache_size) if cache_size < all => {
                let reason = format!(
                    "under deterministic each request has context_size tokens of its own: use {all} or more, leave it \
                     out, or lower max_concurrent or context_size"
                );
                Err(E::invalid("cache_size", cache_size, reason))
            }
            _ => Ok(()),
        }
    }

    /// The options with those filled in that `deterministic` asks for.
    ///
    /// ggml's own attention takes another path for a lone row, and for many,
    /// when keys and values are both `F16` or both `F32`, and how it divides the
    /// first depends on the threads. With keys of another type there is one, and
    /// so it is in ours, which CPUs without AVX2 lack (`core/cmake`).
    pub(crate) fn resolved(mut self) -> Self {
        if self.deterministic {
            self.flash_attention = Some(true);
            if self.kv_type_k == KvType::F16 {
                self.kv_type_k = KvType::Q8_0;
            }
        }
        self
    }

    /// Tokens that the KV cache holds over `max_concurrent` requests.
    pub(crate) fn cache_size_for(&self, max_concurrent: usize) -> usize {
        let all = self.context_size * max_concurrent;
        // Memory of each request's own has no use for more, nor room in less.
        self.cache_size.filter(|_| !self.deterministic).unwrap_or(all)
    }

    /// The threads that decode: no more than the process may use, since one
    /// more spinning thread than cores makes every step many times slower.
    pub(crate) fn effective_threads(&self) -> usize {
        self.threads.min(available_threads())
    }
}

pub(crate) fn in_range(field: &str, value: usize, least: usize, most: usize) -> Result<(), MullamaError> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    let reason = if most == usize::MAX {
        format!("use {least} or more")
    } else {
        format!("use {least} to {most}")
    };
    Err(E::invalid(field, value, reason))
}

/// Processors that this process may use: affinity mask and cgroup quota.
pub(crate) fn available_threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The seven settings of an `AsyncModel`.
///
/// ```
/// # #[cfg(feature = "async")] {
/// use mullama::AsyncConfig;
/// let config = AsyncConfig { model_path: "model.gguf".into(), context_size: 4096, ..Default::default() };
/// assert_eq!(config.max_concurrent, 4);
/// # }
/// ```
#[cfg(feature = "async")]
#[derive(Debug, Clone)]
pub struct AsyncConfig {
    /// The GGUF file.
    pub model_path: String,
    /// Layers to keep on a GPU; 0 (the default) none, -1 all.
    pub gpu_layers: i32,
    /// Tokens (prompt and answer) that each request may use. Default 2048.
    pub context_size: usize,
    /// Threads that decode. Default: the processors that the process may use.
    pub threads: usize,
    /// Whether attention must run as flash attention. Default `false`:
    /// llama.cpp uses it where it is sure to be supported.
    pub flash_attention: bool,
    /// Requests active at once; more wait their turn. Default 4.
    pub max_concurrent: usize,
    /// Milliseconds from submission to the last token; 0 is no limit.
    /// Default 30,000.
    pub timeout_ms: u64,
}

#[cfg(feature = "async")]
impl Default for AsyncConfig {
    fn default() -> Self {
        let options = ModelOptions::default();
        Self {
            model_path: String::new(),
            gpu_layers: options.gpu_layers,
            context_size: options.context_size,
            threads: options.threads,
            flash_attention: false,
            max_concurrent: options.max_concurrent,
            timeout_ms: 30_000,
        }
    }
}

#[cfg(feature = "async")]
impl AsyncConfig {
    /// The path and the full set of options that these settings stand for.
    pub(crate) fn into_options(self) -> (std::path::PathBuf, ModelOptions) {
        let options = ModelOptions {
            gpu_layers: self.gpu_layers,
            context_size: self.context_size,
            threads: self.threads,
            flash_attention: self.flash_attention.then_some(true),
            max_concurrent: self.max_concurrent,
            batch_size: ModelOptions::default().batch_size.max(self.max_concurrent),
            timeout: timeout_from_ms(self.timeout_ms),
            ..ModelOptions::default()
        };
        (self.model_path.into(), options)
    }
}

/// The convention of every language: 0 milliseconds is no limit.
#[must_use]
pub fn timeout_from_ms(ms: u64) -> Option<Duration> {
    (ms > 0).then(|| Duration::from_millis(ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(options: ModelOptions, field: &str) {
        match options.validate() {
            Err(E::InvalidInput { field: f, .. }) => assert_eq!(f, field),
            other => panic!("expected {field} to be refused, got {other:?}"),
        }
    }

    #[test]
    fn the_defaults_are_valid() {
        ModelOptions::default().validate().unwrap();
    }

    #[test]
    fn each_field_out_of_range_is_named() {
        let d = ModelOptions::default;
        refused(ModelOptions { gpu_layers: -2, ..d() }, "gpu_layers");
        refused(ModelOptions { context_size: 0, ..d() }, "context_size");
        refused(ModelOptions { context_size: 2_000_000_000, ..d() }, "context_size");
        refused(ModelOptions { threads: 0, ..d() }, "threads");
        refused(ModelOptions { max_concurrent: 0, ..d() }, "max_concurrent");
        refused(ModelOptions { max_concurrent: 257, ..d() }, "max_concurrent");
        refused(ModelOptions { max_queue: 0, ..d() }, "max_queue");
        refused(ModelOptions { batch_size: 3, ..d() }, "batch_size");
        refused(ModelOptions { cache_size: Some(2047), ..d() }, "cache_size");
        let quantized = ModelOptions { kv_type_v: KvType::Q8_0, flash_attention: Some(false), ..d() };
        refused(quantized, "kv_type_v");
    }

    #[test]
    fn what_contradicts_deterministic_is_refused_and_the_rest_is_filled_in() {
        let d = || ModelOptions { deterministic: true, ..ModelOptions::default() };
        refused(ModelOptions { gpu_layers: -1, ..d() }, "gpu_layers");
        refused(ModelOptions { flash_attention: Some(false), ..d() }, "flash_attention");
        refused(ModelOptions { kv_type_k: KvType::F32, ..d() }, "kv_type_k");
        refused(ModelOptions { cache_size: Some(4 * 2048 - 1), ..d() }, "cache_size");
        ModelOptions { cache_size: Some(4 * 2048), ..d() }.validate().unwrap();
        let resolved = d().resolved();
        assert_eq!((resolved.kv_type_k, resolved.kv_type_v), (KvType::Q8_0, KvType::F16));
        assert_eq!(resolved.flash_attention, Some(true));
        assert_eq!(ModelOptions { kv_type_k: KvType::Bf16, ..d() }.resolved().kv_type_k, KvType::Bf16);
        assert_eq!(ModelOptions::default().resolved().kv_type_k, KvType::F16);
    }

    #[test]
    fn never_more_threads_than_processors() {
        let many = ModelOptions { threads: 600, ..ModelOptions::default() };
        assert_eq!(many.effective_threads(), available_threads());
    }
}
