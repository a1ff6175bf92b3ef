//! Busy neighbours: what takes a processor from the engine while it is measured.

use crate::Result;
use std::{
    env,
    process::{Child, Command},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

/// The argument that makes this program a busy process.
pub(crate) const SPIN: &str = "spin";

/// A kind of load.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Load {
    Quiet,
    /// So many threads of this process that never rest.
    Threads(usize),
    /// Another process that never rests.
    Process,
    /// A thread that is busy for so many milliseconds of so many.
    Flicker(u64, u64),
}

impl Load {
    pub(crate) fn name(self) -> String {
        match self {
            Self::Quiet => "quiet".to_owned(),
            Self::Threads(n) => format!("busy_threads_{n}"),
            Self::Process => "busy_process".to_owned(),
            Self::Flicker(busy, of) => format!("busy_{busy}_of_{of}_ms"),
        }
    }

    /// Begins, and ends when the result is dropped.
    pub(crate) fn start(self) -> Result<Running> {
        let mut running = Running { stop: Arc::default(), threads: Vec::new(), child: None };
        match self {
            Self::Quiet => {}
            Self::Threads(n) => (0..n).for_each(|_| running.spin(Duration::from_millis(1), Duration::ZERO)),
            Self::Flicker(busy, of) => running.spin(Duration::from_millis(busy), Duration::from_millis(of - busy)),
            Self::Process => running.child = Some(Command::new(env::current_exe()?).arg(SPIN).spawn()?),
        }
        Ok(running)
    }
}

/// A load that is there until this is dropped.
pub(crate) struct Running {
    stop: Arc<AtomicBool>,
    threads: Vec<thread::JoinHandle<()>>,
    child: Option<Child>,
}

impl Running {
    fn spin(&mut self, busy: Duration, idle: Duration) {
        let stop = self.stop.clone();
        self.threads.push(thread::spawn(move || {
            while !stop.load(Relaxed) {
                spin_for(busy);
                if !idle.is_zero() {
                    thread::sleep(idle);
                }
            }
        }));
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        for thread in self.threads.drain(..) {
            // It can't have panicked.
            let _ = thread.join();
        }
        if let Some(child) = &mut self.child {
            // One that has ended by itself needs no end.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Keeps a processor for so long.
pub(crate) fn spin_for(time: Duration) {
    let start = Instant::now();
    while start.elapsed() < time {
        std::hint::spin_loop();
    }
}
