//! What callers hand to a thread that sleeps between its work: things go in
//! under a lock, and a bell wakes the thread for them, for cancellations, for
//! room in a buffer, and for the end. The thread is an engine's or a
//! session's; any other may call what is here.

use super::ticket::Bell;
use crate::MullamaError;
use std::{
    sync::{
        Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

/// A `T` that callers fill and one thread empties.
#[derive(Default)]
pub(super) struct Belled<T> {
    state: Mutex<State<T>>,
    bell: Condvar,
    /// Set once; read inside steps, so it is kept beside the lock.
    closing: AtomicBool,
}

#[derive(Default)]
struct State<T> {
    content: T,
    /// The bell was rung since the thread last listened.
    rung: bool,
}

impl<T: Send> Bell for Belled<T> {
    fn notify(&self) {
        self.lock().rung = true;
        self.bell.notify_one();
    }
}

impl<T> Belled<T> {
    /// Puts something in with `put`, and rings.
    ///
    /// # Errors
    /// `closed` when the thread is told to end, and those of `put`.
    pub(super) fn submit(
        &self,
        closed: fn() -> MullamaError,
        put: impl FnOnce(&mut T) -> Result<(), MullamaError>,
    ) -> Result<(), MullamaError> {
        let mut state = self.lock();
        // Under the lock: the thread's last look takes everything that was
        // accepted before it.
        if self.is_closing() {
            return Err(closed());
        }
        put(&mut state.content)?;
        state.rung = true;
        drop(state);
        self.bell.notify_one();
        Ok(())
    }

    /// Lets nothing more in and tells the thread to end.
    pub(super) fn close(&self) {
        {
            let mut state = self.lock();
            self.closing.store(true, Ordering::Release);
            state.rung = true;
        }
        self.bell.notify_one();
    }

    pub(super) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    /// Looks at what is in; rings of the bell stay heard.
    pub(super) fn look<R>(&self, look: impl FnOnce(&mut T) -> R) -> R {
        look(&mut self.lock().content)
    }

    /// Takes out what the rings until now were about.
    pub(super) fn listen<R>(&self, take: impl FnOnce(&mut T) -> R) -> R {
        let mut state = self.lock();
        state.rung = false;
        take(&mut state.content)
    }

    /// Waits until `take` finds something; `None` when the thread is to end.
    pub(super) fn wait_for<R>(&self, take: impl Fn(&mut T) -> Option<R>) -> Option<R> {
        let mut state = self.lock();
        loop {
            if self.is_closing() {
                return None;
            }
            if let Some(found) = take(&mut state.content) {
                return Some(found);
            }
            state = self.bell.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Sleeps until the bell rings, or until `deadline`.
    pub(super) fn sleep(&self, deadline: Option<Instant>) {
        let mut state = self.lock();
        while !std::mem::take(&mut state.rung) {
            match deadline {
                None => state = self.bell.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(deadline) => {
                    let now = Instant::now();
                    let Some(left) = deadline.checked_duration_since(now).filter(|left| !left.is_zero()) else {
                        return;
                    };
                    state = self.bell.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
                }
            }
        }
    }

    /// Nothing that can panic runs under the lock, so a poisoned one is whole.
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{thread, time::Duration};

    fn full() -> MullamaError {
        MullamaError::QueueFull { limit: 1 }
    }

    fn push(belled: &Belled<Vec<u8>>, n: u8) -> Result<(), MullamaError> {
        belled.submit(MullamaError::model_closed, |content| {
            if content.len() < 2 {
                content.push(n);
                Ok(())
            } else {
                Err(full())
            }
        })
    }

    #[test]
    fn what_is_put_in_wakes_the_thread() {
        let belled = Belled::<Vec<u8>>::default();
        thread::scope(|scope| {
            let sleeper = scope.spawn(|| {
                belled.sleep(None);
                belled.listen(std::mem::take)
            });
            push(&belled, 7).unwrap();
            assert_eq!(sleeper.join().unwrap(), [7]);
        });
    }

    #[test]
    fn a_ring_before_the_sleep_is_heard_once() {
        let belled = Belled::<Vec<u8>>::default();
        belled.notify();
        belled.sleep(None);
        let deadline = Instant::now() + Duration::from_millis(5);
        belled.sleep(Some(deadline));
        assert!(Instant::now() >= deadline);
        belled.notify();
        belled.listen(|_| ());
        belled.sleep(Some(Instant::now()));
    }

    #[test]
    fn what_is_refused_changes_nothing() {
        let belled = Belled::<Vec<u8>>::default();
        push(&belled, 1).unwrap();
        push(&belled, 2).unwrap();
        assert!(matches!(push(&belled, 3), Err(MullamaError::QueueFull { .. })));
        belled.close();
        assert!(matches!(push(&belled, 4), Err(MullamaError::Closed(_))));
        assert_eq!(belled.look(std::mem::take), [1, 2]);
    }

    #[test]
    fn closing_ends_a_wait_though_something_is_left() {
        let belled = Belled::<Vec<u8>>::default();
        thread::scope(|scope| {
            let waiter = scope.spawn(|| belled.wait_for(Vec::pop));
            push(&belled, 5).unwrap();
            assert_eq!(waiter.join().unwrap(), Some(5));
            let waiter = scope.spawn(|| belled.wait_for(Vec::pop));
            belled.close();
            assert_eq!(waiter.join().unwrap(), None);
        });
        belled.listen(|content| content.push(6));
        assert_eq!(belled.wait_for(Vec::pop), None);
    }
}
