//! One answer for one caller: the session's thread gives it, the caller awaits
//! it from async or from blocking code. A caller that goes away says so, which
//! stops the work.

use crate::{MullamaError, engine::ticket::Bell, process};
use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker},
};

struct Slot<T> {
    state: Mutex<State<T>>,
    /// The caller is gone. Read inside steps, so it is kept beside the lock.
    abandoned: AtomicBool,
}

enum State<T> {
    Waiting(Option<Waker>),
    Given(Result<T, MullamaError>),
    /// The caller has the answer.
    Taken,
}

/// The thread's end. Dropping it without an answer, as when the thread
/// panics, answers with `Internal`.
pub(super) struct Answer<T>(Option<Arc<Slot<T>>>);

/// The caller's end. Dropping it stops the work.
pub(crate) struct Call<T> {
    slot: Arc<Slot<T>>,
    bell: Arc<dyn Bell>,
}

/// The two ends of a call whose caller rings `bell` when it goes away.
pub(super) fn call<T>(bell: Arc<dyn Bell>) -> (Answer<T>, Call<T>) {
    let slot = Arc::new(Slot { state: Mutex::new(State::Waiting(None)), abandoned: AtomicBool::new(false) });
    (Answer(Some(slot.clone())), Call { slot, bell })
}

impl<T> Answer<T> {
    /// Gives the answer.
    pub(super) fn give(mut self, result: Result<T, MullamaError>) {
        if let Some(slot) = self.0.take() {
            slot.give(result);
        }
    }

    /// Whether nobody waits for the answer any more.
    pub(super) fn is_abandoned(&self) -> bool {
        self.0.as_ref().is_none_or(|slot| slot.abandoned.load(Ordering::Acquire))
    }
}

impl<T> Drop for Answer<T> {
    fn drop(&mut self) {
        if let Some(slot) = self.0.take() {
            slot.give(Err(MullamaError::Internal(
                "the context's thread stopped unexpectedly; make another".to_owned(),
            )));
        }
    }
}

impl<T> Slot<T> {
    fn give(&self, result: Result<T, MullamaError>) {
        let before = std::mem::replace(&mut *self.lock(), State::Given(result));
        if let State::Waiting(Some(waker)) = before {
            waker.wake();
        }
    }

    /// Nothing that can panic runs under the lock, so a poisoned one is whole.
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Future for Call<T> {
    type Output = Result<T, MullamaError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        process::check()?;
        let mut state = self.slot.lock();
        match std::mem::replace(&mut *state, State::Taken) {
            State::Given(result) => Poll::Ready(result),
            State::Waiting(_) => {
                *state = State::Waiting(Some(context.waker().clone()));
                Poll::Pending
            }
            State::Taken => Poll::Ready(Err(MullamaError::Internal("an answer was asked for twice".to_owned()))),
        }
    }
}

impl<T> Drop for Call<T> {
    fn drop(&mut self) {
        if process::is_forked_child() {
            return;
        }
        self.slot.abandoned.store(true, Ordering::Release);
        // An answer that came and was not taken goes with the caller: a stream
        // in it is cancelled by that.
        let left = std::mem::replace(&mut *self.slot.lock(), State::Taken);
        if matches!(left, State::Waiting(_)) {
            self.bell.notify();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{sync::atomic::AtomicUsize, thread};

    #[derive(Default)]
    struct Counter(AtomicUsize);

    impl Bell for Counter {
        fn notify(&self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn an_answer_reaches_the_caller_on_another_thread() {
        let (answer, call) = call::<u32>(Arc::new(Counter::default()));
        let caller = thread::spawn(move || pollster::block_on(call));
        assert!(!answer.is_abandoned());
        answer.give(Ok(3));
        assert_eq!(caller.join().unwrap().unwrap(), 3);
    }

    #[test]
    fn a_caller_that_goes_away_is_seen_and_rings() {
        let bell = Arc::new(Counter::default());
        let (answer, waits) = call::<u32>(bell.clone());
        drop(waits);
        assert!(answer.is_abandoned());
        assert_eq!(bell.0.load(Ordering::Relaxed), 1);
        answer.give(Ok(1));

        let (answer, has_its_answer) = call::<u32>(bell.clone());
        answer.give(Ok(1));
        drop(has_its_answer);
        assert_eq!(bell.0.load(Ordering::Relaxed), 1, "there was nothing left to stop");
    }

    #[test]
    fn a_thread_that_never_answers_is_an_internal_error() {
        let (answer, call) = call::<u32>(Arc::new(Counter::default()));
        drop(answer);
        assert_eq!(pollster::block_on(call).unwrap_err().code(), "internal");
    }
}
