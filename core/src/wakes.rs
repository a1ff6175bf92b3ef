//! Joins the wakes of event loops. An engine has news for many readers after a
//! step, and many of them may wait in one loop, which one wake serves.
//! So what a reader's waker does to wake its loop goes through [`wake`]: while
//! the engine tells its readers, that is put off until all are told, and done
//! once a loop.
//!
//! Not public API: it is there for the bindings. Nothing here knows what a loop
//! is or how it is woken.

use std::{cell::RefCell, sync::Arc};

/// An event loop as its wakers see it.
pub trait EventLoop: Send + Sync {
    /// Wakes the loop's thread, from any thread, and does not wait for it. It
    /// should do nothing when the loop was woken and has not looked since.
    fn wake(&self);
}

/// What this thread puts off.
#[derive(Default)]
struct Due {
    /// Whether wakes are put off now.
    is_joining: bool,
    /// Empty otherwise, but keeps its room.
    loops: Vec<Arc<dyn EventLoop>>,
}

thread_local! {
    static DUE: RefCell<Due> = RefCell::default();
}

/// Wakes a loop: now, or, when this is called from a waker that an engine calls
/// between two steps, after the last of these wakers.
pub fn wake(event_loop: &Arc<dyn EventLoop>) {
    let is_due = DUE.with_borrow_mut(|due| {
        if due.is_joining && !due.loops.iter().any(|other| Arc::ptr_eq(other, event_loop)) {
            due.loops.push(event_loop.clone());
        }
        due.is_joining
    });
    if !is_due {
        event_loop.wake();
    }
}

/// Does `work`, which calls wakers, and then wakes their loops.
pub(crate) fn joined(work: impl FnOnce()) {
    let is_inner = DUE.with_borrow_mut(|due| std::mem::replace(&mut due.is_joining, true));
    // On the way out of a panic too: whoever was told waits for its loop.
    let _end = (!is_inner).then_some(End);
    work();
}

/// Wakes what is due when it is dropped.
struct End;

impl Drop for End {
    fn drop(&mut self) {
        let mut loops = DUE.with_borrow_mut(|due| {
            due.is_joining = false;
            std::mem::take(&mut due.loops)
        });
        loops.drain(..).for_each(|event_loop| event_loop.wake());
        DUE.with_borrow_mut(|due| due.loops = loops);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    #[derive(Default)]
    struct Counting(AtomicUsize);

    impl EventLoop for Counting {
        fn wake(&self) {
            self.0.fetch_add(1, SeqCst);
        }
    }

    #[test]
    fn a_loop_is_woken_once_for_all_its_readers_and_after_them() {
        let loops = [Arc::new(Counting::default()), Arc::new(Counting::default())];
        joined(|| {
            for _ in 0..3 {
                for event_loop in &loops {
                    let event_loop: Arc<dyn EventLoop> = event_loop.clone();
                    wake(&event_loop);
                }
            }
            assert!(loops.iter().all(|event_loop| event_loop.0.load(SeqCst) == 0));
        });
        assert!(loops.iter().all(|event_loop| event_loop.0.load(SeqCst) == 1));
    }

    #[test]
    fn a_wake_outside_is_not_put_off() {
        let counting = Arc::new(Counting::default());
        let event_loop: Arc<dyn EventLoop> = counting.clone();
        wake(&event_loop);
        joined(|| wake(&event_loop));
        wake(&event_loop);
        assert_eq!(counting.0.load(SeqCst), 3);
    }

    #[test]
    fn a_waker_that_panics_leaves_no_loop_asleep() {
        let counting = Arc::new(Counting::default());
        let event_loop: Arc<dyn EventLoop> = counting.clone();
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            joined(|| {
                wake(&event_loop);
                panic!("a waker's");
            });
        }));
        assert!(panicked.is_err());
        assert_eq!(counting.0.load(SeqCst), 1);
    }
}
