//! How callers reach a session's thread: work goes in, in the order of the
//! calls.

use super::work::Work;
use crate::{
    MullamaError,
    engine::{bell::Belled, ticket::Bell},
};
use std::{collections::VecDeque, time::Instant};

/// See the module. Unbounded on purpose: calls take a context by `&mut`, so
/// more than a few wait only where a caller lines them up itself.
#[derive(Default)]
pub(super) struct Inbox(Belled<VecDeque<Work>>);

impl Bell for Inbox {
    fn notify(&self) {
        self.0.notify();
    }
}

impl Inbox {
    /// Lines up work.
    ///
    /// # Errors
    /// `Closed`.
    pub(super) fn submit(&self, work: Work) -> Result<(), MullamaError> {
        self.0.submit(MullamaError::context_closed, |waiting| {
            waiting.push_back(work);
            Ok(())
        })
    }

    /// Lets nothing more in and tells the thread to end.
    pub(super) fn close(&self) {
        self.0.close();
    }

    pub(super) fn is_closing(&self) -> bool {
        self.0.is_closing()
    }

    /// Waits for the next work; `None` when the session closes.
    pub(super) fn next(&self) -> Option<Work> {
        self.0.wait_for(VecDeque::pop_front)
    }

    /// Takes out all that waits.
    pub(super) fn drain(&self) -> VecDeque<Work> {
        self.0.look(std::mem::take)
    }

    /// Whether work waits that somebody still wants.
    pub(super) fn has_work(&self) -> bool {
        self.0.look(|waiting| waiting.iter().any(|work| !work.is_abandoned()))
    }

    /// Sleeps until the bell rings, or until `deadline`.
    pub(super) fn sleep(&self, deadline: Option<Instant>) {
        self.0.sleep(deadline);
    }
}
