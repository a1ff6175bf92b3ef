//! Python's keyword options as the core's option structs.
//!
//! Each starts from the core's defaults and overwrites what the caller gave;
//! `None` is 'not given'. Only what no Rust type can hold is refused here.

use crate::{
    arguments::{Bounds, boolean, float, integer, text},
    errors::invalid,
};
use mullama::{
    ContextOptions, KvType, ModelOptions, MullamaRuntime, MullamaRuntimeBuilder, StreamConfig, TokenId, timeout_from_ms,
};
use pyo3::{
    prelude::*,
    types::{PyDict, PyMapping, PyString},
};
use std::time::Duration;

const GENERATE: [&str; 17] = [
    "max_tokens",
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "typical_p",
    "repeat_penalty",
    "repeat_last_n",
    "frequency_penalty",
    "presence_penalty",
    "seed",
    "stop",
    "logprobs",
    "logit_bias",
    "ignore_eos",
    "buffer_size",
    "timeout_ms",
];

const LOAD: [&str; 15] = [
    "context_size",
    "gpu_layers",
    "threads",
    "max_concurrent",
    "max_queue",
    "timeout_ms",
    "flash_attention",
    "batch_size",
    "cache_size",
    "kv_type_k",
    "kv_type_v",
    "prefix_cache_bytes",
    "use_mmap",
    "deterministic",
    "prompt_lookup",
];

const CONTEXT: [&str; 7] =
    ["context_size", "max_sequences", "batch_size", "threads", "flash_attention", "kv_type_k", "kv_type_v"];

const RUNTIME: [&str; 5] =
    ["worker_threads", "max_blocking_threads", "thread_stack_size", "thread_name", "shutdown_timeout_ms"];

pub(crate) fn stream_config(options: &Bound<'_, PyDict>) -> PyResult<StreamConfig> {
    let mut config = StreamConfig::default();
    for given in given(options, &GENERATE)? {
        match given.name.as_str() {
            "max_tokens" => config.max_tokens = given.integer()?,
            "temperature" => config.temperature = given.float()?,
            "top_k" => config.top_k = given.integer()?,
            "top_p" => config.top_p = given.float()?,
            "min_p" => config.min_p = given.float()?,
            "typical_p" => config.typical_p = given.float()?,
            "repeat_penalty" => config.repeat_penalty = given.float()?,
            "repeat_last_n" => config.repeat_last_n = given.integer()?,
            "frequency_penalty" => config.frequency_penalty = given.float()?,
            "presence_penalty" => config.presence_penalty = given.float()?,
            "seed" => config.seed = Some(given.integer()?),
            "stop" => config.stop = given.texts()?,
            "logprobs" => config.logprobs = Some(given.integer()?),
            "logit_bias" => config.logit_bias = given.biases()?,
            "ignore_eos" => config.ignore_eos = given.boolean()?,
            "buffer_size" => config.buffer_size = given.integer()?,
            // Not `timeout_from_ms`: in a request `None` is the model's own
            // limit, and zero is none.
            "timeout_ms" => config.timeout = Some(Duration::from_millis(given.integer()?)),
            _ => return Err(given.unknown(&GENERATE)),
        }
    }
    Ok(config)
}

pub(crate) fn model_options(options: &Bound<'_, PyDict>) -> PyResult<ModelOptions> {
    let mut model = ModelOptions::default();
    for given in given(options, &LOAD)? {
        match given.name.as_str() {
            "context_size" => model.context_size = given.integer()?,
            "gpu_layers" => model.gpu_layers = given.integer()?,
            "threads" => model.threads = given.integer()?,
            "max_concurrent" => model.max_concurrent = given.integer()?,
            "max_queue" => model.max_queue = given.integer()?,
            "timeout_ms" => model.timeout = timeout_from_ms(given.integer()?),
            "flash_attention" => model.flash_attention = Some(given.boolean()?),
            "batch_size" => model.batch_size = given.integer()?,
            "cache_size" => model.cache_size = Some(given.integer()?),
            "kv_type_k" => model.kv_type_k = given.kv_type()?,
            "kv_type_v" => model.kv_type_v = given.kv_type()?,
            "prefix_cache_bytes" => model.prefix_cache_bytes = Some(given.integer()?),
            "use_mmap" => model.use_mmap = given.boolean()?,
            "deterministic" => model.deterministic = given.boolean()?,
            "prompt_lookup" => model.prompt_lookup = given.boolean()?,
            _ => return Err(given.unknown(&LOAD)),
        }
    }
    Ok(model)
}

pub(crate) fn context_options(options: &Bound<'_, PyDict>) -> PyResult<ContextOptions> {
    let mut context = ContextOptions::default();
    for given in given(options, &CONTEXT)? {
        match given.name.as_str() {
            "context_size" => context.context_size = Some(given.integer()?),
            "max_sequences" => context.max_sequences = given.integer()?,
            "batch_size" => context.batch_size = Some(given.integer()?),
            "threads" => context.threads = Some(given.integer()?),
            "flash_attention" => context.flash_attention = Some(given.boolean()?),
            "kv_type_k" => context.kv_type_k = Some(given.kv_type()?),
            "kv_type_v" => context.kv_type_v = Some(given.kv_type()?),
            _ => return Err(given.unknown(&CONTEXT)),
        }
    }
    Ok(context)
}

pub(crate) fn runtime_options(options: &Bound<'_, PyDict>) -> PyResult<MullamaRuntimeBuilder> {
    let mut runtime = MullamaRuntime::new();
    for given in given(options, &RUNTIME)? {
        runtime = match given.name.as_str() {
            "worker_threads" => runtime.worker_threads(given.integer()?),
            "max_blocking_threads" => runtime.max_blocking_threads(given.integer()?),
            "thread_stack_size" => runtime.thread_stack_size(given.integer()?),
            "thread_name" => runtime.thread_name(&given.text()?),
            "shutdown_timeout_ms" => runtime.shutdown_timeout(Duration::from_millis(given.integer()?)),
            _ => return Err(given.unknown(&RUNTIME)),
        };
    }
    Ok(runtime)
}

/// One option that the caller gave.
struct Given<'py> {
    name: String,
    value: Bound<'py, PyAny>,
}

/// The options that are not `None`. A name that is not in `known` is refused
/// whatever its value.
fn given<'py>(options: &Bound<'py, PyDict>, known: &[&str]) -> PyResult<Vec<Given<'py>>> {
    let mut list = Vec::with_capacity(options.len());
    for (name, value) in options {
        let given = Given { name: name.str()?.to_string_lossy().into_owned(), value };
        if !known.contains(&given.name.as_str()) {
            return Err(given.unknown(known));
        }
        if !given.value.is_none() {
            list.push(given);
        }
    }
    Ok(list)
}

impl<'py> Given<'py> {
    fn integer<T: for<'a> FromPyObject<'a, 'py> + Bounds>(&self) -> PyResult<T> {
        integer(&self.name, &self.value)
    }

    fn float(&self) -> PyResult<f32> {
        float(&self.name, &self.value)
    }

    fn boolean(&self) -> PyResult<bool> {
        boolean(&self.name, &self.value)
    }

    fn text(&self) -> PyResult<String> {
        text(&self.name, &self.value)
    }

    /// One text or several. A `str` is one, not a sequence of its letters.
    fn texts(&self) -> PyResult<Vec<String>> {
        let refused = || self.refused("use a str or a list of str");
        if self.value.is_instance_of::<PyString>() {
            return Ok(vec![text(&self.name, &self.value)?]);
        }
        let items = self.value.try_iter().map_err(|_| refused())?;
        items.map(|item| text(&self.name, &item?)).collect()
    }

    /// A mapping from token ids to numbers, or a sequence of pairs.
    fn biases(&self) -> PyResult<Vec<(TokenId, f32)>> {
        let refused = || self.refused("use a mapping of token ids to numbers");
        let pairs = match self.value.cast::<PyMapping>() {
            Ok(mapping) => mapping.items()?.into_any(),
            Err(_) => self.value.clone(),
        };
        let pairs = pairs.try_iter().map_err(|_| refused())?;
        pairs
            .map(|pair| {
                let (token, bias): (Bound<'py, PyAny>, Bound<'py, PyAny>) = pair?.extract().map_err(|_| refused())?;
                Ok((integer(&self.name, &token)?, float(&self.name, &bias)?))
            })
            .collect()
    }

    fn kv_type(&self) -> PyResult<KvType> {
        let names = || KvType::ALL.map(KvType::name).join(", ");
        let name = self.value.cast::<PyString>().ok().and_then(|name| name.to_str().ok()).unwrap_or_default();
        name.parse().map_err(|_| self.refused(&format!("use one of {}", names())))
    }

    fn refused(&self, reason: &str) -> PyErr {
        invalid(self.value.py(), &self.name, &self.value, reason)
    }

    /// The error for a name that is no option.
    fn unknown(&self, known: &[&str]) -> PyErr {
        let py = self.value.py();
        let nearest = || -> PyResult<Vec<String>> {
            py.import("difflib")?.call_method1("get_close_matches", (&self.name, known.to_vec(), 1))?.extract()
        };
        match nearest().unwrap_or_default().first() {
            Some(name) => self.refused(&format!("there is no such option; did you mean '{name}'?")),
            None => self.refused(&format!("there is no such option; the options are {}", known.join(", "))),
        }
    }
}
