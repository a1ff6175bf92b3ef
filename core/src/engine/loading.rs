//! Loading a model: starts the engine's thread, which loads, makes the context
//! and then serves. Also makes the contexts that a pool of another size needs.

use super::{
    Engine, Shared, curve,
    inbox::Inbox,
    latch::Latch,
    metrics::Metrics,
    pace::{self, Pace},
    registry, weights,
    worker::{Limits, Worker},
};
use crate::{
    ModelOptions, MullamaError,
    llama::{self, CellMemory, Context, ContextParams, LoadParams, Model, PreparedMemory, gguf::Header},
    memory::SystemMemory,
    process,
};
use std::{
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

/// From so many bytes on, a KV cache is cleared while the model is loaded.
const LARGE: u64 = 32 << 20;

/// A load under way. Dropping it stops the load.
pub(crate) struct Loading {
    /// `None` once the engine has been taken over.
    shared: Option<Arc<Shared>>,
}

impl Loading {
    /// Checks the options and starts the engine's thread, which loads.
    ///
    /// # Errors
    /// `InvalidInput`, `Unsupported` in a forked child.
    pub(crate) fn start(path: &Path, options: ModelOptions) -> Result<Self, MullamaError> {
        let started = Instant::now();
        options.validate()?;
        let options = options.resolved();
        process::claim()?;
        let shared = Arc::new(Shared {
            inbox: Arc::new(Inbox::new(options.max_concurrent, options.max_queue)),
            metrics: Metrics::default(),
            loaded: Latch::new(),
            model: Mutex::new(None),
            stopped: Latch::new(),
            options,
            sessions: Mutex::default(),
        });
        let weak: Weak<Shared> = Arc::downgrade(&shared);
        let entry = registry::enter(weak);
        let (path, thread_shared) = (path.to_owned(), shared.clone());
        std::thread::Builder::new()
            .name(thread_name())
            .spawn(move || {
                run(&path, &thread_shared, started);
                thread_shared.stopped.set(());
                drop(entry);
            })
            .map_err(|error| MullamaError::Io {
                kind: error.kind(),
                message: format!("could not start a thread: {error}"),
            })?;
        let loading = Self { shared: Some(shared) };
        // While that thread reads the file's head.
        llama::ensure_started()?;
        registry::close_at_exit();
        Ok(loading)
    }

    /// Waits until the model is loaded. Dropping the future stops the load.
    pub(crate) async fn wait(mut self) -> Result<Engine, MullamaError> {
        let shared = self.shared.clone().expect("only this method takes it, and it consumes self");
        shared.loaded.wait().await?;
        let model = shared.model().ok_or_else(MullamaError::model_closed)?;
        self.shared = None;
        Ok(Engine::new(shared, &model))
    }
}

impl Drop for Loading {
    fn drop(&mut self) {
        if let Some(shared) = self.shared.take().filter(|_| !process::is_forked_child()) {
            shared.inbox.close();
        }
    }
}

/// A name for an engine's thread, in the 15 bytes that Linux keeps. ggml's
/// threads inherit it, which tells those of one engine from another's.
fn thread_name() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("mullama-eng{}", NEXT.fetch_add(1, Ordering::Relaxed) % 10_000)
}

/// The body of the engine's thread. A panic ends this engine alone.
fn run(path: &Path, shared: &Arc<Shared>, started: Instant) {
    let outcome = catch_unwind(AssertUnwindSafe(|| match load(path, shared) {
        Ok((context, pace)) => {
            *shared.lock_model() = Some(context.model().clone());
            let worker = Worker::new(shared.clone(), context, pace);
            let load_time = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
            shared.metrics.load_time_us.store(load_time, Ordering::Relaxed);
            shared.loaded.set(Ok(()));
            worker.run();
        }
        Err(error) => shared.loaded.set(Err(error)),
    }));
    // Lets nothing more in, also after a panic.
    shared.inbox.close();
    while shared.inbox.next_resize().is_some() {}
    drop(shared.lock_model().take());
    if outcome.is_err() {
        shared.inbox.drain(&mut VecDeque::new());
        shared.loaded.set(Err(MullamaError::Internal("the engine's thread panicked".to_owned())));
    }
}

fn load(path: &Path, shared: &Arc<Shared>) -> Result<(Context, Pace), MullamaError> {
    let options = &shared.options;
    let mut progress = |share: f32| {
        let go_on = options.progress.as_ref().is_none_or(|progress| progress(share));
        #[cfg(feature = "async")]
        let go_on = go_on && !options.cancellation.as_ref().is_some_and(|token| token.is_cancelled());
        go_on && !shared.inbox.is_closing()
    };
    if !progress(0.0) {
        return Err(MullamaError::Cancelled);
    }
    let mut prepared = None;
    let params = LoadParams {
        gpu_layers: options.gpu_layers,
        use_mmap: options.use_mmap,
        deterministic: options.deterministic,
        validated: &mut |header| prepared = prepare(header, options),
        progress: &mut progress,
    };
    let (model, is_shared) = weights::load(path, params)?;
    let header = model.header();
    if options.deterministic && (header.recurrent || header.has_float_matrices) {
        let kind = if header.recurrent { "a recurrent state" } else { "float matrices" };
        return Err(MullamaError::Unsupported(format!(
            "deterministic is not supported for models with {kind}; use a quantized one, or leave it out"
        )));
    }
    shared.metrics.weights_shared.store(is_shared, Ordering::Relaxed);
    let (context, pace) = new_context(model, options, options.max_concurrent, prepared)?;
    registry::close_at_exit();
    if !progress(1.0) {
        return Err(MullamaError::Cancelled);
    }
    Ok((context, pace))
}

/// Begins to clear the KV cache, where it is large and one block in RAM. There
/// must be room beyond doubt for it, the weights and the prefix cache, since
/// nobody looks again: what they need, twice, as other loads may be under way.
fn prepare(header: &Header, options: &ModelOptions) -> Option<PreparedMemory> {
    // llama.cpp rounds up so.
    let sequences = if options.deterministic { options.max_concurrent } else { 1 };
    let cells = Limits::new(options, options.max_concurrent).cache_size / sequences;
    let needed = kv_bytes(header, options, cells.next_multiple_of(256) * sequences);
    let all = needed.saturating_add(options.prefix_cache_bytes.unwrap_or(0)).saturating_add(header.file_size);
    let is_apart = options.gpu_layers != 0 && llama::has_gpu().unwrap_or(true);
    let is_fit = needed > LARGE && header.has_one_cache() && !is_apart && all <= SystemMemory::read().free / 2;
    // The engine's own thread loads meanwhile.
    let threads = options.effective_threads().saturating_sub(1).max(1);
    if is_fit { PreparedMemory::new(needed, threads) } else { None }
}

/// A context for `max_concurrent` sequences, and the pace of its threads. Its
/// KV cache is what was `prepared`, or its memory is checked.
///
/// # Errors
/// `OutOfMemory`, `Context`.
pub(super) fn new_context(
    model: Arc<Model>,
    options: &ModelOptions,
    max_concurrent: usize,
    prepared: Option<PreparedMemory>,
) -> Result<(Context, Pace), MullamaError> {
    let limits = Limits::new(options, max_concurrent);
    let (n_ctx, n_batch) = (limits.cache_size, limits.batch_size);
    let memory = match prepared {
        Some(memory) => CellMemory::Prepared(memory),
        None => {
            let kv_bytes = kv_bytes(model.header(), options, n_ctx);
            let needed = kv_bytes.saturating_add(options.prefix_cache_bytes.unwrap_or(0));
            let advice = "lower cache_size, max_concurrent, context_size or prefix_cache_bytes";
            check_memory(needed, options, n_ctx, advice)?;
            CellMemory::Cleared
        }
    };
    let threads_before = pace::threads_before();
    let params = ContextParams {
        n_ctx,
        n_batch,
        n_rows_at_once: if options.deterministic { model.header().rows_at_once() } else { n_batch },
        n_seq_max: max_concurrent,
        // One row of each sequence asks for logits, or a lone one's draft.
        n_outputs_max: max_concurrent.max(if options.prompt_lookup { curve::MAX_ROWS } else { 1 }),
        n_threads: limits.threads,
        flash_attention: options.flash_attention,
        type_k: options.kv_type_k,
        type_v: options.kv_type_v,
        unified: !options.deterministic,
        parts: true,
        pieces: false,
        memory,
    };
    let context = Context::new(model, &params)?;
    Ok((context, Pace::new(limits.threads, &threads_before)))
}

/// Bytes that what requests have computed may take in RAM.
pub(super) fn prefix_cache_budget(model: &Model, options: &ModelOptions, limits: &Limits) -> u64 {
    options.prefix_cache_bytes.unwrap_or_else(|| {
        (kv_bytes(model.header(), options, limits.cache_size) / 4).min(SystemMemory::read().free / 2)
    })
}

pub(super) fn kv_bytes(header: &Header, options: &ModelOptions, n_cells: usize) -> u64 {
    let (k, v) = (options.kv_type_k.bytes_per_element(), options.kv_type_v.bytes_per_element());
    header.kv_bytes(n_cells as u64, k, v)
}

/// Refuses a KV cache that the machine has no memory for: the kernel would end
/// the process, which no error handling survives.
pub(super) fn check_memory(
    needed: u64,
    options: &ModelOptions,
    n_tokens: usize,
    advice: &str,
) -> Result<(), MullamaError> {
    if options.gpu_layers != 0 && llama::has_gpu()? {
        // The cache may lie on a device whose memory is not seen from here.
        return Ok(());
    }
    let free = SystemMemory::read().free;
    if free > 0 && needed > free {
        let mib = |bytes: u64| bytes.div_ceil(1 << 20);
        return Err(MullamaError::OutOfMemory(format!(
            "a KV cache of {n_tokens} tokens needs {} MiB, {} MiB are free; {advice}",
            mib(needed),
            mib(free),
        )));
    }
    Ok(())
}
