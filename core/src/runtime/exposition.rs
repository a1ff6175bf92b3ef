//! The figures of a runtime and of all engines as Prometheus text. Read at
//! each call and written by prometheus-client; nothing is kept in between.

use super::RuntimeMetrics;
use crate::{
    Histogram,
    engine::{Figures, all_metrics},
};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder, NoLabelSet, prometheus_text},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::Registry,
};
use std::fmt::Error;

/// The text of a runtime's figures and of all engines'.
pub(super) fn encode(runtime: RuntimeMetrics) -> String {
    text(Reading { runtime, engines: all_metrics() })
}

fn text(reading: Reading) -> String {
    let mut registry = Registry::with_prefix("mullama");
    registry.register_collector(Box::new(reading));
    let mut text = String::new();
    prometheus_text::encode(&mut text, &registry).expect("a string takes whatever is written to it");
    text
}

/// What is written.
#[derive(Debug)]
struct Reading {
    runtime: RuntimeMetrics,
    engines: Vec<Figures>,
}

/// A value of a family.
enum Value {
    /// Written with the suffix `_total`.
    Counter(u64),
    Gauge(u64),
    Seconds(f64),
    Histogram(Histogram),
}

impl Collector for Reading {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        for (name, help, value) in of_runtime(&self.runtime) {
            value.write(encoder.encode_descriptor(name, help, None, value.kind())?)?;
        }
        for (name, help, read) in OF_ENGINE {
            let values: Vec<_> = self.engines.iter().map(|engine| (labels(engine), read(engine))).collect();
            // A family without a value has no type to tell either.
            let Some((_, first)) = values.first() else { continue };
            let mut family = encoder.encode_descriptor(name, help, None, first.kind())?;
            for (labels, value) in &values {
                value.write(family.encode_family(labels)?)?;
            }
        }
        Ok(())
    }
}

/// Of two loads of one file only the number differs.
fn labels(engine: &Figures) -> [(&'static str, String); 2] {
    [("model", engine.model.clone()), ("engine", engine.number.to_string())]
}

fn of_runtime(metrics: &RuntimeMetrics) -> [(&'static str, &'static str, Value); 7] {
    use Value::{Counter, Gauge, Seconds};
    [
        ("runtime_active_tasks", "Tasks of the runtime that live now", Gauge(metrics.active_tasks as u64)),
        (
            "runtime_completed_tasks",
            "Tasks of the runtime that have returned, panicked or been aborted",
            Counter(metrics.completed_tasks),
        ),
        ("runtime_worker_threads", "Threads of the runtime that run async tasks", Gauge(metrics.worker_threads as u64)),
        (
            "runtime_blocking_threads",
            "Threads of the runtime for blocking work that exist now",
            Gauge(metrics.blocking_threads as u64),
        ),
        ("generations", "Generations of the process that ended with a result", Counter(metrics.total_generations)),
        (
            "generation_mean_seconds",
            "Mean time of these generations from submission to the last token",
            Seconds(metrics.avg_generation_ms / 1000.0),
        ),
        ("runtime_uptime_seconds", "Whole seconds since the runtime was started", Gauge(metrics.uptime_seconds)),
    ]
}

/// A family's name and help, and where its value is.
type Family = (&'static str, &'static str, fn(&Figures) -> Value);

const OF_ENGINE: [Family; 21] = [
    ("engine_queued_requests", "Requests that wait for admission now", |e| Value::Gauge(e.metrics.queued as u64)),
    ("engine_active_requests", "Requests that are served now", |e| Value::Gauge(e.metrics.active as u64)),
    ("engine_completed_requests", "Requests that ended with a result", |e| Value::Counter(e.metrics.completed)),
    ("engine_cancelled_requests", "Requests that ended by cancellation", |e| Value::Counter(e.metrics.cancelled)),
    ("engine_failed_requests", "Requests that ended with an error, a timeout included", |e| {
        Value::Counter(e.metrics.failed)
    }),
    ("engine_prompt_tokens", "Prompt tokens computed", |e| Value::Counter(e.metrics.prompt_tokens)),
    ("engine_cached_tokens", "Prompt tokens taken from a cache", |e| Value::Counter(e.metrics.cached_tokens)),
    ("engine_generated_tokens", "Tokens generated", |e| Value::Counter(e.metrics.generated_tokens)),
    ("engine_drafted_tokens", "Tokens guessed and evaluated", |e| Value::Counter(e.metrics.drafted_tokens)),
    ("engine_accepted_tokens", "Guessed tokens that were drawn", |e| Value::Counter(e.metrics.accepted_tokens)),
    ("engine_steps", "Decode steps", |e| Value::Counter(e.metrics.steps)),
    ("engine_step_seconds", "Durations of decode steps", |e| Value::Histogram(e.metrics.step_time.clone())),
    ("engine_time_to_first_token_seconds", "Times from submission to the first token", |e| {
        Value::Histogram(e.metrics.time_to_first_token.clone())
    }),
    ("engine_threads", "Threads that decode now", |e| Value::Gauge(e.metrics.threads as u64)),
    ("engine_cache_bytes", "Bytes of the KV cache that hold live tokens now", |e| Value::Gauge(e.metrics.cache_bytes)),
    ("engine_prefix_cache_bytes", "Bytes of RAM that hold what requests have computed now", |e| {
        Value::Gauge(e.metrics.prefix_cache_bytes)
    }),
    ("engine_preemptions", "Times that a request made room for others", |e| Value::Counter(e.metrics.preemptions)),
    ("engine_cache_size_bytes", "Bytes of the whole KV cache", |e| Value::Gauge(e.metrics.cache_size_bytes)),
    ("engine_weights_bytes", "Bytes of the weights", |e| Value::Gauge(e.metrics.weights_bytes)),
    ("engine_weights_shared", "Whether the load found the weights in the process", |e| {
        Value::Gauge(e.metrics.weights_shared.into())
    }),
    ("engine_load_seconds", "How long the load took", |e| Value::Seconds(e.metrics.load_time.as_secs_f64())),
];

impl Value {
    fn kind(&self) -> MetricType {
        match self {
            Self::Counter(_) => MetricType::Counter,
            Self::Gauge(_) | Self::Seconds(_) => MetricType::Gauge,
            Self::Histogram(_) => MetricType::Histogram,
        }
    }

    fn write(&self, mut encoder: MetricEncoder<'_>) -> Result<(), Error> {
        match self {
            Self::Counter(n) => ConstCounter::new(*n).encode(encoder),
            Self::Gauge(n) => ConstGauge::new(*n).encode(encoder),
            Self::Seconds(seconds) => ConstGauge::new(*seconds).encode(encoder),
            Self::Histogram(histogram) => {
                let bounds = histogram.bounds.iter().map(std::time::Duration::as_secs_f64).chain([f64::INFINITY]);
                // The encoder adds them up.
                let buckets: Vec<(f64, u64)> = bounds.zip(histogram.counts.iter().copied()).collect();
                let count = histogram.counts.iter().sum();
                encoder.encode_histogram::<NoLabelSet>(histogram.sum.as_secs_f64(), count, &buckets, None)
            }
        }
    }
}
