//! A value that is set once and can be awaited by many, from async code and
//! from blocking code alike. Used for the result of a load and for the end of
//! an engine's thread.

use std::{
    future::poll_fn,
    sync::{Mutex, MutexGuard, PoisonError},
    task::{Poll, Waker},
};

/// See the module.
pub(crate) struct Latch<T> {
    state: Mutex<State<T>>,
}

struct State<T> {
    value: Option<T>,
    /// Those who wait, and who have waited and gave up: few, and gone with the
    /// value.
    wakers: Vec<Waker>,
}

impl<T: Clone> Latch<T> {
    pub(crate) fn new() -> Self {
        Self { state: Mutex::new(State { value: None, wakers: Vec::new() }) }
    }

    /// Sets the value and wakes all who wait. A second value is ignored.
    pub(crate) fn set(&self, value: T) {
        let wakers = {
            let mut state = self.lock();
            if state.value.is_some() {
                return;
            }
            state.value = Some(value);
            std::mem::take(&mut state.wakers)
        };
        wakers.into_iter().for_each(Waker::wake);
    }

    pub(crate) fn get(&self) -> Option<T> {
        self.lock().value.clone()
    }

    /// Waits for the value. Dropping the future is safe at any time.
    pub(crate) async fn wait(&self) -> T {
        poll_fn(|context| {
            let mut state = self.lock();
            if let Some(value) = &state.value {
                return Poll::Ready(value.clone());
            }
            if !state.wakers.iter().any(|waker| waker.will_wake(context.waker())) {
                state.wakers.push(context.waker().clone());
            }
            Poll::Pending
        })
        .await
    }

    /// Nothing that can panic runs under the lock, so a poisoned one is whole.
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{sync::Arc, thread};

    #[test]
    fn all_who_wait_get_the_first_value() {
        let latch = Arc::new(Latch::new());
        let waiting: Vec<_> = (0..4)
            .map(|_| {
                let latch = latch.clone();
                thread::spawn(move || pollster::block_on(latch.wait()))
            })
            .collect();
        latch.set(1);
        latch.set(2);
        for thread in waiting {
            assert_eq!(thread.join().unwrap(), 1);
        }
        assert_eq!(latch.get(), Some(1));
    }
}
