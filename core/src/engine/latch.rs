//! A value that is set once and can be awaited by many, from async code and
//! from blocking code alike. Used for the result of a load and for the end of
//! an engine's thread.

use crate::process;
use std::{
    collections::BTreeMap,
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
    /// Those who wait, by number.
    wakers: BTreeMap<u64, Waker>,
    next_id: u64,
}

/// The entry of one who waits; dropping it takes the waker out.
struct Entry<'a, T> {
    latch: &'a Latch<T>,
    id: u64,
}

impl<T: Clone> Latch<T> {
    pub(crate) fn new() -> Self {
        Self { state: Mutex::new(State { value: None, wakers: BTreeMap::new(), next_id: 0 }) }
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
        wakers.into_values().for_each(Waker::wake);
    }

    pub(crate) fn get(&self) -> Option<T> {
        self.lock().value.clone()
    }

    /// Waits for the value. Dropping the future is safe at any time.
    pub(crate) async fn wait(&self) -> T {
        let mut entry = None;
        poll_fn(|context| {
            let before = {
                let mut state = self.lock();
                if let Some(value) = &state.value {
                    return Poll::Ready(value.clone());
                }
                let id = entry.get_or_insert_with(|| {
                    state.next_id += 1;
                    Entry { latch: self, id: state.next_id }
                });
                state.wakers.insert(id.id, context.waker().clone())
            };
            // Without the lock: what a waker drops may take it.
            drop(before);
            Poll::Pending
        })
        .await
    }

    #[cfg(test)]
    fn n_waiting(&self) -> usize {
        self.lock().wakers.len()
    }
}

impl<T> Latch<T> {
    /// Nothing that can panic runs under the lock, so a poisoned one is whole.
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Drop for Entry<'_, T> {
    fn drop(&mut self) {
        if process::is_forked_child() {
            return;
        }
        let waker = self.latch.lock().wakers.remove(&self.id);
        // Without the lock, as above.
        drop(waker);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        pin::pin,
        sync::Arc,
        task::{Context, Wake},
        thread,
    };

    /// A waker that is one of its kind.
    struct Ignore;

    impl Wake for Ignore {
        fn wake(self: Arc<Self>) {}
    }

    #[test]
    fn who_gives_up_leaves_nothing_behind() {
        let latch = Latch::<u32>::new();
        for _ in 0..3 {
            let mut wait = pin!(latch.wait());
            for _ in 0..3 {
                let waker = Waker::from(Arc::new(Ignore));
                assert!(wait.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
                assert_eq!(latch.n_waiting(), 1);
            }
        }
        assert_eq!(latch.n_waiting(), 0);
    }

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
