//! Delivers to one environment: settles its promises and hands its streams
//! their tokens. Whatever is ready goes in one call into the event loop.
//!
//! Any thread posts; the environment's own thread takes. Its JavaScript,
//! `../lib/delivery.js`, holds the promises under the keys of the letters.

use crate::{environment::Environment, error::to_js, stream::Source};
use mullama::{
    MullamaError, MullamaRuntime,
    wakes::{self, EventLoop},
};
use napi::{
    bindgen_prelude::*,
    threadsafe_function::{ThreadsafeFunction, ThreadsafeFunctionCallMode},
};
use napi_derive::napi;
use std::{
    mem,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
};

/// Names a promise. An environment has far fewer than a number can tell apart.
pub(crate) type Key = u32;

/// A result that becomes a JavaScript value on the environment's thread.
pub(crate) type Value = Box<dyn FnOnce(&Env) -> Result<Unknown<'_>> + Send>;

/// Calls a function without arguments, from any thread. Weak: it keeps no event
/// loop alive.
type Bell = ThreadsafeFunction<(), (), (), Status, false, true>;

enum Letter {
    /// Settles a promise.
    Outcome(Key, std::result::Result<Value, MullamaError>),
    /// A stream that is waited for has something to give.
    News(Arc<Source>),
}

/// See the module.
pub(crate) struct Mailbox {
    /// `None` once the environment ends: nobody takes letters any more.
    letters: Mutex<Option<Vec<Letter>>>,
    /// Whether the loop was woken and has not looked since.
    rung: AtomicBool,
    /// Whether a task will ring when the runtime has nothing else to do.
    ringing_soon: AtomicBool,
    bell: OnceLock<Bell>,
}

impl Mailbox {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            letters: Mutex::new(Some(Vec::new())),
            rung: AtomicBool::new(false),
            ringing_soon: AtomicBool::new(false),
            bell: OnceLock::new(),
        })
    }

    /// The function that the loop is woken with.
    pub(crate) fn set_bell(&self, bell: Bell) {
        // There is one call, when the package is loaded.
        let _ = self.bell.set(bell);
    }

    /// Settles a promise, from a task of the runtime. The loop is woken when
    /// all tasks that are ready have run: an engine's step may end several
    /// requests, and each has a task.
    pub(crate) fn settle(self: &Arc<Self>, key: Key, outcome: std::result::Result<Value, MullamaError>) {
        self.post(Letter::Outcome(key, outcome));
        if self.ringing_soon.swap(true, Ordering::AcqRel) {
            return;
        }
        let mailbox = self.clone();
        let ring = async move {
            tokio::task::yield_now().await;
            mailbox.ringing_soon.store(false, Ordering::Release);
            mailbox.wake();
        };
        match MullamaRuntime::shared() {
            Ok(runtime) => drop(runtime.tokio().spawn(ring)),
            Err(_) => self.wake(),
        }
    }

    /// Says that a stream has something to give, on any thread.
    pub(crate) fn tell(self: &Arc<Self>, source: Arc<Source>) {
        self.post(Letter::News(source));
        let event_loop: Arc<dyn EventLoop> = self.clone();
        wakes::wake(&event_loop);
    }

    fn post(&self, letter: Letter) {
        // Not dropped under the lock: it may hold a lease for which others wait.
        let _refused = match &mut *self.lock() {
            Some(letters) => {
                letters.push(letter);
                None
            }
            None => Some(letter),
        };
    }

    /// The environment ends.
    pub(crate) fn close(&self) {
        let letters = self.lock().take();
        drop(letters);
    }

    fn take(&self) -> Vec<Letter> {
        // In this order: a letter that comes after the flag is lowered wakes the
        // loop again; one that came before is there already.
        self.rung.swap(false, Ordering::AcqRel);
        self.lock().as_mut().map(mem::take).unwrap_or_default()
    }

    /// Nothing that can panic runs under the lock, so a poisoned one is whole.
    fn lock(&self) -> MutexGuard<'_, Option<Vec<Letter>>> {
        self.letters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl EventLoop for Mailbox {
    fn wake(&self) {
        if let Some(bell) = self.bell.get()
            && !self.rung.swap(true, Ordering::AcqRel)
        {
            // Refused only when the environment ends.
            bell.call((), ThreadsafeFunctionCallMode::NonBlocking);
        }
    }
}

/// The JavaScript side of the environment: `wait` makes the promise of a key,
/// `deliver` is called when there is something to take.
#[napi(catch_unwind)]
pub fn attach_delivery<'env>(
    env: &'env Env,
    wait: Function<'env, u32, Object<'static>>,
    deliver: Function<'env, (), ()>,
) -> Result<()> {
    let bell = || deliver.build_threadsafe_function::<()>().callee_handled::<false>().weak::<true>();
    Environment::of(env)?.attach(wait.create_ref()?, bell().build()?, bell().build()?)
}

/// Everything that has arrived, three entries a promise: its key, whether it is
/// fulfilled, and its value or the text of its error.
#[napi(catch_unwind)]
pub fn take_letters(env: &Env) -> Result<Vec<Unknown<'_>>> {
    let environment = Environment::of(env)?;
    let letters = environment.mailbox.take();
    let mut entries = Vec::with_capacity(3 * letters.len());
    for letter in letters {
        let (key, outcome) = match letter {
            Letter::Outcome(key, outcome) => (key, outcome.map(|value| value(env))),
            Letter::News(source) => {
                // Nobody waits when the news came twice.
                let Some(key) = source.take_reader() else { continue };
                match source.poll() {
                    Poll::Ready(batch) => (key, batch.map(|batch| batch.into_unknown(env))),
                    Poll::Pending => {
                        source.set_reader(key);
                        continue;
                    }
                }
            }
        };
        let value = outcome.map_err(|error| to_js(&error)).and_then(|value| value);
        environment.settled(env)?;
        entries.push(key.into_unknown(env)?);
        entries.push(value.is_ok().into_unknown(env)?);
        entries.push(value.or_else(|error| error.reason.as_str().into_unknown(env))?);
    }
    Ok(entries)
}
