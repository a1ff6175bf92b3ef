//! Generations of the whole process that ended with a result: how many, and
//! how long they took. Every engine's thread adds to it; anybody reads.

#[cfg(feature = "tokio-runtime")]
use crate::process;
use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// A reading.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    /// Generations that ended with a result; neither cancelled nor failed.
    pub(crate) generations: u64,
    /// From submission to the last token, all together.
    pub(crate) time: Duration,
}

/// Count and sum under one lock, so that a reading's mean is of the
/// generations that it counts.
static TOTALS: Mutex<Totals> = Mutex::new(Totals { generations: 0, time: Duration::ZERO });

/// A generation ended with a result.
pub(super) fn add(time: Duration) {
    let mut totals = lock();
    totals.generations += 1;
    totals.time = totals.time.saturating_add(time);
}

/// What was counted so far; nothing in a forked child, where a thread that is
/// gone may hold the lock.
#[cfg(feature = "tokio-runtime")]
pub(crate) fn totals() -> Totals {
    if process::is_forked_child() { Totals::default() } else { *lock() }
}

/// Nothing that can panic runs under the lock, so a poisoned one is whole.
fn lock() -> MutexGuard<'static, Totals> {
    TOTALS.lock().unwrap_or_else(PoisonError::into_inner)
}
