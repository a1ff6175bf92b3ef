//! How callers reach an engine's thread: requests and changes of its size go
//! in, and its counts are known to all.

use super::{
    bell::Belled,
    lease::{Hold, Resized},
    request::Request,
    ticket::Bell,
};
use crate::MullamaError;
use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

/// Requests that are made at once arrive one after the other, some ten
/// microseconds apart. When none came for this long, no other belongs to them.
const QUIET: Duration = Duration::from_micros(200);

/// Longest that the first of them waits for the others.
const GATHERING: Duration = Duration::from_millis(3);

/// See the module.
pub(crate) struct Inbox {
    arrived: Belled<Arrived>,
    /// Requests that are submitted and not admitted, in this inbox and in the
    /// engine's own queue. Bounds the queue.
    n_waiting: AtomicUsize,
    /// Requests whose prompts are being tokenized.
    n_coming: AtomicUsize,
    /// Sequences that are served, as the engine last told.
    n_active: AtomicUsize,
    /// Sequences that may be served at once.
    max_concurrent: AtomicUsize,
    max_queue: usize,
}

#[derive(Default)]
struct Arrived {
    requests: VecDeque<Request>,
    resizes: VecDeque<Resize>,
}

/// A change of how many sequences are served at once.
pub(super) struct Resize {
    pub(super) n: usize,
    /// Who waits for more; whoever wants fewer does not wait.
    pub(super) done: Option<Arc<Resized>>,
}

impl Drop for Resize {
    fn drop(&mut self) {
        // Nothing happens when it was told already.
        if let Some(done) = &self.done {
            done.set(Err(MullamaError::model_closed()));
        }
    }
}

impl Bell for Inbox {
    fn notify(&self) {
        self.arrived.notify();
    }
}

impl Inbox {
    pub(crate) fn new(max_concurrent: usize, max_queue: usize) -> Self {
        Self {
            arrived: Belled::default(),
            n_waiting: AtomicUsize::new(0),
            n_coming: AtomicUsize::new(0),
            n_active: AtomicUsize::new(0),
            max_concurrent: AtomicUsize::new(max_concurrent),
            max_queue,
        }
    }

    /// Tells that a request is about to be submitted, until the guard is
    /// dropped.
    pub(super) fn announce(&self) -> Coming<'_> {
        self.n_coming.fetch_add(1, Ordering::AcqRel);
        Coming { inbox: self }
    }

    /// Hands a request to the engine.
    ///
    /// # Errors
    /// `Closed`, or `QueueFull` when all sequences are taken and `max_queue`
    /// requests wait. One that a free sequence is about to take does not wait:
    /// not that of a lease without another, whatever other leases line up.
    pub(crate) fn submit(&self, request: Request) -> Result<(), MullamaError> {
        let has_own = request.lease.as_ref().is_some_and(Hold::is_first);
        // Stays out here when it is refused: its end takes other locks.
        let mut request = Some(request);
        self.arrived.submit(MullamaError::model_closed, |arrived| {
            let n_free = self.max_concurrent().saturating_sub(self.n_active.load(Ordering::Acquire));
            if !has_own && self.n_waiting() >= self.max_queue.saturating_add(n_free) {
                return Err(MullamaError::QueueFull { limit: self.max_queue });
            }
            self.n_waiting.fetch_add(1, Ordering::AcqRel);
            arrived.requests.extend(request.take());
            Ok(())
        })
    }

    /// Asks the engine for another number of sequences.
    ///
    /// # Errors
    /// `Closed`.
    pub(super) fn resize(&self, resize: Resize) -> Result<(), MullamaError> {
        self.arrived.submit(MullamaError::model_closed, |arrived| {
            arrived.resizes.push_back(resize);
            Ok(())
        })
    }

    /// The oldest change that was asked for.
    pub(super) fn next_resize(&self) -> Option<Resize> {
        self.arrived.look(|arrived| arrived.resizes.pop_front())
    }

    pub(super) fn max_concurrent(&self) -> usize {
        self.max_concurrent.load(Ordering::Acquire)
    }

    /// So many sequences are served at once from now on.
    pub(super) fn set_max_concurrent(&self, n: usize) {
        self.max_concurrent.store(n, Ordering::Release);
    }

    /// Lets nothing more in and tells the engine to end.
    pub(crate) fn close(&self) {
        self.arrived.close();
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.arrived.is_closing()
    }

    /// How many requests wait for admission.
    pub(crate) fn n_waiting(&self) -> usize {
        self.n_waiting.load(Ordering::Acquire)
    }

    /// So many sequences are served now.
    pub(super) fn set_active(&self, n: usize) {
        self.n_active.store(n, Ordering::Release);
    }

    /// A request left the queue: admitted, or over before that.
    pub(super) fn left_queue(&self) {
        self.n_waiting.fetch_sub(1, Ordering::AcqRel);
    }

    /// Moves what has arrived to `waiting`.
    pub(super) fn drain(&self, waiting: &mut VecDeque<Request>) {
        self.arrived.listen(|arrived| waiting.append(&mut arrived.requests));
    }

    /// Takes what has arrived while nothing was served, and what arrives with
    /// it, as far as there are sequences for it. A step that the first had for
    /// itself would cost the others its time, and they would not go on as one
    /// batch. Windows waits for whole ticks of its clock, up to 16 ms, so nobody
    /// waits there.
    pub(super) fn gather(&self, waiting: &mut VecDeque<Request>) {
        let at_first = waiting.len();
        let mut before = at_first;
        self.drain(waiting);
        let until = Instant::now() + GATHERING;
        let comes = |before: usize, n: usize| before < n || (at_first < n && self.n_coming.load(Ordering::Acquire) > 0);
        while !cfg!(windows) && waiting.len() < self.max_concurrent() && comes(before, waiting.len()) {
            let now = Instant::now();
            if now >= until || self.is_closing() {
                return;
            }
            before = waiting.len();
            self.sleep(Some(until.min(now + QUIET)));
            self.drain(waiting);
        }
    }

    /// Sleeps until the bell rings, or until `deadline`.
    pub(super) fn sleep(&self, deadline: Option<Instant>) {
        self.arrived.sleep(deadline);
    }
}

/// See [`Inbox::announce`].
pub(super) struct Coming<'a> {
    inbox: &'a Inbox,
}

impl Drop for Coming<'_> {
    fn drop(&mut self) {
        self.inbox.n_coming.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ModelOptions, StreamConfig, engine::ticket_of};

    fn submit(inbox: &Arc<Inbox>) {
        let config = StreamConfig::new();
        let ticket = ticket_of(&config, 1, &ModelOptions::default(), inbox.clone(), Instant::now(), false);
        inbox.submit(Request::new(ticket, vec![1], config, 1, None)).unwrap();
    }

    #[test]
    fn the_first_waits_for_those_that_are_about_to_come() {
        let inbox = Arc::new(Inbox::new(4, 4));
        let mut waiting = VecDeque::new();
        let mut gather = |n: usize| {
            let started = Instant::now();
            inbox.gather(&mut waiting);
            assert_eq!(waiting.drain(..).count(), n);
            started.elapsed()
        };
        {
            let _coming = inbox.announce();
            gather(0);
        }
        submit(&inbox);
        assert!(gather(1) >= QUIET);
        submit(&inbox);
        submit(&inbox);
        assert!(gather(2) >= QUIET);
        submit(&inbox);
        let _coming = inbox.announce();
        assert!(gather(1) >= GATHERING, "it waits for that one, but not for ever");
    }
}
