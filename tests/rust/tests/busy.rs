//! A busy neighbour takes the processors: fewer threads decode, the tokens
//! stay, and the threads come back, unless other programs have the processors
//! all the while. The tests take turns, since each is a neighbour to the other.

use mullama::{AsyncModel, ModelOptions};
use mullama_test_support::model::demo_model_path;
use mullama_tests::{exactly, run};
use std::{
    hint::spin_loop,
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

static TURN: Mutex<()> = Mutex::new(());

/// How long the processors may be taken by others: the mean load then has
/// forgotten the load of the test itself.
const COMES_BACK: Duration = Duration::from_secs(40);

/// Whether more threads are ready to run than the engine's own.
fn others_are_busy() -> bool {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    load.split(' ').next().and_then(|load| load.parse().ok()).is_some_and(|load: f64| load > processors() as f64)
}

fn processors() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// Generates with and without the load, which runs until its guard is dropped.
fn falls_and_comes_back<T>(load: impl FnOnce() -> T) {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    run(async {
        let options = ModelOptions { max_concurrent: 1, context_size: 256, ..ModelOptions::default() };
        let model = AsyncModel::load_with(demo_model_path(), options).await.unwrap();
        let generate = async || model.generate_with("Once upon a time", exactly(48)).await.unwrap().tokens;
        let expected = generate().await;
        let all = processors();
        let guard = load();
        while model.metrics().threads == all && all > 1 {
            assert_eq!(generate().await, expected);
        }
        assert_eq!(generate().await, expected);
        drop(guard);
        let end = Instant::now() + COMES_BACK;
        while model.metrics().threads < all {
            assert_eq!(generate().await, expected);
            if Instant::now() > end {
                assert!(others_are_busy(), "{} of {all} threads", model.metrics().threads);
                break;
            }
        }
        assert_eq!(generate().await, expected);
        model.close().await;
    });
}

/// Ends its threads when it is dropped.
struct BusyThreads {
    stop: Arc<AtomicBool>,
    threads: Vec<thread::JoinHandle<()>>,
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
        self.threads.drain(..).for_each(|thread| thread.join().unwrap());
    }
}

#[test]
fn busy_threads_of_the_process() {
    falls_and_comes_back(BusyThreads::start);
}

/// Ends its processes when it is dropped.
struct BusyProcesses(Vec<Child>);

impl BusyProcesses {
    fn start() -> Self {
        // This test, as a program, runs nothing but the loop below.
        let spin = || {
            let mut command = Command::new(std::env::current_exe().unwrap());
            command.args(["--exact", "a_busy_process"]).env("MULLAMA_TEST_SPIN", "1").stdout(Stdio::null());
            command.stdin(Stdio::piped()).spawn().unwrap()
        };
        Self((0..processors()).map(|_| spin()).collect())
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
fn busy_processes_beside_it() {
    falls_and_comes_back(BusyProcesses::start);
}

/// Does nothing unless it is started by the test above.
#[test]
fn a_busy_process() {
    if std::env::var_os("MULLAMA_TEST_SPIN").is_none() {
        return;
    }
    // Ends with the test, whichever way that ends: its pipe closes then.
    thread::spawn(|| {
        std::io::copy(&mut std::io::stdin(), &mut std::io::sink()).unwrap();
        std::process::exit(0);
    });
    loop {
        spin_loop();
    }
}
