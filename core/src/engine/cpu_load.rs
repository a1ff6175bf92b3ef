//! What the kernel tells of processors and threads: how long each thread of a
//! pool waited for a processor, and how many processors stood idle. Linux
//! only, from `/proc`; elsewhere, and in sandboxes that hide it, nothing is known.

use std::{
    fs::{self, File},
    io::{Read, Seek, SeekFrom},
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
    /// new threads under its own name, which Linux passes on. `None` where the
    /// kernel counts nothing.
    pub(super) fn of_threads_since(before: &[u32]) -> Option<Self> {
        let mut own = File::open("/proc/thread-self/schedstat").ok()?;
        if read_fields(&mut own)?[0] == 0 {
            // The calling thread has run for a while, but no time was counted.
            return None;
        }
        let own_name = fs::read("/proc/thread-self/comm").ok();
        let is_own = |id: &u32| fs::read(format!("/proc/self/task/{id}/comm")).ok() == own_name;
        let new = thread_ids().into_iter().filter(|id| !before.contains(id)).filter(is_own);
        let others = new.filter_map(|id| File::open(format!("/proc/self/task/{id}/schedstat")).ok());
        let threads: Vec<_> = std::iter::once(own).chain(others).map(|file| (file, Duration::ZERO)).collect();
        let mut waits = Self { latest: Vec::with_capacity(threads.len()), threads };
        waits.read();
        Some(waits)
    }

    /// How many threads these are.
    pub(super) fn len(&self) -> usize {
        self.threads.len()
    }

    /// How long each thread waited since the last call.
    pub(super) fn read(&mut self) -> &[Duration] {
        self.latest.clear();
        for (file, total) in &mut self.threads {
            // A thread that has ended can't be read any more and did not wait.
            let now = read_fields(file).map_or(*total, |[_, waited]| Duration::from_nanos(waited));
            self.latest.push(now.saturating_sub(*total));
            *total = now;
        }
        &self.latest
    }
}

/// The first two numbers of `schedstat`: nanoseconds that the thread ran, and
/// that it was ready to run and waited.
fn read_fields(file: &mut File) -> Option<[u64; 2]> {
    let mut text = [0; 96];
    file.seek(SeekFrom::Start(0)).ok()?;
    let n = file.read(&mut text).ok()?;
    let mut fields = std::str::from_utf8(&text[..n]).ok()?.split_ascii_whitespace().map(str::parse);
    Some([fields.next()?.ok()?, fields.next()?.ok()?])
}

/// Counts idle processors, of those that the process may use, over intervals
/// in which its own threads worked.
pub(super) struct Idle {
    since: Instant,
    ticks: Option<u64>,
    /// Seconds in which the own threads rested, over all of them: their
    /// processors were idle then, but aren't free.
    rested: f64,
    /// When the last step ended, and the threads that it had.
    last_step: Option<(Instant, usize)>,
    /// The names that these processors have in `/proc/stat`.
    processors: Vec<String>,
}

impl Idle {
    /// `None` where the kernel doesn't tell of each of these processors.
    pub(super) fn new() -> Option<Self> {
        let processors: Vec<String> = allowed_processors()?.iter().map(|n| format!("cpu{n}")).collect();
        idle_ticks(&processors)?;
        Some(Self { since: Instant::now(), ticks: None, rested: 0.0, last_step: None, processors })
    }

    /// Forgets the interval under way.
    pub(super) fn reset(&mut self) {
        self.ticks = None;
    }

    /// The own threads rested since the last step, until now.
    pub(super) fn rested_until(&mut self, now: Instant) {
        let Some((end, threads)) = self.last_step.take() else { return };
        let rest = now.saturating_duration_since(end);
        if rest > IDLE_INTERVAL / 2 {
            // Little of this interval tells of a time with work.
            self.reset();
        }
        self.rested += rest.as_secs_f64() * threads as f64;
    }

    /// A step that ended at `at` had so many threads.
    pub(super) fn worked(&mut self, at: Instant, threads: usize) {
        self.last_step = Some((at, threads));
    }

    /// How many processors stood idle beside the own threads, once an
    /// interval is over.
    pub(super) fn poll(&mut self, now: Instant) -> Option<f64> {
        let elapsed = now.saturating_duration_since(self.since);
        if self.ticks.is_some() && elapsed < IDLE_INTERVAL {
            return None;
        }
        let ticks = idle_ticks(&self.processors)?;
        let before = self.ticks.replace(ticks);
        let rested = std::mem::take(&mut self.rested);
        self.since = now;
        before.map(|before| (ticks.saturating_sub(before) as f64 / TICKS - rested) / elapsed.as_secs_f64())
    }
}

/// Idle and waiting-for-disk ticks of some processors together: the fourth and
/// fifth number of their lines of `/proc/stat`. `None` if one has no line, or
/// one without any ticks.
fn idle_ticks(processors: &[String]) -> Option<u64> {
    let text = fs::read_to_string("/proc/stat").ok()?;
    let (mut found, mut idle) = (0, 0);
    for line in text.lines().take_while(|line| line.starts_with("cpu")) {
        let mut fields = line.split_ascii_whitespace();
        let name = fields.next()?;
        if !processors.iter().any(|processor| processor == name) {
            continue;
        }
        let ticks: Vec<u64> = fields.map_while(|field| field.parse().ok()).collect();
        if ticks.len() < 5 || ticks.iter().all(|&ticks| ticks == 0) {
            return None;
        }
        found += 1;
        idle += ticks[3] + ticks[4];
    }
    (found == processors.len()).then_some(idle)
}

/// The processors in the affinity mask, which the kernel lists as in `0-3,8`.
fn allowed_processors() -> Option<Vec<usize>> {
    let text = fs::read_to_string("/proc/self/status").ok()?;
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
        // The kernel counts a thread's time when it rests.
        std::thread::sleep(Duration::from_millis(1));
        let mut waits = Waits::of_threads_since(&thread_ids()).expect("counts");
        assert_eq!(waits.len(), 1, "the calling thread alone");
        assert_eq!(waits.read().len(), 1);
        let processors = allowed_processors().expect("a mask");
        assert_eq!(processors.len(), std::thread::available_parallelism().unwrap().get());
        assert!(idle_ticks(&["cpu0".to_owned()]).is_some_and(|ticks| ticks > 0));
        assert_eq!(idle_ticks(&["cpu0".to_owned(), "cpu99999".to_owned()]), None);
    }

    #[test]
    fn an_interval_gives_a_count_of_processors() {
        let mut idle = Idle::new().expect("counts");
        let start = Instant::now();
        assert_eq!(idle.poll(start), None);
        assert_eq!(idle.poll(start), None);
        std::thread::sleep(IDLE_INTERVAL);
        let processors = std::thread::available_parallelism().unwrap().get() as f64;
        let count = idle.poll(Instant::now()).expect("the interval is over");
        assert!((0.0..=processors * 64.0).contains(&count), "{count}");
    }

    #[test]
    fn a_processor_whose_own_thread_rests_is_not_counted_as_free() {
        let mut idle = Idle::new().expect("counts");
        let start = Instant::now();
        assert_eq!(idle.poll(start), None);
        let step = IDLE_INTERVAL / 4;
        for n in 0..4 {
            idle.worked(start + step * n, 1000);
            idle.rested_until(start + step * (n + 1));
        }
        let count = idle.poll(start + IDLE_INTERVAL).expect("the interval is over");
        assert!(count < 0.0, "{count}: more threads rested than there are processors");
    }
}
