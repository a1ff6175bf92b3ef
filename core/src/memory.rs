//! How much memory this process may use and how much of it is free.

use crate::MullamaError;

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
        match system.cgroup_limits() {
            Some(limits) => Self { free: free.min(limits.free_memory), total: total.min(limits.total_memory) },
            None => Self { free, total },
        }
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
