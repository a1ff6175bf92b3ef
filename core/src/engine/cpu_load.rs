//! What the kernel tells of processors and threads: how long each thread of a
//! pool waited for a processor, and how many processors stood idle. Linux
//! only, from `/proc`; elsewhere nothing is known.

use std::{
    fs::{self, File},
    io::{Read, Seek, SeekFrom},
    mem,
    time::{Duration, Instant},
};

/// How often the idle processors are counted. The kernel counts in hundredths
/// of a second, so much less would be all rounding.
const IDLE_INTERVAL: Duration = Duration::from_millis(200);

/// Ticks of `/proc/stat` a second (`USER_HZ`, the same on every Linux).
const TICKS: f64 = 100.0;

/// The threads of this process, by id.
pub(super) fn thread_ids() -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc/self/task") else { return Vec::new() };
    entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// The waiting times of some threads.
pub(super) struct Waits {
    threads: Vec<(File, Duration)>,
    /// The newest differences; kept to be allocated once.
    latest: Vec<Duration>,
}

impl Waits {
    /// Of the calling thread and of those that it has started since `before`:
    /// new threads under its own name, which Linux passes on.
    pub(super) fn of_threads_since(before: &[u32]) -> Self {
        let own_name = fs::read("/proc/thread-self/comm").ok();
        let is_own = |id: &u32| fs::read(format!("/proc/self/task/{id}/comm")).ok() == own_name;
        let new = thread_ids().into_iter().filter(|id| !before.contains(id)).filter(is_own);
        let paths = new.map(|id| format!("/proc/self/task/{id}/schedstat"));
        let own = std::iter::once("/proc/thread-self/schedstat".to_owned());
        let threads: Vec<_> =
            own.chain(paths).filter_map(|path| Some((File::open(path).ok()?, Duration::ZERO))).collect();
        let mut waits = Self { latest: Vec::with_capacity(threads.len()), threads };
        waits.read();
        waits
    }

    /// How many threads the kernel tells of.
    pub(super) fn len(&self) -> usize {
        self.threads.len()
    }

    /// How long each thread waited since the last call, the calling one first,
    /// then the pool's in the order in which ggml uses them.
    pub(super) fn read(&mut self) -> &[Duration] {
        self.latest.clear();
        for (file, total) in &mut self.threads {
            // A thread that has ended can't be read any more and did not wait.
            let now = waited(file).unwrap_or(*total);
            self.latest.push(now.saturating_sub(*total));
            *total = now;
        }
        &self.latest
    }
}

/// The second number of `schedstat`: nanoseconds that the thread was ready to
/// run and waited.
fn waited(file: &mut File) -> Option<Duration> {
    let mut text = [0; 96];
    file.seek(SeekFrom::Start(0)).ok()?;
    let n = file.read(&mut text).ok()?;
    let field = std::str::from_utf8(&text[..n]).ok()?.split_ascii_whitespace().nth(1)?;
    field.parse().ok().map(Duration::from_nanos)
}

/// Counts idle processors, of those that the calling thread may use, over
/// intervals.
pub(super) struct Idle {
    since: Instant,
    ticks: Option<u64>,
    /// What the own threads left idle meanwhile because they had no work.
    rested: Duration,
    /// Those that it might use when they were last counted.
    processors: Vec<usize>,
}

impl Idle {
    pub(super) fn new() -> Self {
        Self { since: Instant::now(), ticks: None, rested: Duration::ZERO, processors: Vec::new() }
    }

    /// Whether the kernel counts the time of these processors: some sandboxes
    /// show none, or zeros.
    pub(super) fn is_known() -> bool {
        allowed_processors().and_then(|processors| idle_ticks(&processors)).is_some_and(|ticks| ticks > 0)
    }

    /// Forgets the interval under way.
    pub(super) fn reset(&mut self) {
        self.ticks = None;
    }

    /// So many threads had no work for so long: their processors stood idle
    /// then, but aren't free.
    pub(super) fn rested(&mut self, threads: usize, time: Duration) {
        self.rested += time * u32::try_from(threads).unwrap_or(u32::MAX);
    }

    /// How many processors stood idle beside the own threads, once an interval
    /// is over. Below zero where these rested on processors of others.
    pub(super) fn poll(&mut self, now: Instant) -> Option<f64> {
        let elapsed = now.saturating_duration_since(self.since);
        if self.ticks.is_some() && elapsed < IDLE_INTERVAL {
            return None;
        }
        // The mask may be another now; ticks of others can't be compared.
        let processors = allowed_processors()?;
        if processors != self.processors {
            self.processors = processors;
            self.ticks = None;
        }
        let ticks = idle_ticks(&self.processors)?;
        let before = self.ticks.replace(ticks);
        let rested = mem::take(&mut self.rested).as_secs_f64();
        self.since = now;
        before.map(|before| (ticks.saturating_sub(before) as f64 / TICKS - rested) / elapsed.as_secs_f64())
    }
}

/// Idle and waiting-for-disk ticks of some processors together: the fourth and
/// fifth number of their lines of `/proc/stat`.
fn idle_ticks(processors: &[usize]) -> Option<u64> {
    let text = fs::read_to_string("/proc/stat").ok()?;
    let ticks = |line: &str| {
        let mut fields = line.split_ascii_whitespace();
        // The first line is of all of them, and has no number.
        let processor = fields.next()?.strip_prefix("cpu")?.parse().ok()?;
        let mut field = |n: usize| fields.nth(n)?.parse::<u64>().ok();
        processors.contains(&processor).then(|| Some(field(3)? + field(0)?))?
    };
    Some(text.lines().take_while(|line| line.starts_with("cpu")).filter_map(ticks).sum())
}

/// The processors in the calling thread's affinity mask, which the kernel lists
/// as in `0-3,8`. The thread's, since a mask may be set for some threads alone.
fn allowed_processors() -> Option<Vec<usize>> {
    let text = fs::read_to_string("/proc/thread-self/status").ok()?;
    let list = text.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
    let ranges = list.trim().split(',').map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        Some(first.parse::<usize>().ok()?..=last.parse::<usize>().ok()?)
    });
    Some(ranges.collect::<Option<Vec<_>>>()?.into_iter().flatten().collect())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_is_understood() {
        assert!(!thread_ids().is_empty());
        let mut waits = Waits::of_threads_since(&thread_ids());
        assert_eq!(waits.read().len(), 1, "the calling thread alone");
        assert!(Idle::is_known());
        let processors = allowed_processors().expect("a mask");
        assert_eq!(processors.len(), std::thread::available_parallelism().unwrap().get());
        assert!(idle_ticks(&[0]).is_some_and(|ticks| ticks > 0));
    }

    #[test]
    fn a_processor_whose_own_thread_rests_is_not_free() {
        let mut idle = Idle::new();
        let start = Instant::now();
        assert_eq!(idle.poll(start), None);
        idle.rested(1000, IDLE_INTERVAL);
        let count = idle.poll(start + IDLE_INTERVAL).expect("the interval is over");
        assert!(count < 0.0, "{count}: more threads rested than there are processors");
    }

    #[test]
    fn an_interval_gives_a_count_of_processors() {
        let mut idle = Idle::new();
        let start = Instant::now();
        assert_eq!(idle.poll(start), None);
        assert_eq!(idle.poll(start), None);
        std::thread::sleep(IDLE_INTERVAL);
        let processors = std::thread::available_parallelism().unwrap().get() as f64;
        let count = idle.poll(Instant::now()).expect("the interval is over");
        assert!((0.0..=processors * 64.0).contains(&count), "{count}");
    }
}
