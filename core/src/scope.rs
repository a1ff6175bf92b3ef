//! Ties a generation to the runtime whose task started it, so that the
//! runtime's shutdown cancels it. Outside the threads of a `MullamaRuntime`,
//! on the shared one's, and without the feature `tokio-runtime` it does
//! nothing.

use crate::engine::Reader;

/// Kept beside a generation's [`Reader`] while its result is waited for.
/// While it lives, the shutdown of the runtime cancels the generation.
pub(crate) struct Scope {
    #[cfg(feature = "tokio-runtime")]
    _on_stop: Option<crate::runtime::OnStop>,
}

impl Scope {
    /// The scope of the calling thread for a generation. One whose runtime is
    /// shutting down already is cancelled at once.
    pub(crate) fn of(reader: &Reader) -> Self {
        #[cfg(feature = "tokio-runtime")]
        return Self { _on_stop: crate::runtime::current().map(|state| state.on_stop(reader.canceller())) };
        #[cfg(not(feature = "tokio-runtime"))]
        {
            let _ = reader;
            Self {}
        }
    }
}
