//! Weights that several engines of the process use: a load of a file that is
//! loaded already, in the same way, takes the weights that are there. Runs on
//! the threads that load. Whoever uses them holds them; the list here does not.
//!
//! Deliberately absent: sharing of contexts, and of files that were changed
//! since: those are loaded anew.

use crate::{
    MullamaError,
    llama::{LoadParams, Model},
};
use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak},
    time::{Duration, SystemTime},
};

/// How often who waits for another's load looks whether it is wanted still.
const LOOK: Duration = Duration::from_millis(20);

/// What makes two loads the same.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Key {
    path: PathBuf,
    size: u64,
    modified: Option<SystemTime>,
    gpu_layers: i32,
    use_mmap: bool,
    deterministic: bool,
}

enum Slot {
    /// A thread loads it.
    Loading,
    Loaded(Weak<Model>),
}

static WEIGHTS: Mutex<Vec<(Key, Slot)>> = Mutex::new(Vec::new());

/// Rung when a load has ended.
static ENDED: Condvar = Condvar::new();

/// The weights of a file, and whether they were there already.
///
/// # Errors
/// As [`Model::load`]. Another's load that fails or stops fails nobody else.
pub(super) fn load(path: &Path, params: LoadParams<'_>) -> Result<(Arc<Model>, bool), MullamaError> {
    // The load itself says what is wrong with a path.
    let Some(key) = Key::of(path, &params) else { return Ok((Arc::new(Model::load(path, params)?), false)) };
    let turn = loop {
        match Turn::take(&key) {
            Taken::Found(model) => return Ok((model, true)),
            Taken::Turn(turn) => break turn,
            Taken::Busy => {}
        }
        if !(params.progress)(0.0) {
            return Err(MullamaError::Cancelled);
        }
    };
    let model = Arc::new(Model::load(path, params)?);
    turn.loaded(&model);
    Ok((model, false))
}

impl Key {
    fn of(path: &Path, params: &LoadParams<'_>) -> Option<Self> {
        let path = fs::canonicalize(path).ok()?;
        let metadata = fs::metadata(&path).ok()?;
        Some(Self {
            path,
            size: metadata.len(),
            modified: metadata.modified().ok(),
            gpu_layers: params.gpu_layers,
            use_mmap: params.use_mmap,
            deterministic: params.deterministic,
        })
    }
}

enum Taken {
    Found(Arc<Model>),
    Turn(Turn),
    /// Another loads it, and had not ended after a while.
    Busy,
}

/// The right to load. Dropping it without a result leaves the turn to another.
struct Turn(Key);

impl Turn {
    fn take(key: &Key) -> Taken {
        let mut weights = lock();
        weights.retain(|(_, slot)| !matches!(slot, Slot::Loaded(model) if model.strong_count() == 0));
        if !weights.iter().any(|(other, _)| other == key) {
            weights.push((key.clone(), Slot::Loading));
            return Taken::Turn(Self(key.clone()));
        }
        let found = weights.iter().find(|(other, _)| other == key);
        if let Some((_, Slot::Loaded(model))) = found {
            // Its last user may be dropping it just now.
            return model.upgrade().map_or(Taken::Busy, Taken::Found);
        }
        drop(ENDED.wait_timeout(weights, LOOK).unwrap_or_else(PoisonError::into_inner));
        Taken::Busy
    }

    fn loaded(self, model: &Arc<Model>) {
        if let Some((_, slot)) = lock().iter_mut().find(|(key, _)| *key == self.0) {
            *slot = Slot::Loaded(Arc::downgrade(model));
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        lock().retain(|(key, slot)| *key != self.0 || !matches!(slot, Slot::Loading));
        ENDED.notify_all();
    }
}

/// Nothing that can panic runs under the lock, so a poisoned one is whole.
fn lock() -> MutexGuard<'static, Vec<(Key, Slot)>> {
    WEIGHTS.lock().unwrap_or_else(PoisonError::into_inner)
}
