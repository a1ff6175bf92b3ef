//! How much memory this process may use and how much of it is free.

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
