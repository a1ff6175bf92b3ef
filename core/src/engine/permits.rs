//! The permits of a pool: so many leases at once, the rest wait, first come
//! first served. Works with any executor and, with `pollster`, without one.
//! Any thread may call it; nothing here blocks for longer than a short lock.
//!
//! Deliberately absent: what a permit is for. `lease` ties it to an engine.

use crate::{MullamaError, process};
use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

/// See the module.
pub(crate) struct Permits {
    state: Mutex<State>,
    /// What is closed, for the message.
    name: &'static str,
}

struct State {
    /// Permits that may be out. Fewer than `in_use` after shrinking, until
    /// enough of them have come back.
    size: usize,
    /// Permits that are out, those that were granted to a waiter and not yet
    /// taken up included.
    in_use: usize,
    /// Those who wait, in their order. Ids rise from front to back.
    waiters: VecDeque<Waiter>,
    /// Waiters that own a permit and have not been polled since. Few.
    granted: Vec<u64>,
    next_id: u64,
    closed: bool,
    acquired_total: u64,
    waited: Duration,
}

struct Waiter {
    id: u64,
    waker: Waker,
}

/// Figures of a pool, as [`crate::PoolStats`] names them.
pub(crate) struct Counts {
    pub(crate) size: usize,
    pub(crate) in_use: usize,
    pub(crate) waiting: usize,
    pub(crate) acquired_total: u64,
    pub(crate) waited: Duration,
}

impl Permits {
    pub(crate) fn new(size: usize, name: &'static str) -> Self {
        let state = State {
            size,
            in_use: 0,
            waiters: VecDeque::new(),
            granted: Vec::new(),
            next_id: 0,
            closed: false,
            acquired_total: 0,
            waited: Duration::ZERO,
        };
        Self { state: Mutex::new(state), name }
    }

    /// A permit if one is free and nobody waits for it.
    ///
    /// # Errors
    /// `Closed`.
    pub(crate) fn try_acquire(&self) -> Result<bool, MullamaError> {
        let mut state = self.lock();
        self.check_open(&state)?;
        let free = state.waiters.is_empty() && state.in_use < state.size;
        if free {
            state.in_use += 1;
            state.acquired_total += 1;
        }
        Ok(free)
    }

    /// Waits for a permit; it is out until `release`. The place in the queue
    /// is taken at the first poll. Dropping the future gives it up, and the
    /// permit too if it was granted meanwhile.
    pub(crate) fn acquire(self: &Arc<Self>) -> Acquire {
        Acquire { permits: self.clone(), place: Place::None, since: Instant::now() }
    }

    /// Brings a permit back.
    pub(crate) fn release(&self) {
        let wakers = {
            let mut state = self.lock();
            state.in_use -= 1;
            state.grant()
        };
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Sets how many permits may be out, and grants those that are new.
    pub(crate) fn resize(&self, size: usize) {
        let wakers = {
            let mut state = self.lock();
            state.size = size;
            state.grant()
        };
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Ends all waits as `Closed`, and grants nothing any more.
    pub(crate) fn close(&self) {
        let wakers: Vec<_> = {
            let mut state = self.lock();
            state.closed = true;
            state.waiters.drain(..).map(|waiter| waiter.waker).collect()
        };
        wakers.into_iter().for_each(Waker::wake);
    }

    pub(crate) fn counts(&self) -> Counts {
        let state = self.lock();
        Counts {
            size: state.size,
            in_use: state.in_use,
            waiting: state.waiters.len(),
            acquired_total: state.acquired_total,
            waited: state.waited,
        }
    }

    fn check_open(&self, state: &State) -> Result<(), MullamaError> {
        if state.closed {
            return Err(MullamaError::Closed(self.name.to_owned()));
        }
        Ok(())
    }

    /// Nothing that can panic runs under the lock, so a poisoned one is whole.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Gives free permits to the first who wait.
    fn grant(&mut self) -> Vec<Waker> {
        let mut wakers = Vec::new();
        while self.in_use < self.size && !self.closed {
            let Some(waiter) = self.waiters.pop_front() else { break };
            self.in_use += 1;
            self.granted.push(waiter.id);
            wakers.push(waiter.waker);
        }
        wakers
    }

    /// Whether `id` was granted a permit, which it takes up now.
    fn take_granted(&mut self, id: u64) -> bool {
        let place = self.granted.iter().position(|granted| *granted == id);
        place.map(|place| self.granted.swap_remove(place)).is_some()
    }

    fn waiter(&self, id: u64) -> Option<usize> {
        self.waiters.binary_search_by_key(&id, |waiter| waiter.id).ok()
    }
}

/// The wait of [`Permits::acquire`].
pub(crate) struct Acquire {
    permits: Arc<Permits>,
    place: Place,
    since: Instant,
}

enum Place {
    /// Not polled yet.
    None,
    Waiting(u64),
    /// Has its permit, or failed.
    Done,
}

impl Future for Acquire {
    type Output = Result<(), MullamaError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        process::check()?;
        let permits = self.permits.clone();
        let mut state = permits.lock();
        let has_permit = match self.place {
            Place::Done => return Poll::Ready(Err(MullamaError::Internal("a permit was asked for twice".to_owned()))),
            Place::None => {
                let free = state.waiters.is_empty() && state.in_use < state.size && !state.closed;
                state.in_use += usize::from(free);
                free
            }
            Place::Waiting(id) => state.take_granted(id),
        };
        if state.closed {
            state.in_use -= usize::from(has_permit);
            self.place = Place::Done;
            return Poll::Ready(permits.check_open(&state));
        }
        if has_permit {
            state.acquired_total += 1;
            state.waited += self.since.elapsed();
            self.place = Place::Done;
            return Poll::Ready(Ok(()));
        }
        let waker = context.waker().clone();
        let replaced = match self.place {
            Place::Waiting(id) => state.waiter(id).map(|at| std::mem::replace(&mut state.waiters[at].waker, waker)),
            _ => {
                let id = state.next_id;
                state.next_id += 1;
                state.waiters.push_back(Waiter { id, waker });
                self.place = Place::Waiting(id);
                None
            }
        };
        // Without the lock: a waker may be the last to hold a task, and that
        // task a permit.
        drop(state);
        drop(replaced);
        Poll::Pending
    }
}

impl Drop for Acquire {
    fn drop(&mut self) {
        let Place::Waiting(id) = self.place else { return };
        if process::is_forked_child() {
            return;
        }
        let mut state = self.permits.lock();
        if let Some(at) = state.waiter(id) {
            let waiter = state.waiters.remove(at);
            // Without the lock, as above.
            drop(state);
            drop(waiter);
        } else if state.take_granted(id) {
            drop(state);
            self.permits.release();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn permits(size: usize) -> Arc<Permits> {
        Arc::new(Permits::new(size, "the pool"))
    }

    fn poll(acquire: &mut Acquire) -> Poll<Result<(), MullamaError>> {
        Pin::new(acquire).poll(&mut Context::from_waker(Waker::noop()))
    }

    fn has(acquire: &mut Acquire) -> bool {
        matches!(poll(acquire), Poll::Ready(Ok(())))
    }

    #[test]
    fn those_who_wait_are_served_in_their_order() {
        let permits = permits(1);
        assert!(permits.try_acquire().unwrap());
        let mut waits: Vec<_> = (0..3).map(|_| permits.acquire()).collect();
        assert!(!waits.iter_mut().any(has));
        for at in 0..3 {
            permits.release();
            assert_eq!(waits.iter_mut().skip(at).map(has).collect::<Vec<_>>(), [true, false, false][..3 - at]);
        }
    }

    #[test]
    fn nobody_overtakes_a_waiter() {
        let permits = permits(1);
        assert!(permits.try_acquire().unwrap());
        let mut first = permits.acquire();
        assert!(!has(&mut first));
        permits.release();
        assert!(!permits.try_acquire().unwrap());
        assert!(!has(&mut permits.acquire()));
        assert!(has(&mut first));
    }

    #[test]
    fn a_dropped_wait_gives_up_its_place_and_a_granted_permit() {
        let permits = permits(1);
        assert!(permits.try_acquire().unwrap());
        let mut waits: Vec<_> = (0..3).map(|_| permits.acquire()).collect();
        waits.iter_mut().for_each(|wait| assert!(!has(wait)));
        drop(waits.remove(0));
        assert_eq!(permits.counts().waiting, 2);
        permits.release();
        // Granted, but never polled again.
        drop(waits.remove(0));
        assert!(has(&mut waits[0]));
        permits.release();
        assert_eq!(permits.counts().in_use, 0);
    }

    #[test]
    fn a_waker_that_goes_may_give_a_permit_back() {
        /// Stands for a task that holds a permit and has no other owner.
        struct Task(Arc<Permits>);

        impl std::task::Wake for Task {
            fn wake(self: Arc<Self>) {}
        }

        impl Drop for Task {
            fn drop(&mut self) {
                self.0.release();
            }
        }

        let permits = permits(2);
        assert!(permits.try_acquire().unwrap() && permits.try_acquire().unwrap());
        let (mut first, mut second) = (permits.acquire(), permits.acquire());
        let task = Waker::from(Arc::new(Task(permits.clone())));
        assert!(Pin::new(&mut first).poll(&mut Context::from_waker(&task)).is_pending());
        drop(task);
        assert!(!has(&mut first), "granted by the drop of the waker that it had");
        assert!(has(&mut first));
        let task = Waker::from(Arc::new(Task(permits.clone())));
        assert!(Pin::new(&mut second).poll(&mut Context::from_waker(&task)).is_pending());
        drop(task);
        drop(second);
        assert_eq!(permits.counts().in_use, 1);
    }

    #[test]
    fn growing_serves_waiters_and_shrinking_lets_permits_come_back() {
        let permits = permits(1);
        assert!(permits.try_acquire().unwrap());
        let mut waits: Vec<_> = (0..3).map(|_| permits.acquire()).collect();
        waits.iter_mut().for_each(|wait| assert!(!has(wait)));
        permits.resize(3);
        assert_eq!(waits.iter_mut().map(has).collect::<Vec<_>>(), [true, true, false]);
        permits.resize(1);
        permits.release();
        permits.release();
        assert!(!has(&mut waits[2]), "one permit is out, which is all there is");
        permits.release();
        assert!(has(&mut waits[2]));
    }

    #[test]
    fn closing_ends_all_waits_and_those_to_come() {
        let permits = permits(1);
        assert!(permits.try_acquire().unwrap());
        let (mut waiting, mut granted) = (permits.acquire(), permits.acquire());
        assert!(!has(&mut granted) && !has(&mut waiting));
        permits.release();
        permits.close();
        for wait in [&mut waiting, &mut granted, &mut permits.acquire()] {
            assert!(matches!(poll(wait), Poll::Ready(Err(MullamaError::Closed(_)))));
        }
        assert!(matches!(permits.try_acquire(), Err(MullamaError::Closed(_))));
        assert_eq!(permits.counts().in_use, 0);
    }
}
