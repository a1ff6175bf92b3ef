//! A session: what a public context is a handle on. It has a native context, a
//! memory and a thread of its own, over the weights of a loaded model.
//!
//! [`Session`] is the handle; [`worker`] is the thread's loop; [`memory`]
//! follows [`history`], which is pure; [`work`], [`inbox`] and [`call`] are the
//! way in and the way back; [`state_file`] is the format of saved states.
//! Deliberately absent: sharing of steps with the engine or with other
//! sessions.

mod call;
mod history;
mod inbox;
mod memory;
mod state_file;
mod work;
mod worker;

use super::{
    Engine, KeepAlive, Reader,
    latch::Latch,
    loading::check_memory,
    pace::{self, Pace},
    registry,
};
use crate::{
    Batch, ContextOptions, ModelOptions, MullamaError, StreamConfig, TokenId,
    context::Resolved,
    llama::{CellMemory, Context, ContextParams, Model},
    process,
};
use call::{Answer, Call};
use history::Limits;
use inbox::Inbox;
use memory::Memory;
use state_file::Identity;
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Instant,
};
use work::Work;
use worker::Worker;

/// Most rows of one decode that give logits. Each takes a row of the
/// vocabulary in memory, and costs as much as the last layer of a token.
const MAX_OUTPUTS: usize = 32;

/// What the session's thread and its handle share.
pub(crate) struct Shared {
    inbox: Arc<Inbox>,
    /// The result of making the context.
    opened: Latch<Result<(), MullamaError>>,
    /// Set when the thread has ended and its context is freed.
    stopped: Latch<()>,
    /// Tokens that sequence 0 holds.
    n_past: AtomicUsize,
    model_options: ModelOptions,
}

impl registry::Close for Shared {
    fn close(&self) {
        self.inbox.close();
    }
}

impl Shared {
    /// Tells the thread to end.
    pub(super) fn close(&self) {
        self.inbox.close();
    }

    /// Waits until the thread has ended.
    pub(super) async fn stopped(&self) {
        self.stopped.wait().await;
    }

    fn set_n_past(&self, n: usize) {
        self.n_past.store(n, Ordering::Release);
    }
}

/// A context with its thread. Dropping the last handle ends the thread.
pub(crate) struct Session {
    shared: Arc<Shared>,
}

/// A context in the making. Dropping it ends the thread that makes it.
pub(crate) struct Opening {
    /// `None` once the session has been taken over.
    session: Option<Session>,
}

impl Opening {
    /// Checks the options and starts the session's thread, which makes the
    /// context.
    ///
    /// # Errors
    /// `InvalidInput`, `Closed`, `Unsupported` in a forked child, `Io`.
    pub(crate) fn start(engine: &Engine, options: &ContextOptions) -> Result<Self, MullamaError> {
        let model = engine.model()?;
        let model_options = engine.shared.options.clone();
        let resolved = options.resolve(&model_options)?;
        let shared = Arc::new(Shared {
            inbox: Arc::default(),
            opened: Latch::new(),
            stopped: Latch::new(),
            n_past: AtomicUsize::new(0),
            model_options,
        });
        engine.add_session(&shared)?;
        let weak: Weak<Shared> = Arc::downgrade(&shared);
        let entry = registry::enter(weak);
        let thread_shared = shared.clone();
        std::thread::Builder::new()
            .name(thread_name())
            .spawn(move || {
                run(model, &resolved, &thread_shared);
                thread_shared.stopped.set(());
                drop(entry);
            })
            .map_err(|error| {
                shared.stopped.set(());
                MullamaError::Io { kind: error.kind(), message: format!("could not start a thread: {error}") }
            })?;
        Ok(Self { session: Some(Session { shared }) })
    }

    /// Waits until the context is there. Dropping the future ends its thread.
    pub(crate) async fn wait(mut self) -> Result<Session, MullamaError> {
        let shared = self.session.as_ref().expect("only this method takes it, and it consumes self").shared.clone();
        shared.opened.wait().await?;
        self.session.take().ok_or_else(MullamaError::context_closed)
    }
}

impl Session {
    /// Appends tokens to sequence 0 and generates. The answer comes when all
    /// calls before it are done.
    pub(crate) fn generate(&self, tokens: &[TokenId], config: StreamConfig) -> Result<Call<Reader>, MullamaError> {
        let (tokens, submitted) = (tokens.to_vec(), Instant::now());
        self.submit(|answer| Work::Generate { tokens, config, submitted, answer })
    }

    /// Evaluates batches.
    pub(crate) fn process(&self, batches: Vec<Batch>) -> Result<Call<Vec<Vec<TokenId>>>, MullamaError> {
        self.submit(|answer| Work::Process { batches, answer })
    }

    /// Writes a state file.
    pub(crate) fn save(&self, path: &Path) -> Result<Call<()>, MullamaError> {
        let path = state_file::absolute(path)?;
        self.submit(|answer| Work::Save { path, answer })
    }

    /// Reads a state file.
    pub(crate) fn load(&self, path: &Path) -> Result<Call<()>, MullamaError> {
        let path = state_file::absolute(path)?;
        self.submit(|answer| Work::Load { path, answer })
    }

    /// Forgets everything.
    pub(crate) fn clear(&self) -> Result<Call<()>, MullamaError> {
        self.submit(|answer| Work::Clear { answer })
    }

    /// Keeps the first `n` tokens of sequence 0.
    pub(crate) fn truncate(&self, n: usize) -> Result<Call<()>, MullamaError> {
        self.submit(|answer| Work::Truncate { n, answer })
    }

    /// Tokens that sequence 0 holds.
    pub(crate) fn n_past(&self) -> usize {
        self.shared.n_past.load(Ordering::Acquire)
    }

    /// Ends the session: calls under way end as `Closed`, then the memory is
    /// freed. Waits for that; may be called again.
    pub(crate) async fn close(&self) {
        if process::is_forked_child() {
            return;
        }
        self.shared.close();
        self.shared.stopped().await;
    }

    /// What a stream of this session holds.
    pub(crate) fn keep_alive(self: &Arc<Self>) -> KeepAlive {
        self.clone()
    }

    fn submit<T>(&self, work: impl FnOnce(Answer<T>) -> Work) -> Result<Call<T>, MullamaError> {
        process::check()?;
        let (answer, call) = call::call(self.shared.inbox.clone());
        self.shared.inbox.submit(work(answer))?;
        Ok(call)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if process::is_forked_child() {
            // What the parent's threads use is not this process's to free.
            std::mem::forget(self.shared.clone());
            return;
        }
        self.shared.close();
    }
}

/// A name for a session's thread, in the 15 bytes that Linux keeps.
fn thread_name() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("mullama-ctx{}", NEXT.fetch_add(1, Ordering::Relaxed) % 10_000)
}

/// The body of the session's thread. A panic ends this session alone.
fn run(model: Arc<Model>, options: &Resolved, shared: &Arc<Shared>) {
    let outcome = catch_unwind(AssertUnwindSafe(|| match open(model, options, shared) {
        Ok(worker) => {
            shared.opened.set(Ok(()));
            worker.run();
        }
        Err(error) => shared.opened.set(Err(error)),
    }));
    // Lets nothing more in, also after a panic. What was let in before is
    // dropped, which answers it.
    shared.inbox.close();
    drop(shared.inbox.drain());
    if outcome.is_err() {
        shared.opened.set(Err(MullamaError::Internal("the context's thread panicked".to_owned())));
    }
}

fn open(model: Arc<Model>, options: &Resolved, shared: &Arc<Shared>) -> Result<Worker, MullamaError> {
    let params = ContextParams {
        n_ctx: options.context_size,
        n_batch: options.batch_size,
        n_rows_at_once: usize::MAX,
        n_seq_max: options.max_sequences,
        n_outputs_max: MAX_OUTPUTS.min(options.batch_size),
        n_threads: options.threads,
        flash_attention: options.flash_attention,
        type_k: options.kv_type_k,
        type_v: options.kv_type_v,
        // Rows of a context may belong to several sequences.
        unified: true,
        // Saved states are whole.
        parts: false,
        pieces: false,
        memory: CellMemory::Cleared,
    };
    let (k, v) = (params.type_k.bytes_per_element(), params.type_v.bytes_per_element());
    let needed = model.header().kv_bytes(params.n_ctx as u64, k, v);
    check_memory(needed, &shared.model_options, params.n_ctx, "lower context_size or choose a smaller KV type")?;
    let identity = Identity::new(&model, params.type_k, params.type_v);
    let limits = Limits { context_size: params.n_ctx, n_vocab: model.n_vocab(), can_share: !model.header().recurrent };
    let threads_before = pace::threads_before();
    let context = Context::new(model, &params)?;
    let pace = Pace::new(params.n_threads, &threads_before);
    let n_outputs_max = params.n_outputs_max.max(params.n_seq_max);
    let memory = Memory::new(context, pace, params.n_seq_max, params.n_batch, n_outputs_max);
    Ok(Worker::new(shared.clone(), memory, limits, identity))
}
