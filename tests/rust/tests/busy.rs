//! Busy neighbours take the processors: the engine decodes with fewer threads,
//! says the same, and takes the threads back when the processors are free. The
//! tests take turns, since each is a neighbour to the others.
#![cfg(target_os = "linux")]

use mullama::{Model, ModelOptions};
use mullama_test_support::model::demo_model_path;
use mullama_tests::exactly;
use std::{
    env, fs,
    hint::spin_loop,
    io,
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

static TURN: Mutex<()> = Mutex::new(());

/// How long the engine may take to notice a load. Never a measure: a step of a
/// crowded machine may take long, an engine that is blind is what it catches.
const LIMIT: Duration = Duration::from_secs(60);

/// How long other programs may keep the processors after the load, which then
/// leaves it open whether threads would have come back.
const CROWDED: Duration = Duration::from_secs(15);

/// Answers beside a free processor within which threads must have come back.
const FREE_ANSWERS: usize = 10;

/// Tells the test's program that it is to be a busy process.
const SPIN: &str = "MULLAMA_TEST_SPIN";

fn processors() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// Generates while there is a load that keeps every processor busy, and after
/// it, until the threads are what they must come to.
fn threads_go_and_come_back<T>(load: impl FnOnce() -> T) {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    // Deterministic, since how many threads compute may show in a last bit.
    let options = ModelOptions {
        max_concurrent: 1,
        context_size: 256,
        deterministic: true,
        timeout: None,
        ..ModelOptions::default()
    };
    let model = Model::load_with(demo_model_path(), options).unwrap();
    let all = model.metrics().threads;
    assert_eq!(all, processors());
    let tokens = || model.generate_with("Once upon a time", exactly(48)).unwrap().tokens;
    let expected = tokens();
    assert_eq!(expected.len(), 48);
    let running = load();
    let end = Instant::now() + LIMIT;
    // Where there is one processor there is nothing to give up.
    while model.metrics().threads == all && all > 1 {
        assert!(Instant::now() < end, "all {all} threads are kept");
        assert_eq!(tokens(), expected);
    }
    assert_eq!(tokens(), expected);
    drop(running);
    let end = Instant::now() + CROWDED;
    let mut free_answers = 0;
    while model.metrics().threads < all && Instant::now() < end {
        let (start, before) = (Instant::now(), idle_seconds());
        assert_eq!(tokens(), expected);
        free_answers += usize::from(idle_seconds() - before > 0.9 * start.elapsed().as_secs_f64());
        assert!(free_answers < FREE_ANSWERS, "{} of {all} threads", model.metrics().threads);
    }
    assert_eq!(tokens(), expected);
}

/// For how long the processors have been idle since the machine's start, all
/// together.
fn idle_seconds() -> f64 {
    let text = fs::read_to_string("/proc/stat").unwrap();
    // The fourth number, in hundredths of a second.
    text.split_ascii_whitespace().nth(4).unwrap().parse::<f64>().unwrap() / 100.0
}

/// A thread for each processor that never rests.
struct BusyThreads {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl BusyThreads {
    fn start() -> Self {
        let stop = Arc::<AtomicBool>::default();
        let spin = |stop: Arc<AtomicBool>| {
            move || {
                while !stop.load(Relaxed) {
                    spin_loop();
                }
            }
        };
        let threads = (0..processors()).map(|_| thread::spawn(spin(stop.clone()))).collect();
        Self { stop, threads }
    }
}

impl Drop for BusyThreads {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().unwrap();
        }
    }
}

/// A process for each processor that never rests.
struct BusyProcesses(Vec<Child>);

impl BusyProcesses {
    fn start() -> Self {
        // This very program, which then runs nothing but the loop below.
        let spin = |_| {
            let mut command = Command::new(env::current_exe().unwrap());
            command.args(["--exact", "a_busy_process"]).env(SPIN, "1").stdin(Stdio::piped()).stdout(Stdio::null());
            command.spawn().unwrap()
        };
        Self((0..processors()).map(spin).collect())
    }
}

impl Drop for BusyProcesses {
    fn drop(&mut self) {
        for process in &mut self.0 {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }
}

#[test]
fn busy_threads_of_the_process_take_threads_until_they_end() {
    threads_go_and_come_back(BusyThreads::start);
}

#[test]
fn busy_processes_beside_it_take_threads_until_they_end() {
    threads_go_and_come_back(BusyProcesses::start);
}

/// What [`BusyProcesses`] starts; on its own it has nothing to do.
#[test]
fn a_busy_process() {
    if env::var_os(SPIN).is_none() {
        return;
    }
    // However the test ends, its end of the pipe closes, and so this ends.
    thread::spawn(|| {
        io::copy(&mut io::stdin(), &mut io::sink()).unwrap();
        std::process::exit(0);
    });
    loop {
        spin_loop();
    }
}
