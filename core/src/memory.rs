//! How much memory this process may use and how much of it is free.

use crate::MullamaError;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Bytes of all [`Promised`] of the process.
static PROMISED: AtomicU64 = AtomicU64::new(0);

/// The machine's memory as this process sees it, in bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SystemMemory {
    pub(crate) free: u64,
    pub(crate) total: u64,
}

impl SystemMemory {
    /// Asks the system, and the process's control group where it has a limit.
    /// Zeros where the system tells nothing.
    pub(crate) fn read() -> Self {
        let mut system = sysinfo::System::new();
        system.refresh_memory();
        let (free, total) = (system.available_memory(), system.total_memory());
        let (free, total) = match system.cgroup_limits() {
            Some(limits) => (free.min(limits.free_memory), total.min(limits.total_memory)),
            None => (free, total),
        };
        Self { free: without(free, PROMISED.load(Relaxed)), total }
    }
}

/// What is free but for what is promised. Zero is that nothing is known.
fn without(free: u64, promised: u64) -> u64 {
    free.saturating_sub(promised).max(u64::from(free > 0))
}

/// Memory of this process that the system counts as free until it is written to.
#[derive(Debug)]
pub(crate) struct Promised {
    bytes: u64,
    left: u64,
}

impl Promised {
    pub(crate) fn new(bytes: u64) -> Self {
        PROMISED.fetch_add(bytes, Relaxed);
        Self { bytes, left: bytes }
    }

    /// The first `n` of `of` parts have been written to.
    pub(crate) fn note_written(&mut self, n: usize, of: usize) {
        let written = u128::from(self.bytes) * n.min(of) as u128 / of.max(1) as u128;
        self.set(self.left.min(self.bytes - u64::try_from(written).unwrap_or(self.bytes)));
    }

    fn set(&mut self, left: u64) {
        PROMISED.fetch_sub(self.left - left, Relaxed);
        self.left = left;
    }
}

impl Drop for Promised {
    fn drop(&mut self) {
        self.set(0);
    }
}

/// Refuses work that needs more memory than is free: the kernel would end the
/// process, which no error handling survives.
///
/// # Errors
/// `OutOfMemory`, which says what `what` needs.
pub(crate) fn require(needed: u64, what: &str) -> Result<(), MullamaError> {
    let free = SystemMemory::read().free;
    if free > 0 && needed > free {
        let mib = |bytes: u64| bytes.div_ceil(1 << 20);
        return Err(MullamaError::OutOfMemory(format!("{what} needs {} MiB, {} MiB are free", mib(needed), mib(free))));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_promised_is_not_free_until_it_is_written_to() {
        let mut promised = Promised::new(1000);
        assert_eq!(promised.left, 1000);
        assert!(PROMISED.load(Relaxed) >= 1000);
        for (n, left) in [(256, 750), (128, 750), (1024, 0), (2000, 0)] {
            promised.note_written(n, 1024);
            assert_eq!(promised.left, left, "after {n} of 1024");
        }
        assert_eq!([without(1000, 400), without(1000, 2000), without(0, 5)], [600, 1, 0]);
    }
}
