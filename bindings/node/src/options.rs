//! Reads the options objects of JavaScript into the core's structs.
//!
//! A table for each kind of call names its options and how each is set;
//! whatever is not in the table is refused. Defaults and ranges are the
//! core's. `undefined` and `null` mean that an option was not given.

use crate::given::{Given, Outcome, invalid, unreadable};
use mullama::{ContextOptions, ModelOptions, MullamaError, MullamaRuntimeBuilder, StreamConfig, timeout_from_ms};
use napi::bindgen_prelude::*;
use std::{mem, time::Duration};

/// The name of an option, and what sets it from a value.
type Setter<T> = (&'static str, fn(&mut T, &Given<'_>) -> Outcome<()>);

const MODEL: &[Setter<ModelOptions>] = &[
    ("contextSize", |o, v| v.integer().map(|n| o.context_size = n)),
    ("gpuLayers", |o, v| v.integer().map(|n| o.gpu_layers = n)),
    ("threads", |o, v| v.integer().map(|n| o.threads = n)),
    ("maxConcurrent", |o, v| v.integer().map(|n| o.max_concurrent = n)),
    ("maxQueue", |o, v| v.integer().map(|n| o.max_queue = n)),
    ("timeoutMs", |o, v| v.integer().map(|n| o.timeout = timeout_from_ms(n))),
    ("flashAttention", |o, v| v.boolean().map(|b| o.flash_attention = Some(b))),
    ("batchSize", |o, v| v.integer().map(|n| o.batch_size = n)),
    ("cacheSize", |o, v| v.integer().map(|n| o.cache_size = Some(n))),
    ("kvTypeK", |o, v| v.kv_type().map(|kind| o.kv_type_k = kind)),
    ("kvTypeV", |o, v| v.kv_type().map(|kind| o.kv_type_v = kind)),
    ("prefixCacheBytes", |o, v| v.integer().map(|n| o.prefix_cache_bytes = Some(n))),
    ("useMmap", |o, v| v.boolean().map(|b| o.use_mmap = b)),
    ("deterministic", |o, v| v.boolean().map(|b| o.deterministic = b)),
    ("promptLookup", |o, v| v.boolean().map(|b| o.prompt_lookup = b)),
];

const STREAM: &[Setter<StreamConfig>] = &[
    ("maxTokens", |c, v| v.integer().map(|n| c.max_tokens = n)),
    ("temperature", |c, v| v.float().map(|x| c.temperature = x)),
    ("topK", |c, v| v.integer().map(|n| c.top_k = n)),
    ("topP", |c, v| v.float().map(|x| c.top_p = x)),
    ("minP", |c, v| v.float().map(|x| c.min_p = x)),
    ("typicalP", |c, v| v.float().map(|x| c.typical_p = x)),
    ("repeatPenalty", |c, v| v.float().map(|x| c.repeat_penalty = x)),
    ("repeatLastN", |c, v| v.integer().map(|n| c.repeat_last_n = n)),
    ("frequencyPenalty", |c, v| v.float().map(|x| c.frequency_penalty = x)),
    ("presencePenalty", |c, v| v.float().map(|x| c.presence_penalty = x)),
    ("seed", |c, v| v.integer().map(|n| c.seed = Some(n))),
    ("stop", |c, v| v.texts().map(|texts| c.stop = texts)),
    ("logprobs", |c, v| v.integer().map(|n| c.logprobs = Some(n))),
    ("logitBias", |c, v| v.biases().map(|biases| c.logit_bias = biases)),
    ("ignoreEos", |c, v| v.boolean().map(|b| c.ignore_eos = b)),
    ("bufferSize", |c, v| v.integer().map(|n| c.buffer_size = n)),
    // Not `timeout_from_ms`: in a request `None` is the model's own limit, and
    // zero is none.
    ("timeoutMs", |c, v| v.milliseconds().map(|limit| c.timeout = Some(limit))),
];

const CONTEXT: &[Setter<ContextOptions>] = &[
    ("contextSize", |o, v| v.integer().map(|n| o.context_size = Some(n))),
    ("maxSequences", |o, v| v.integer().map(|n| o.max_sequences = n)),
    ("batchSize", |o, v| v.integer().map(|n| o.batch_size = Some(n))),
    ("threads", |o, v| v.integer().map(|n| o.threads = Some(n))),
    ("flashAttention", |o, v| v.boolean().map(|b| o.flash_attention = Some(b))),
    ("kvTypeK", |o, v| v.kv_type().map(|kind| o.kv_type_k = Some(kind))),
    ("kvTypeV", |o, v| v.kv_type().map(|kind| o.kv_type_v = Some(kind))),
];

const RUNTIME: &[Setter<MullamaRuntimeBuilder>] = &[
    ("workerThreads", |b, v| v.integer().map(|n| *b = mem::take(b).worker_threads(n))),
    ("maxBlockingThreads", |b, v| v.integer().map(|n| *b = mem::take(b).max_blocking_threads(n))),
    ("threadStackSize", |b, v| v.integer().map(|n| *b = mem::take(b).thread_stack_size(n))),
    ("threadName", |b, v| v.text().map(|name| *b = mem::take(b).thread_name(&name))),
    ("shutdownTimeoutMs", |b, v| v.milliseconds().map(|limit| *b = mem::take(b).shutdown_timeout(limit))),
];

/// How long to wait for a lease; without a limit until there is one.
#[derive(Default)]
pub(crate) struct AcquireOptions {
    pub(crate) limit: Option<Duration>,
}

const ACQUIRE: &[Setter<AcquireOptions>] = &[("timeoutMs", |o, v| v.milliseconds().map(|limit| o.limit = Some(limit)))];

/// What a collector of metrics is told; the rest is the core's.
#[derive(Default)]
pub(crate) struct CollectorOptions {
    pub(crate) interval: Option<Duration>,
    pub(crate) capacity: Option<usize>,
}

const COLLECTOR: &[Setter<CollectorOptions>] = &[
    ("intervalMs", |o, v| v.milliseconds().map(|interval| o.interval = Some(interval))),
    ("capacity", |o, v| v.integer().map(|n| o.capacity = Some(n))),
];

/// Options that JavaScript handles itself; named in suggestions.
const LOAD_ONLY: &[&str] = &["signal", "onProgress"];
const SIGNAL: &[&str] = &["signal"];

pub(crate) fn model_options(options: &Object<'_>) -> Outcome<ModelOptions> {
    read(options, MODEL, LOAD_ONLY)
}

pub(crate) fn stream_config(options: &Object<'_>) -> Outcome<StreamConfig> {
    read(options, STREAM, SIGNAL)
}

pub(crate) fn context_options(options: &Object<'_>) -> Outcome<ContextOptions> {
    read(options, CONTEXT, SIGNAL)
}

pub(crate) fn runtime_builder(options: &Object<'_>) -> Outcome<MullamaRuntimeBuilder> {
    read(options, RUNTIME, &[])
}

pub(crate) fn acquire_options(options: &Object<'_>) -> Outcome<AcquireOptions> {
    read(options, ACQUIRE, SIGNAL)
}

pub(crate) fn collector_options(options: &Object<'_>) -> Outcome<CollectorOptions> {
    read(options, COLLECTOR, &[])
}

/// For calls whose only option is a signal, which JavaScript took out.
pub(crate) fn no_options(options: &Object<'_>) -> Outcome<()> {
    read(options, &[], SIGNAL)
}

fn read<T: Default>(options: &Object<'_>, setters: &[Setter<T>], elsewhere: &[&str]) -> Outcome<T> {
    let mut result = T::default();
    for name in Object::keys(options).map_err(|error| unreadable("options", &error))? {
        let value = options.get::<Unknown<'_>>(&name).map_err(|error| unreadable(&name, &error))?;
        let Some(value) = value else { continue };
        let given = Given { name: &name, value };
        let setter = setters.iter().find(|(known, _)| *known == name);
        let Some((_, set)) = setter else {
            let known = setters.iter().map(|(known, _)| *known).chain(elsewhere.iter().copied());
            return Err(unknown_option(&given, known));
        };
        if given.is_present() {
            set(&mut result, &given)?;
        }
    }
    Ok(result)
}

fn unknown_option<'a>(given: &Given<'_>, known: impl Iterator<Item = &'a str>) -> MullamaError {
    let name = given.name;
    let nearest = known.min_by_key(|known| distance(name, known)).unwrap_or_default();
    invalid(name, given.shown(), format!("there is no such option; the nearest is '{nearest}'"))
}

/// Edits (insert, delete, replace) between two names, ignoring case and
/// underscores, so that `max_tokens` is next to `maxTokens`.
fn distance(a: &str, b: &str) -> usize {
    let letters =
        |name: &str| -> Vec<char> { name.chars().filter(|c| *c != '_').map(|c| c.to_ascii_lowercase()).collect() };
    let (a, b) = (letters(a), letters(b));
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replace = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replace.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}
