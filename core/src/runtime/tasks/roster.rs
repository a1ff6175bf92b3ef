//! The workers of a manager by name, with how they are. Pure: no threads, no
//! runtime.

use super::WorkerStatus;
use std::collections::{BTreeMap, HashMap};
use tokio_util::sync::CancellationToken;

/// See the module.
#[derive(Default)]
pub(super) struct Workers {
    next_id: u64,
    /// By id, so in the order in which they were started. Of one name there is
    /// the newest alone.
    by_id: BTreeMap<u64, Worker>,
    /// The first failure since one was taken.
    failure: Option<String>,
}

struct Worker {
    name: String,
    status: WorkerStatus,
    stop: CancellationToken,
}

impl Workers {
    /// Whether a running worker has the name.
    pub(super) fn is_taken(&self, name: &str) -> bool {
        self.by_id.values().any(|worker| worker.name == name && worker.is_running())
    }

    /// Enters a running worker under a name that is not taken; one that had it
    /// and has ended makes room.
    pub(super) fn enter(&mut self, name: &str) -> (u64, CancellationToken) {
        let (id, stop) = (self.next_id, CancellationToken::new());
        self.next_id += 1;
        self.by_id.retain(|_, worker| worker.name != name);
        let worker = Worker { name: name.to_owned(), status: WorkerStatus::Running, stop: stop.clone() };
        self.by_id.insert(id, worker);
        (id, stop)
    }

    /// The running workers but `except`, with what stops them.
    pub(super) fn running(&self, except: Option<u64>) -> impl Iterator<Item = (u64, CancellationToken)> {
        let running = self.by_id.iter().filter(move |(id, worker)| worker.is_running() && Some(**id) != except);
        running.map(|(id, worker)| (*id, worker.stop.clone()))
    }

    /// Notes how a worker ended. Gives a sentence on it if that was a failure.
    pub(super) fn ended(&mut self, id: u64, status: WorkerStatus) -> Option<String> {
        let worker = self.by_id.get_mut(&id)?;
        worker.status = status;
        if !matches!(worker.status, WorkerStatus::Failed(_) | WorkerStatus::Panicked(_)) {
            return None;
        }
        let failure = format!("worker '{}' {}", worker.name, worker.status);
        self.failure.get_or_insert_with(|| failure.clone());
        Some(failure)
    }

    /// One whose name was used again has ended, and is not listed any more.
    pub(super) fn have_ended(&self, ids: &[u64]) -> bool {
        ids.iter().all(|id| self.by_id.get(id).is_none_or(|worker| !worker.is_running()))
    }

    /// The first failure since the last call.
    pub(super) fn take_failure(&mut self) -> Option<String> {
        self.failure.take()
    }

    pub(super) fn statuses(&self) -> HashMap<String, WorkerStatus> {
        self.by_id.values().map(|worker| (worker.name.clone(), worker.status.clone())).collect()
    }
}

impl Worker {
    fn is_running(&self) -> bool {
        self.status == WorkerStatus::Running
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_failure_is_told_once_and_all_stay_listed() {
        let mut workers = Workers::default();
        let (a, _) = workers.enter("a");
        let (b, _) = workers.enter("b");
        let (c, _) = workers.enter("c");
        assert_eq!(workers.ended(a, WorkerStatus::Completed), None);
        assert!(workers.ended(b, WorkerStatus::Failed("first".to_owned())).is_some());
        assert!(workers.ended(c, WorkerStatus::Panicked("second".to_owned())).is_some());
        assert_eq!(workers.take_failure().as_deref(), Some("worker 'b' failed: first"));
        assert_eq!(workers.take_failure(), None);
        assert_eq!(workers.statuses()["c"], WorkerStatus::Panicked("second".to_owned()));
    }

    #[test]
    fn an_end_that_comes_after_its_name_was_used_again_changes_nothing() {
        let mut workers = Workers::default();
        let (old, _) = workers.enter("a");
        workers.ended(old, WorkerStatus::Completed);
        let (new, _) = workers.enter("a");
        workers.ended(old, WorkerStatus::Failed("late".to_owned()));
        assert!(workers.is_taken("a"));
        assert!(workers.have_ended(&[old]) && !workers.have_ended(&[old, new]));
        assert_eq!(workers.running(None).count(), 1);
        assert_eq!(workers.running(Some(new)).count(), 0);
    }
}
