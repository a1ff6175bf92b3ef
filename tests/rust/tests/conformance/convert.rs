//! Options from JSON, and results and errors to JSON.

use crate::value::{float, list, text};
use mullama::{
    BackendInfo, Batch, ContextOptions, DeviceInfo, EngineMetrics, FinishReason, Generation, LayerPlacement, ModelInfo,
    ModelOptions, MullamaError, PoolStats, RuntimeMetrics, StreamConfig, TokenData, TokenId, TokenLogprob, Usage,
    WorkerStatus, timeout_from_ms,
};
use serde_json::{Map, Value, json};
use std::{collections::HashMap, time::Duration};

/// # Panics
/// On an option that Rust does not have, or a value that its type can't hold:
/// such a step must leave Rust out.
pub(crate) fn stream_config(options: &Value) -> StreamConfig {
    let mut config = StreamConfig::new();
    for (name, value) in object(options) {
        match name.as_str() {
            "max_tokens" => config.max_tokens = count(value),
            "temperature" => config.temperature = float(value) as f32,
            "top_k" => config.top_k = count(value),
            "top_p" => config.top_p = float(value) as f32,
            "min_p" => config.min_p = float(value) as f32,
            "typical_p" => config.typical_p = float(value) as f32,
            "repeat_penalty" => config.repeat_penalty = float(value) as f32,
            "repeat_last_n" => config.repeat_last_n = count(value),
            "frequency_penalty" => config.frequency_penalty = float(value) as f32,
            "presence_penalty" => config.presence_penalty = float(value) as f32,
            "seed" => config.seed = Some(count(value) as u64),
            "stop" => config.stop = list(value).iter().map(|stop| text(stop).to_owned()).collect(),
            "logprobs" => config.logprobs = Some(count(value)),
            "logit_bias" => {
                config.logit_bias = list(value).iter().map(|pair| (token(&pair[0]), float(&pair[1]) as f32)).collect();
            }
            "ignore_eos" => config.ignore_eos = switch(value),
            "buffer_size" => config.buffer_size = count(value),
            "timeout_ms" => config.timeout = Some(Duration::from_millis(count(value) as u64)),
            _ => panic!("Rust has no option '{name}'"),
        }
    }
    config
}

/// # Panics
/// As [`stream_config`].
pub(crate) fn model_options(options: &Value) -> ModelOptions {
    let mut model = ModelOptions::default();
    for (name, value) in object(options) {
        match name.as_str() {
            "context_size" => model.context_size = count(value),
            "gpu_layers" => model.gpu_layers = token(value),
            "threads" => model.threads = count(value),
            "max_concurrent" => model.max_concurrent = count(value),
            "max_queue" => model.max_queue = count(value),
            "timeout_ms" => model.timeout = timeout_from_ms(count(value) as u64),
            "flash_attention" => model.flash_attention = Some(switch(value)),
            "batch_size" => model.batch_size = count(value),
            "cache_size" => model.cache_size = Some(count(value)),
            "kv_type_k" => model.kv_type_k = text(value).parse().expect("a wrong name is no case for Rust"),
            "kv_type_v" => model.kv_type_v = text(value).parse().expect("a wrong name is no case for Rust"),
            "prefix_cache_bytes" => model.prefix_cache_bytes = Some(count(value) as u64),
            "use_mmap" => model.use_mmap = switch(value),
            "prompt_lookup" => model.prompt_lookup = switch(value),
            "deterministic" => model.deterministic = switch(value),
            _ => panic!("Rust has no option '{name}'"),
        }
    }
    model
}

/// # Panics
/// As [`stream_config`].
pub(crate) fn context_options(options: &Value) -> ContextOptions {
    let mut context = ContextOptions::default();
    let kind = |value| Some(text(value).parse().expect("a wrong name is no case for Rust"));
    for (name, value) in object(options) {
        match name.as_str() {
            "context_size" => context.context_size = Some(count(value)),
            "max_sequences" => context.max_sequences = count(value),
            "batch_size" => context.batch_size = Some(count(value)),
            "threads" => context.threads = Some(count(value)),
            "flash_attention" => context.flash_attention = Some(switch(value)),
            "kv_type_k" => context.kv_type_k = kind(value),
            "kv_type_v" => context.kv_type_v = kind(value),
            _ => panic!("Rust has no option '{name}'"),
        }
    }
    context
}

pub(crate) fn batch(rows: &Value) -> Batch {
    let tokens = |value| list(value).iter().map(token).collect::<Vec<_>>();
    let mut batch = Batch::new();
    for row in list(rows) {
        if row.get("token").is_some() {
            let logits = row.get("logits").is_some_and(switch);
            batch.add(token(&row["token"]), count(&row["position"]), &tokens(&row["seq_ids"]), logits);
        } else {
            batch.add_sequence(token(&row["seq_id"]), &tokens(&row["tokens"]));
        }
    }
    batch
}

fn object(options: &Value) -> impl Iterator<Item = (&String, &Value)> {
    options.as_object().into_iter().flatten()
}

pub(crate) fn count(value: &Value) -> usize {
    let count = value.as_u64().unwrap_or_else(|| panic!("expected a count, got {value}"));
    usize::try_from(count).expect("these tests need 64 bits")
}

fn switch(value: &Value) -> bool {
    value.as_bool().unwrap_or_else(|| panic!("expected true or false, got {value}"))
}

pub(crate) fn token(value: &Value) -> TokenId {
    let id = value.as_i64().and_then(|id| TokenId::try_from(id).ok());
    id.unwrap_or_else(|| panic!("expected a token id, got {value}"))
}

pub(crate) fn generation(found: &Generation) -> Value {
    let logprobs = found.logprobs.as_ref().map(|places| -> Vec<_> {
        let place = |it: &mullama::TokenLogprobs| json!({ "token_id": it.token_id, "logprob": it.logprob, "top": top(&it.top) });
        places.iter().map(place).collect()
    });
    json!({
        "text": found.text,
        "tokens": found.tokens,
        "finish_reason": found.finish_reason.name(),
        "stop_string": stop_string(Some(&found.finish_reason)),
        "usage": usage(found.usage),
        "timings": {
            "queued": found.timings.queued.as_secs_f64(),
            "prefill": found.timings.prefill.as_secs_f64(),
            "decode": found.timings.decode.as_secs_f64(),
            "time_to_first_token": found.timings.time_to_first_token.as_secs_f64(),
        },
        "seed": found.seed,
        "logprobs": logprobs,
    })
}

/// What a stream gave, and what it says of itself afterwards.
pub(crate) fn stream(items: &[TokenData], reason: Option<&FinishReason>, used: Usage, seed: u64) -> Value {
    json!({
        "items": items.iter().map(item).collect::<Vec<_>>(),
        "text": joined(items),
        "tokens": items.iter().map(|item| item.token_id).collect::<Vec<_>>(),
        "finish_reason": reason.map(FinishReason::name),
        "stop_string": stop_string(reason),
        "usage": usage(used),
        "seed": seed,
    })
}

fn item(item: &TokenData) -> Value {
    json!({
        "text": item.text,
        "token_id": item.token_id,
        "index": item.index,
        "logprob": item.logprob,
        "top_logprobs": top(&item.top_logprobs),
        "is_final": item.is_final,
        "finish_reason": item.finish_reason.as_ref().map(FinishReason::name),
        "stop_string": stop_string(item.finish_reason.as_ref()),
    })
}

pub(crate) fn joined(items: &[TokenData]) -> String {
    items.iter().map(|item| item.text.as_str()).collect()
}

fn top(list: &[TokenLogprob]) -> Vec<Value> {
    list.iter().map(|it| json!({ "token_id": it.token_id, "text": it.text, "logprob": it.logprob })).collect()
}

fn usage(usage: Usage) -> Value {
    json!({
        "prompt_tokens": usage.prompt_tokens,
        "cached_tokens": usage.cached_tokens,
        "completion_tokens": usage.completion_tokens,
    })
}

fn stop_string(reason: Option<&FinishReason>) -> Option<&str> {
    match reason {
        Some(FinishReason::StopString(text)) => Some(text),
        _ => None,
    }
}

pub(crate) fn info(info: &ModelInfo) -> Value {
    json!({
        "name": info.name,
        "architecture": info.architecture,
        "n_params": info.n_params,
        "n_vocab": info.n_vocab,
        "n_embd": info.n_embd,
        "n_layer": info.n_layer,
        "n_head": info.n_head,
        "n_ctx_train": info.n_ctx_train,
        "size_bytes": info.size_bytes,
    })
}

pub(crate) fn metrics(metrics: &EngineMetrics) -> Value {
    json!({
        "queued": metrics.queued,
        "active": metrics.active,
        "completed": metrics.completed,
        "cancelled": metrics.cancelled,
        "failed": metrics.failed,
        "prompt_tokens": metrics.prompt_tokens,
        "cached_tokens": metrics.cached_tokens,
        "generated_tokens": metrics.generated_tokens,
        "drafted_tokens": metrics.drafted_tokens,
        "accepted_tokens": metrics.accepted_tokens,
        "steps": metrics.steps,
        "threads": metrics.threads,
        "cache_bytes": metrics.cache_bytes,
        "prefix_cache_bytes": metrics.prefix_cache_bytes,
        "preemptions": metrics.preemptions,
        "cache_size_bytes": metrics.cache_size_bytes,
        "weights_bytes": metrics.weights_bytes,
        "weights_shared": metrics.weights_shared,
        "load_time": metrics.load_time.as_secs_f64(),
    })
}

pub(crate) fn pool_stats(stats: &PoolStats) -> Value {
    json!({
        "size": stats.size,
        "available": stats.available,
        "in_use": stats.in_use,
        "waiting": stats.waiting,
        "acquired_total": stats.acquired_total,
        "wait_ms_avg": stats.wait_ms_avg,
    })
}

pub(crate) fn runtime_metrics(metrics: &RuntimeMetrics) -> Value {
    json!({
        "active_tasks": metrics.active_tasks,
        "completed_tasks": metrics.completed_tasks,
        "worker_threads": metrics.worker_threads,
        "blocking_threads": metrics.blocking_threads,
        "total_generations": metrics.total_generations,
        "avg_generation_ms": metrics.avg_generation_ms,
        "uptime_seconds": metrics.uptime_seconds,
    })
}

pub(crate) fn statuses(statuses: &HashMap<String, WorkerStatus>) -> Value {
    let status = |status: &WorkerStatus| match status {
        WorkerStatus::Running => json!({ "state": "running", "message": null }),
        WorkerStatus::Completed => json!({ "state": "completed", "message": null }),
        WorkerStatus::Failed(message) => json!({ "state": "failed", "message": message }),
        WorkerStatus::Panicked(message) => json!({ "state": "panicked", "message": message }),
        WorkerStatus::Stopped => json!({ "state": "stopped", "message": null }),
    };
    statuses.iter().map(|(name, it)| (name.clone(), status(it))).collect::<Map<_, _>>().into()
}

pub(crate) fn backends(backends: &[BackendInfo]) -> Value {
    backends.iter().map(|it| json!({ "name": it.name, "n_devices": it.n_devices, "variant": it.variant })).collect()
}

pub(crate) fn devices(devices: &[DeviceInfo]) -> Value {
    let device = |it: &DeviceInfo| {
        json!({
            "name": it.name,
            "description": it.description,
            "backend": it.backend,
            "kind": it.kind.name(),
            "memory_free": it.memory_free,
            "memory_total": it.memory_total,
        })
    };
    devices.iter().map(device).collect()
}

pub(crate) fn placement(layers: &[LayerPlacement]) -> Value {
    layers.iter().map(|it| json!({ "device": it.device, "n_layers": it.n_layers })).collect()
}

pub(crate) fn error(error: &MullamaError) -> Value {
    use MullamaError as E;
    let fields = match error {
        E::ModelNotFound { path } => json!({ "path": path }),
        E::InvalidModel { path, reason } | E::ModelLoad { path, reason } => json!({ "path": path, "reason": reason }),
        E::PromptTooLong { tokens, limit } => json!({ "tokens": tokens, "limit": limit }),
        E::InvalidInput { field, value, reason } => json!({ "field": field, "value": value, "reason": reason }),
        E::Timeout { partial, after_ms } => json!({ "partial": partial, "after_ms": after_ms }),
        E::QueueFull { limit } => json!({ "limit": limit }),
        _ => json!({}),
    };
    let mut map =
        Map::from_iter([("code".to_owned(), error.code().into()), ("message".to_owned(), error.to_string().into())]);
    map.extend(fields.as_object().cloned().unwrap_or_default());
    Value::Object(map)
}
