//! Whom a thread that generates has news for, and when it wakes them. To wake
//! an event loop and have it take a token costs some ten microseconds of a
//! processor that the next step computes on. So where steps are short, tokens
//! that are ready within a few milliseconds are told of together. First tokens
//! and ends are told of at once.
//!
//! Owned by the thread that generates. Deliberately absent: how a reader is
//! woken (`wakes`), and what it finds then (`ticket`).

use crate::wakes;
use std::{
    task::Waker,
    time::{Duration, Instant},
};

/// How long a token may wait for those after it: no longer than a frame of a
/// screen lasts. Where a step takes longer than this, every step wakes its readers.
const TOGETHER: Duration = Duration::from_millis(16);

/// See the module.
#[derive(Default)]
pub(super) struct Readers {
    /// Readers to wake, all at once.
    wakers: Vec<Waker>,
    /// Since when the first of them has waited.
    since: Option<Instant>,
    /// There is news that must not wait.
    is_urgent: bool,
    /// Rows and time of the last step.
    last_step: Option<(usize, Duration)>,
}

impl Readers {
    /// There is news that must not wait. Its reader may be among those to wake
    /// already; then there is no `waker`.
    pub(super) fn tell(&mut self, waker: Option<Waker>) {
        self.wakers.extend(waker);
        self.is_urgent = true;
    }

    /// There is a token, which may or may not wait for what the next step
    /// brings.
    pub(super) fn tell_of_token(&mut self, waker: Option<Waker>, may_wait: bool, now: Instant) {
        if !may_wait {
            self.tell(waker);
        } else if let Some(waker) = waker {
            self.wakers.push(waker);
            self.since.get_or_insert(now);
        }
    }

    /// A step took `elapsed`.
    pub(super) fn stepped(&mut self, n_rows: usize, elapsed: Duration) {
        self.last_step = Some((n_rows, elapsed));
    }

    /// A step begins: whoever can't wait until its end is woken, and then all
    /// are. It is thought to take as long as the last one, if it has no more
    /// rows.
    pub(super) fn step_begins(&mut self, n_rows: usize, now: Instant) {
        let ends = |(rows, elapsed)| (n_rows <= rows).then(|| now + elapsed);
        let ends = self.last_step.and_then(ends);
        let may_wait = ends.zip(self.since).is_some_and(|(ends, since)| ends <= since + TOGETHER);
        if self.is_urgent || !may_wait {
            self.wake();
        }
    }

    /// Wakes all if one of them can't wait.
    pub(super) fn wake_if_urgent(&mut self) {
        if self.is_urgent {
            self.wake();
        }
    }

    /// Wakes all.
    pub(super) fn wake(&mut self) {
        (self.since, self.is_urgent) = (None, false);
        if !self.wakers.is_empty() {
            wakes::joined(|| self.wakers.drain(..).for_each(Waker::wake));
        }
    }
}

impl Drop for Readers {
    /// Nobody is forgotten when the thread panics.
    fn drop(&mut self) {
        self.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering::SeqCst},
        },
        task::Wake,
    };

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, SeqCst);
        }
    }

    const STEP: Duration = Duration::from_millis(6);

    /// Readers that know how long a step of one row takes, and whose token is
    /// told of `now`.
    fn one_waits(now: Instant) -> (Readers, Arc<Count>) {
        let (mut readers, count) = (Readers::default(), Arc::new(Count::default()));
        readers.stepped(1, STEP);
        readers.tell_of_token(Some(count.clone().into()), true, now);
        (readers, count)
    }

    #[test]
    fn tokens_of_short_steps_are_told_of_together() {
        let now = Instant::now();
        let (mut readers, count) = one_waits(now);
        readers.step_begins(1, now);
        readers.tell_of_token(None, true, now + STEP);
        readers.step_begins(1, now + STEP);
        assert_eq!(count.0.load(SeqCst), 0, "the next step ends 12 ms after the first token");
        readers.step_begins(1, now + 2 * STEP);
        assert_eq!(count.0.load(SeqCst), 1);
        readers.step_begins(1, now + 3 * STEP);
        assert_eq!(count.0.load(SeqCst), 1, "nobody waits any more");
    }

    #[test]
    fn the_wait_counts_from_the_first_token() {
        let now = Instant::now();
        let (mut readers, first) = one_waits(now);
        let second = Arc::new(Count::default());
        readers.tell_of_token(Some(second.clone().into()), true, now + 2 * STEP);
        readers.step_begins(1, now + 2 * STEP);
        assert_eq!((first.0.load(SeqCst), second.0.load(SeqCst)), (1, 1));
    }

    #[test]
    fn an_end_and_a_first_token_wait_for_no_step() {
        let now = Instant::now();
        let (mut readers, count) = one_waits(now);
        // The end of the one that waits already.
        readers.tell(None);
        readers.step_begins(1, now);
        assert_eq!(count.0.load(SeqCst), 1);
        readers.tell_of_token(Some(count.clone().into()), true, now);
        readers.wake_if_urgent();
        assert_eq!(count.0.load(SeqCst), 1);
        readers.tell_of_token(None, false, now);
        readers.wake_if_urgent();
        assert_eq!(count.0.load(SeqCst), 2);
    }

    #[test]
    fn nobody_waits_for_a_step_that_may_take_long() {
        let now = Instant::now();
        let (mut readers, count) = one_waits(now);
        readers.step_begins(2, now);
        assert_eq!(count.0.load(SeqCst), 1, "more rows than were measured");

        let (mut readers, count) = one_waits(now);
        readers.stepped(16, Duration::from_millis(17));
        readers.step_begins(16, now);
        assert_eq!(count.0.load(SeqCst), 1);

        let (mut readers, count) = (Readers::default(), Arc::new(Count::default()));
        readers.tell_of_token(Some(count.clone().into()), true, now);
        readers.step_begins(1, now);
        assert_eq!(count.0.load(SeqCst), 1, "nothing was measured");
    }

    #[test]
    fn all_are_woken_when_nothing_follows() {
        let (mut readers, count) = one_waits(Instant::now());
        readers.wake();
        readers.wake();
        assert_eq!(count.0.load(SeqCst), 1);
        let (readers, count) = one_waits(Instant::now());
        drop(readers);
        assert_eq!(count.0.load(SeqCst), 1);
    }
}
