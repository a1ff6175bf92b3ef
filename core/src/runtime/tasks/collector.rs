//! The metrics collector: samples of a runtime's figures, the newest of which
//! can be watched.

use crate::{MullamaError, RuntimeMetrics, runtime::State, runtime::timer};
use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError, Weak},
    time::Duration,
};
use tokio::sync::watch;

/// See the module.
pub(super) struct History {
    samples: Mutex<VecDeque<RuntimeMetrics>>,
    latest: watch::Sender<RuntimeMetrics>,
}

impl History {
    pub(super) fn new() -> Self {
        Self { samples: Mutex::default(), latest: watch::Sender::new(RuntimeMetrics::default()) }
    }

    /// All samples, oldest first.
    pub(super) fn read(&self) -> Vec<RuntimeMetrics> {
        self.samples.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect()
    }

    pub(super) fn watch(&self) -> watch::Receiver<RuntimeMetrics> {
        self.latest.subscribe()
    }

    fn add(&self, sample: RuntimeMetrics, capacity: usize) {
        let mut samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        // The collector before may have kept more.
        while samples.len() >= capacity {
            samples.pop_front();
        }
        samples.push_back(sample);
        drop(samples);
        self.latest.send_replace(sample);
    }
}

/// Samples at once and then at every interval, until the runtime ends.
///
/// # Errors
/// As [`crate::MullamaRuntime::shared`], whose clock it uses.
pub(super) async fn collect(
    runtime: Weak<State>,
    history: std::sync::Arc<History>,
    interval: Duration,
    capacity: usize,
) -> Result<(), MullamaError> {
    while let Some(runtime) = runtime.upgrade().filter(|runtime| runtime.is_running()) {
        history.add(runtime.metrics(), capacity);
        drop(runtime);
        timer::sleep(interval)?.await;
    }
    Ok(())
}
