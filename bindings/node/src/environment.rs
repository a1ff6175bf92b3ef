//! What belongs to one JavaScript environment: the main thread's, or that of
//! one worker thread.
//!
//! An environment that ends cancels its own work. Only when the last one ends
//! are all models closed; until then those of other environments go on.

use crate::mailbox::{Key, Mailbox};
use mullama::close_all;
use napi::{bindgen_prelude::*, threadsafe_function::ThreadsafeFunction};
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};
use tokio_util::sync::CancellationToken;

/// Environments that have loaded the add-on and not ended.
static LIVE: AtomicUsize = AtomicUsize::new(0);

/// A function that any thread may call; keeps no event loop alive unless told.
type Function0 = ThreadsafeFunction<(), (), (), Status, false, true>;

/// Kept as the environment's instance data; its thread alone uses it.
pub(crate) struct Environment {
    /// Cancelled when the environment ends; parent of all its tokens.
    ending: CancellationToken,
    pub(crate) mailbox: Arc<Mailbox>,
    /// Makes the promise of a key.
    wait: Option<FunctionRef<u32, Object<'static>>>,
    /// Never called: it keeps the event loop alive while promises are open.
    hold: Option<Function0>,
    n_open: usize,
    last_key: Key,
}

pub(crate) fn register(env: &Env) -> Result<()> {
    let (ending, mailbox) = (CancellationToken::new(), Mailbox::new());
    let at_end = (ending.clone(), mailbox.clone());
    let environment = Environment { ending, mailbox, wait: None, hold: None, n_open: 0, last_key: 0 };
    env.set_instance_data(environment, (), |_| ())?;
    LIVE.fetch_add(1, Ordering::SeqCst);
    env.add_env_cleanup_hook(at_end, |(ending, mailbox)| {
        mailbox.close();
        ending.cancel();
        if LIVE.fetch_sub(1, Ordering::SeqCst) == 1 {
            // The hook is called from C, which a panic must not reach.
            let _ = catch_unwind(AssertUnwindSafe(close_all));
        }
    })?;
    Ok(())
}

/// The token that is cancelled when the environment ends.
pub(crate) fn ending(env: &Env) -> Result<CancellationToken> {
    Ok(Environment::of(env)?.ending.clone())
}

impl Environment {
    pub(crate) fn of(env: &Env) -> Result<&'static mut Self> {
        let environment = env.get_instance_data::<Self>()?;
        environment.ok_or_else(|| Error::from_reason("the add-on was not registered in this environment"))
    }

    pub(crate) fn attach(
        &mut self,
        wait: FunctionRef<u32, Object<'static>>,
        bell: Function0,
        hold: Function0,
    ) -> Result<()> {
        self.mailbox.set_bell(bell);
        self.wait = Some(wait);
        self.hold = Some(hold);
        Ok(())
    }

    /// A promise that a letter with the key settles. It keeps the event loop
    /// alive until then.
    pub(crate) fn promise<'env>(&mut self, env: &'env Env) -> Result<(Key, Object<'env>)> {
        let wait = self.wait.as_ref().ok_or_else(|| Error::from_reason("the package was not loaded"))?;
        self.last_key = self.last_key.wrapping_add(1);
        let promise = wait.borrow_back(env)?.call(self.last_key)?;
        self.n_open += 1;
        if self.n_open == 1 {
            self.keep_loop(env, true)?;
        }
        Ok((self.last_key, promise))
    }

    /// One of the promises is settled.
    pub(crate) fn settled(&mut self, env: &Env) -> Result<()> {
        self.n_open -= 1;
        if self.n_open == 0 { self.keep_loop(env, false) } else { Ok(()) }
    }

    // napi names another way to keep a function alive, which is to hold a clone
    // of it; whether it keeps the loop alive is a different matter.
    #[allow(deprecated)]
    fn keep_loop(&mut self, env: &Env, keep: bool) -> Result<()> {
        match &mut self.hold {
            Some(hold) if keep => hold.refer(env),
            Some(hold) => hold.unref(env),
            None => Ok(()),
        }
    }
}
