//! What a model is ([`ModelInfo`]) and what its engine has done
//! ([`EngineMetrics`]).

use std::time::Duration;

/// Facts about a loaded model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelInfo {
    /// `general.name` of the file, or the file's name without its ending.
    pub name: String,
    /// `general.architecture`, such as `llama`.
    pub architecture: String,
    /// Parameters.
    pub n_params: u64,
    /// Entries of the vocabulary.
    pub n_vocab: usize,
    /// Width of the embeddings.
    pub n_embd: usize,
    /// Layers.
    pub n_layer: usize,
    /// Attention heads of the first layer.
    pub n_head: usize,
    /// Tokens of context the model was trained for.
    pub n_ctx_train: usize,
    /// Bytes of all tensors together.
    pub size_bytes: u64,
}

/// A count of durations by upper bound.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Histogram {
    /// Upper bounds of the buckets, ascending; the last bucket has none.
    pub bounds: Vec<Duration>,
    /// Observations in each bucket (not cumulated); one more than `bounds`.
    pub counts: Vec<u64>,
    /// Sum of all observations.
    pub sum: Duration,
}

/// Live figures of one model's engine. Counts go from the load on.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct EngineMetrics {
    /// Requests waiting for admission, now.
    pub queued: usize,
    /// Requests being served, now.
    pub active: usize,
    /// Requests that ended with a result.
    pub completed: u64,
    /// Requests that ended by cancellation.
    pub cancelled: u64,
    /// Requests that ended with an error, a timeout included.
    pub failed: u64,
    /// Prompt tokens computed.
    pub prompt_tokens: u64,
    /// Prompt tokens that were not computed: another request had computed them.
    pub cached_tokens: u64,
    /// Tokens generated.
    pub generated_tokens: u64,
    /// Tokens that prompt lookup guessed and evaluated.
    pub drafted_tokens: u64,
    /// Those of them that were drawn, and so saved a step.
    pub accepted_tokens: u64,
    /// Decode steps.
    pub steps: u64,
    /// Durations of decode steps.
    pub step_time: Histogram,
    /// Times from submission to the first token.
    pub time_to_first_token: Histogram,
    /// Threads that decode, now.
    pub threads: usize,
    /// Bytes of the KV cache that hold live tokens, now. Exact for models
    /// whose every layer keeps all tokens.
    pub cache_bytes: u64,
    /// Bytes of RAM that hold what requests have computed, for later ones that
    /// begin alike, now. At most the model's `prefix_cache_bytes`.
    pub prefix_cache_bytes: u64,
    /// How many times a request made room for others: its memory went to RAM,
    /// and back when there was room again.
    pub preemptions: u64,
    /// Bytes of the whole KV cache, whether tokens lie in it or not. Exact as
    /// `cache_bytes` is.
    pub cache_size_bytes: u64,
    /// Bytes of the weights.
    pub weights_bytes: u64,
    /// Whether the load found the weights in the process: another model has
    /// the same file, loaded with the same `gpu_layers`, `use_mmap` and
    /// `deterministic`. They are in memory once then.
    pub weights_shared: bool,
    /// How long the load took.
    pub load_time: Duration,
}
