//! The one runtime of the process, and its settings.

use super::{MullamaRuntime, MullamaRuntimeBuilder};
use crate::{MullamaError, process};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

static SHARED: OnceLock<Arc<MullamaRuntime>> = OnceLock::new();

/// The settings that were asked for; also held while the runtime is started,
/// so that there is one start at a time, and no change after it.
static SETTINGS: Mutex<Option<MullamaRuntimeBuilder>> = Mutex::new(None);

impl MullamaRuntime {
    /// The one runtime of the process, on which Node and Python dispatch;
    /// started at the first call, with one worker thread unless
    /// [`MullamaRuntime::configure_shared`] said otherwise. Its workers only
    /// pass messages between engines and event loops; more would take
    /// processors from decoding. It lives until the process ends and can't be
    /// shut down.
    ///
    /// # Errors
    /// `Io` when the threads can't be started; it may be tried again.
    /// `Unsupported` in a forked child.
    ///
    /// ```
    /// # fn main() -> Result<(), mullama::MullamaError> {
    /// let runtime = mullama::MullamaRuntime::shared()?;
    /// assert!(runtime.is_running());
    /// # Ok(())
    /// # }
    /// ```
    pub fn shared() -> Result<&'static Arc<Self>, MullamaError> {
        process::claim()?;
        if let Some(runtime) = SHARED.get() {
            return Ok(runtime);
        }
        let settings = SETTINGS.lock().unwrap_or_else(PoisonError::into_inner);
        if SHARED.get().is_none() {
            let _ = SHARED.set(Arc::new(settings.clone().unwrap_or_default().build_shared()?));
        }
        SHARED.get().ok_or_else(|| MullamaError::Internal("the runtime was not kept".to_owned()))
    }

    /// Sets what [`MullamaRuntime::shared`] is started with: once, before its
    /// first use. From Node and Python every call is one; from Rust a metrics
    /// collector, a wait with a limit for a pool's model, and a prompt of more
    /// than 32 KiB are.
    /// What the builder leaves open is as without this: one worker, threads
    /// named `mullama-runtime`. Time is always enabled.
    ///
    /// # Errors
    /// `InvalidInput` as [`MullamaRuntimeBuilder::build`], which leaves things
    /// as they were; `Unsupported` when the runtime runs or was configured
    /// already, and in a forked child.
    ///
    /// ```no_run
    /// # fn main() -> Result<(), mullama::MullamaError> {
    /// use mullama::MullamaRuntime;
    /// MullamaRuntime::configure_shared(MullamaRuntime::new().worker_threads(2).thread_name("my-app"))?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn configure_shared(builder: MullamaRuntimeBuilder) -> Result<(), MullamaError> {
        process::check()?;
        builder.validate()?;
        let refuse = |why: &str| Err(MullamaError::Unsupported(format!("the shared runtime {why}")));
        let mut settings = SETTINGS.lock().unwrap_or_else(PoisonError::into_inner);
        if SHARED.get().is_some() {
            return refuse("runs already; configure it before anything else of mullama is used");
        }
        if settings.is_some() {
            return refuse("was configured already; that can be done once in a process");
        }
        *settings = Some(builder);
        Ok(())
    }
}
