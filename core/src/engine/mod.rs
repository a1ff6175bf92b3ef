//! The engine: one thread a loaded model, which batches all requests of the
//! process into one decode step. [`session`] is the private context, which has
//! a thread of its own.
//!
//! [`Engine`] is what callers share, made by [`loading`], over [`weights`]; [`worker`] is the thread's
//! loop; [`scheduler`], [`hold_back`], [`sampler`] and [`selection`] are pure
//! and tested without threads; [`inbox`] and [`ticket`] are the ways in and
//! out.

mod adjustment;
mod admission;
mod aside;
mod bell;
mod cpu_load;
mod curve;
mod drafting;
mod ended;
mod handle;
mod hold_back;
mod inbox;
mod latch;
mod lease;
mod loading;
mod lookup;
mod metrics;
mod pace;
mod permits;
mod prefix_cache;
mod readers;
mod registry;
mod request;
mod resizing;
mod results;
mod room;
mod sampler;
mod scheduler;
mod selection;
mod sequence;
mod session;
mod sharing;
mod threads;
mod ticket;
pub(crate) mod totals;
mod trials;
mod turns;
mod weights;
mod worker;

pub(crate) use handle::Handle;
#[cfg(feature = "tokio-runtime")]
pub(crate) use latch::Latch;
pub(crate) use lease::{Lease, Leases, check_size};
pub(crate) use loading::Loading;
pub use registry::close_all;
#[cfg(feature = "tokio-runtime")]
pub(crate) use registry::{Figures, all_metrics};
pub(crate) use session::{Opening, Session};
pub(crate) use ticket::{Batch, Reader};

use crate::{
    EngineMetrics, FinishReason, LayerPlacement, ModelInfo, ModelOptions, MullamaError, StreamConfig, TokenId,
    llama::Model, process,
};
use inbox::{Inbox, Resize};
#[cfg(not(feature = "tokio-runtime"))]
use latch::Latch;
use lease::Resized;
use metrics::Metrics;
use request::Request;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak, atomic::Ordering},
    time::Instant,
};
use ticket::Ticket;

/// What a stream holds so that the thread that serves it goes on: an engine or
/// a session.
pub(crate) type KeepAlive = Arc<dyn Send + Sync>;

/// Seeds that are drawn fresh stay below this, so that every language's
/// numbers hold them exactly (JavaScript: 2^53).
const SEED_LIMIT: u64 = 1 << 53;

/// What the engine's thread and all handles share.
struct Shared {
    inbox: Arc<Inbox>,
    metrics: Metrics,
    /// The result of the load.
    loaded: Latch<Result<(), MullamaError>>,
    /// Weights and vocabulary, from the load until the engine's thread ends. It
    /// takes them out then, so that the weights are freed by it, though
    /// handles exist, and not by the task that waits for a close.
    model: Mutex<Option<Arc<Model>>>,
    /// Set when the thread has ended and its context is freed.
    stopped: Latch<()>,
    options: ModelOptions,
    /// The contexts over this model; closing it closes them.
    sessions: Mutex<Vec<Weak<session::Shared>>>,
}

impl registry::Close for Shared {
    fn close(&self) {
        self.inbox.close();
    }

    #[cfg(feature = "tokio-runtime")]
    fn figures(&self) -> Option<(String, EngineMetrics)> {
        let model = self.model()?;
        let metrics = self.read_metrics(model.info().size_bytes, kv_bytes_per_token(&model, &self.options));
        Some((model.info().name.clone(), metrics))
    }
}

impl Shared {
    fn model(&self) -> Option<Arc<Model>> {
        self.lock_model().clone()
    }

    fn read_metrics(&self, weights_bytes: u64, kv_bytes_per_token: u64) -> EngineMetrics {
        let cache_size = self.options.cache_size_for(self.inbox.max_concurrent());
        EngineMetrics {
            queued: self.inbox.n_waiting(),
            weights_bytes,
            cache_size_bytes: cache_size as u64 * kv_bytes_per_token,
            ..self.metrics.read(kv_bytes_per_token)
        }
    }

    /// Nothing that can panic runs under the lock, so a poisoned one is whole.
    fn lock_model(&self) -> MutexGuard<'_, Option<Arc<Model>>> {
        self.model.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A loaded model with its thread. Dropping the last handle ends the thread.
pub(crate) struct Engine {
    shared: Arc<Shared>,
    info: ModelInfo,
    metadata: BTreeMap<String, String>,
    placement: Vec<LayerPlacement>,
    kv_bytes_per_token: u64,
}

impl Engine {
    fn new(shared: Arc<Shared>, model: &Model) -> Self {
        Self {
            info: model.info().clone(),
            metadata: model.metadata().clone(),
            placement: model.placement().to_vec(),
            kv_bytes_per_token: kv_bytes_per_token(model, &shared.options),
            shared,
        }
    }

    pub(crate) fn info(&self) -> &ModelInfo {
        &self.info
    }

    pub(crate) fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    pub(crate) fn placement(&self) -> &[LayerPlacement] {
        &self.placement
    }

    pub(crate) fn metrics(&self) -> EngineMetrics {
        self.shared.read_metrics(self.info.size_bytes, self.kv_bytes_per_token)
    }

    /// Whether the model takes requests.
    pub(crate) fn is_ready(&self) -> bool {
        !self.shared.inbox.is_closing() && self.shared.stopped.get().is_none() && !process::is_forked_child()
    }

    /// The weights and vocabulary, for work on the caller's own thread.
    ///
    /// # Errors
    /// `Closed`; `Unsupported` in a forked child.
    pub(crate) fn model(&self) -> Result<Arc<Model>, MullamaError> {
        process::check()?;
        if self.shared.inbox.is_closing() {
            return Err(MullamaError::model_closed());
        }
        self.shared.model().ok_or_else(MullamaError::model_closed)
    }

    /// Validates and tokenizes on the caller's thread and hands the request to
    /// the engine. `stream` says whether tokens are wanted one by one; `lease`
    /// is the one that the request belongs to, in a pool.
    ///
    /// # Errors
    /// `InvalidInput`, `PromptTooLong`, `Tokenization`, `QueueFull`, `Closed`;
    /// `Unsupported` in a forked child.
    pub(crate) fn submit(
        &self,
        prompt: &str,
        config: StreamConfig,
        stream: bool,
        lease: Option<Arc<Lease>>,
    ) -> Result<Reader, MullamaError> {
        let submitted = Instant::now();
        let model = self.model()?;
        config.validate(model.n_vocab())?;
        let _coming = self.shared.inbox.announce();
        let tokens = prompt_tokens(&model, prompt)?;
        let limit = self.shared.options.context_size - 1;
        if tokens.len() > limit {
            return Err(MullamaError::PromptTooLong { tokens: tokens.len(), limit });
        }
        let seed = seed_of(&config);
        let ticket = ticket_of(&config, seed, &self.shared.options, self.shared.inbox.clone(), submitted, stream);
        let n_wanted = config.max_tokens;
        let reader = ticket.reader();
        let request = Request::new(ticket, tokens, config, seed, lease);
        if n_wanted == 0 {
            // Nothing is to be computed. Nobody waits for the ticket yet.
            self.shared.metrics.completed.fetch_add(1, Ordering::Relaxed);
            drop(request.finish(FinishReason::Length));
        } else {
            self.shared.inbox.submit(request)?;
        }
        Ok(reader)
    }

    /// How many sequences are served at once, now.
    pub(crate) fn max_concurrent(&self) -> usize {
        self.shared.inbox.max_concurrent()
    }

    /// Makes room for `n` sequences at once, if there is less. What runs goes
    /// on. The latch tells when that is done.
    ///
    /// # Errors
    /// `Closed`.
    pub(crate) fn grow(&self, n: usize) -> Result<Arc<Resized>, MullamaError> {
        let done = Arc::new(Latch::new());
        self.shared.inbox.resize(Resize { n, done: Some(done.clone()) })?;
        Ok(done)
    }

    /// Keeps room for `n` sequences alone, as soon as no more are served.
    pub(crate) fn shrink(&self, n: usize) {
        // Nothing is left to shrink of a closed engine.
        let _ = self.shared.inbox.resize(Resize { n, done: None });
    }

    /// Ends the engine: requests end as `Closed`, then the memory is freed.
    /// Waits for that; may be called again.
    pub(crate) async fn close(&self) {
        if process::is_forked_child() {
            return;
        }
        self.shared.inbox.close();
        // They stay in, for whoever closes next to wait for them too.
        let sessions: Vec<_> = self.lock_sessions().iter().filter_map(Weak::upgrade).collect();
        for session in &sessions {
            session.close();
        }
        for session in &sessions {
            session.stopped().await;
        }
        self.shared.stopped.wait().await;
    }

    /// Takes a context into those that end with the model.
    ///
    /// # Errors
    /// `Closed`.
    fn add_session(&self, session: &Arc<session::Shared>) -> Result<(), MullamaError> {
        let mut sessions = self.lock_sessions();
        // Under the lock, so that a close sees the session or is seen here.
        if self.shared.inbox.is_closing() {
            return Err(MullamaError::model_closed());
        }
        sessions.retain(|session| session.strong_count() > 0);
        sessions.push(Arc::downgrade(session));
        Ok(())
    }

    /// Nothing that can panic runs under the lock, so a poisoned one is whole.
    fn lock_sessions(&self) -> MutexGuard<'_, Vec<Weak<session::Shared>>> {
        self.shared.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if process::is_forked_child() {
            // What the parent's threads use is not this process's to free.
            std::mem::forget(self.shared.clone());
            return;
        }
        self.shared.inbox.close();
    }
}

/// The seed of a request: its own, or a fresh one.
fn seed_of(config: &StreamConfig) -> u64 {
    config.seed.unwrap_or_else(|| rand::random::<u64>() % SEED_LIMIT)
}

/// A ticket for a request that was submitted at `submitted`. `stream` says
/// whether tokens are wanted one by one.
fn ticket_of(
    config: &StreamConfig,
    seed: u64,
    options: &ModelOptions,
    bell: Arc<dyn ticket::Bell>,
    submitted: Instant,
    stream: bool,
) -> Arc<Ticket> {
    let timeout = config.timeout.or(options.timeout).filter(|timeout| !timeout.is_zero());
    // A deadline past what the clock can tell is none.
    let deadline = timeout.and_then(|timeout| submitted.checked_add(timeout));
    let timeout_ms = timeout.map_or(0, |timeout| u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX));
    let buffer_size = stream.then_some(config.buffer_size);
    Ticket::new(bell, deadline, timeout_ms, buffer_size, seed)
}

/// The tokens of a prompt. Special tokens in it are parsed, since chat prompts
/// are written with them. An empty prompt starts from the model's own
/// beginning-of-sequence token.
fn prompt_tokens(model: &Model, prompt: &str) -> Result<Vec<TokenId>, MullamaError> {
    let mut tokens = model.tokenize(prompt, true, true)?;
    if tokens.is_empty() {
        let bos = model.bos().ok_or_else(|| {
            MullamaError::invalid("prompt", "", "this model has no token to start from; give at least one character")
        })?;
        tokens.push(bos);
    }
    Ok(tokens)
}

fn kv_bytes_per_token(model: &Model, options: &ModelOptions) -> u64 {
    model.header().kv_bytes_per_token(options.kv_type_k.bytes_per_element(), options.kv_type_v.bytes_per_element())
}
