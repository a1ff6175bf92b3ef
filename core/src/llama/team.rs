//! The threads of a context's pool, for work that is not llama.cpp's. Between two
//! decodes they wait for the next one without sleeping, so they are there at
//! once. Part of a [`super::Context`], on its thread.

use super::{
    shim::{self, ErrorText},
    thread_pool::ThreadPool,
};
use std::{
    any::Any,
    ffi::c_void,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    ptr::NonNull,
    rc::Rc,
    sync::{Mutex, PoisonError},
};

/// See the module.
pub(super) struct Team {
    team: NonNull<shim::RawTeam>,
    /// The team computes with it as long as it lives.
    _pool: Rc<ThreadPool>,
}

/// What the threads do together.
struct Call<'a> {
    work: &'a (dyn Fn() + Sync),
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

impl Team {
    /// `None` where the CPU backend offers no such thing.
    pub(super) fn new(pool: Rc<ThreadPool>) -> Option<Self> {
        let mut team = std::ptr::null_mut();
        let mut error = ErrorText::new();
        // SAFETY: the pool is live, and until after the team; the pointers
        // outlive the call.
        let status = unsafe { shim::mullama_team_new(pool.as_ptr(), &raw mut team, error.as_mut_ptr(), error.size()) };
        let team = NonNull::new(team).filter(|_| status == shim::OK)?;
        Some(Self { team, _pool: pool })
    }

    /// Calls `work` once on each of `n_threads` threads of the pool, the calling
    /// one among them, and waits for all. Where that is not possible some or
    /// none of them call it.
    ///
    /// # Panics
    /// If a call of `work` panics, with its panic.
    pub(super) fn run(&mut self, n_threads: usize, work: &(dyn Fn() + Sync)) {
        let call = Call { work, panic: Mutex::new(None) };
        let n_threads = i32::try_from(n_threads).unwrap_or(1).max(1);
        let mut error = ErrorText::new();
        // SAFETY: the team is live, and `&mut self` says that it does nothing
        // else. `call` outlives the run: all threads are done when it returns.
        let status = unsafe {
            shim::mullama_team_run(
                self.team.as_ptr(),
                n_threads,
                on_thread,
                (&raw const call).cast_mut().cast(),
                error.as_mut_ptr(),
                error.size(),
            )
        };
        if status != shim::OK {
            tracing::debug!(status, error = error.text(), "the threads took no work");
        }
        if let Some(panic) = call.panic.into_inner().unwrap_or_else(PoisonError::into_inner) {
            resume_unwind(panic);
        }
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        // SAFETY: the team is live and nothing refers to it any more.
        unsafe { shim::mullama_team_free(self.team.as_ptr()) };
    }
}

extern "C" fn on_thread(data: *mut c_void) {
    // SAFETY: `data` is the `Call` of the run under way, which outlives it and
    // is only shared: its work is `Sync`, and the rest is behind a lock.
    let call = unsafe { &*data.cast::<Call<'_>>() };
    // Unwinding must not enter C.
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| (call.work)())) {
        *call.panic.lock().unwrap_or_else(PoisonError::into_inner) = Some(panic);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{collections::HashSet, thread};

    fn team() -> Team {
        crate::llama::ensure_started().unwrap();
        Team::new(Rc::new(ThreadPool::new(3).unwrap())).expect("a CPU backend")
    }

    /// The threads that the calls of one run were on.
    fn threads_of(team: &mut Team, n: usize) -> (usize, HashSet<thread::ThreadId>) {
        let called = Mutex::new(Vec::new());
        team.run(n, &|| called.lock().unwrap().push(thread::current().id()));
        let called = called.into_inner().unwrap();
        (called.len(), called.into_iter().collect())
    }

    #[test]
    fn each_thread_calls_once_and_the_own_one_is_among_them() {
        let mut team = team();
        for n in [1, 2, 3, 2, 1] {
            let (n_calls, threads) = threads_of(&mut team, n);
            assert_eq!((n_calls, threads.len()), (n, n));
            assert!(threads.contains(&thread::current().id()));
        }
    }

    #[test]
    fn a_panic_on_any_thread_comes_out_and_the_team_goes_on() {
        let mut team = team();
        let own = thread::current().id();
        for on_own in [true, false] {
            let work = || assert!((thread::current().id() == own) != on_own, "as wanted");
            let panic = catch_unwind(AssertUnwindSafe(|| team.run(2, &work))).unwrap_err();
            assert_eq!(panic.downcast_ref::<&str>(), Some(&"as wanted"));
            assert_eq!(threads_of(&mut team, 3).0, 3);
        }
    }
}
