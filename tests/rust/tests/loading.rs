//! Loads of one file share its weights; a load can be stopped.

use futures_util::future::join_all;
use mullama::{AsyncModel, ModelOptions, MullamaError};
use mullama_test_support::TinyModel;
use mullama_tests::{exactly, options, run, tiny};
use std::{
    fs,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// As a test's own limit; a hang is what it catches.
const LIMIT: Duration = Duration::from_secs(30);

#[test]
fn a_second_load_takes_the_weights_that_are_there() {
    run(async {
        let first = tiny(options()).await;
        let load = |options| AsyncModel::load_with(first.path(), options);
        let second = load(ModelOptions { max_concurrent: 2, context_size: 64, ..options() }).await.unwrap();
        let read = load(ModelOptions { use_mmap: false, ..options() }).await.unwrap();
        assert!(!first.model.metrics().weights_shared);
        assert!(second.metrics().weights_shared);
        assert!(!read.metrics().weights_shared, "it was asked to be in memory of its own");
        let wanted = first.model.generate_with("abc", exactly(8)).await.unwrap().tokens;
        first.model.close().await;
        assert_eq!(second.generate_with("abc", exactly(8)).await.unwrap().tokens, wanted);
        let third = load(options()).await.unwrap();
        assert!(third.metrics().weights_shared);
        second.close().await;
        third.close().await;
        assert!(!load(options()).await.unwrap().metrics().weights_shared, "nobody held them any more");
    });
}

#[test]
fn of_loads_at_once_one_loads() {
    run(async {
        let (_dir, path) = file();
        let loads = (0..6).map(|_| AsyncModel::load_with(&path, options()));
        let models: Vec<_> = join_all(loads).await.into_iter().map(Result::unwrap).collect();
        let n_loaded = models.iter().filter(|model| !model.metrics().weights_shared).count();
        assert_eq!(n_loaded, 1);
        let answers = join_all(models.iter().map(|model| model.generate_with("abc", exactly(4)))).await;
        assert!(answers.iter().all(|answer| answer.as_ref().unwrap().tokens.len() == 4));
    });
}

#[test]
fn a_load_that_stops_leaves_its_turn_to_who_waits() {
    run(async {
        let (_dir, path) = file();
        let (n_first, n_second) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let first = {
            let (n_first, n_second) = (n_first.clone(), n_second.clone());
            // The first call comes before the turn is taken, the others after.
            let progress = move |_| n_first.fetch_add(1, Ordering::SeqCst) == 0 || !reaches(&n_second, 3);
            ModelOptions { progress: Some(Arc::new(progress)), ..options() }
        };
        let second = {
            let n_second = n_second.clone();
            let progress = move |_| reaches(&n_first, 2) && n_second.fetch_add(1, Ordering::SeqCst) < usize::MAX;
            ModelOptions { progress: Some(Arc::new(progress)), ..options() }
        };
        let (first, second) = tokio::join!(AsyncModel::load_with(&path, first), AsyncModel::load_with(&path, second));
        assert!(matches!(first, Err(MullamaError::Cancelled)), "{first:?}");
        let second = second.unwrap();
        assert!(!second.metrics().weights_shared);
        assert_eq!(second.generate_with("abc", exactly(4)).await.unwrap().tokens.len(), 4);
    });
}

#[test]
fn a_wait_for_anothers_load_can_be_given_up() {
    run(async {
        let (_dir, path) = file();
        let (n_first, n_second) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let first = {
            let (n_first, n_second) = (n_first.clone(), n_second.clone());
            let progress = move |_| n_first.fetch_add(1, Ordering::SeqCst) == 0 || reaches(&n_second, 2);
            ModelOptions { progress: Some(Arc::new(progress)), ..options() }
        };
        // Goes on at the first look, gives up at the next.
        let progress = move |_| reaches(&n_first, 2) && n_second.fetch_add(1, Ordering::SeqCst) == 0;
        let second = ModelOptions { progress: Some(Arc::new(progress)), ..options() };
        let (first, second) = tokio::join!(AsyncModel::load_with(&path, first), AsyncModel::load_with(&path, second));
        assert!(matches!(second, Err(MullamaError::Cancelled)), "{second:?}");
        assert_eq!(first.unwrap().generate_with("abc", exactly(4)).await.unwrap().tokens.len(), 4);
    });
}

#[test]
fn a_file_that_was_changed_is_loaded_anew() {
    run(async {
        let first = tiny(options()).await;
        let wanted = first.model.generate_with("abc", exactly(8)).await.unwrap().tokens;
        let other = first.path().with_extension("new");
        TinyModel::llama().seed(8).write_to(&other).unwrap();
        fs::rename(&other, first.path()).unwrap();
        let second = AsyncModel::load_with(first.path(), options()).await.unwrap();
        assert!(!second.metrics().weights_shared);
        assert_ne!(second.generate_with("abc", exactly(8)).await.unwrap().tokens, wanted);
        assert_eq!(first.model.generate_with("abc", exactly(8)).await.unwrap().tokens, wanted);
    });
}

#[test]
fn a_load_tells_its_time_and_memory() {
    run(async {
        let started = Instant::now();
        let tiny = tiny(options()).await;
        let metrics = tiny.model.metrics();
        assert!(metrics.load_time > Duration::ZERO && metrics.load_time <= started.elapsed());
        assert_eq!(metrics.weights_bytes, tiny.model.model_info().size_bytes);
        tiny.model.generate_with("abc", exactly(4)).await.unwrap();
        assert!(metrics.cache_size_bytes > 0);
        assert_eq!(metrics.cache_size_bytes % (1024 * 4), 0, "four requests of 1,024 tokens");
    });
}

/// One after the other: what is seen of them is of the whole process.
#[test]
#[cfg(target_os = "linux")]
fn large_memory_asks_for_huge_pages() {
    if !PathBuf::from("/sys/kernel/mm/transparent_hugepage").exists() || largest_on_huge_pages().is_none() {
        return;
    }
    run(async {
        let tiny = tiny(ModelOptions { max_concurrent: 64, context_size: 4096, ..options() }).await;
        let wanted = tiny.model.metrics().cache_size_bytes;
        assert!(wanted > 33 << 20, "{wanted} bytes are not many");
        // Without the parts of pages at both ends.
        let largest = largest_on_huge_pages().unwrap() + (128 << 10);
        assert!(largest > wanted, "{largest} of the {wanted} bytes of the KV cache may be on huge pages");
        tiny.model.close().await;

        let path = mullama_test_support::model::demo_model_path();
        // Some formats lie in two buffers.
        let wanted = fs::metadata(&path).unwrap().len() / 3;
        assert!(wanted > 30 << 20, "{wanted} bytes are not many");
        let model = AsyncModel::load_with(path, ModelOptions { use_mmap: false, max_concurrent: 1, ..options() })
            .await
            .unwrap();
        assert!(model.metrics().cache_size_bytes < wanted, "it is the weights that are looked for");
        let largest = largest_on_huge_pages().unwrap_or(0);
        assert!(largest > wanted, "{largest} bytes may be on huge pages, of weights {wanted} at the least");
    });
}

/// The size of the largest mapping that the kernel was asked to put on huge pages,
/// or nothing where it doesn't tell.
#[cfg(target_os = "linux")]
fn largest_on_huge_pages() -> Option<u64> {
    let maps = fs::read_to_string("/proc/self/smaps").ok().filter(|maps| maps.contains("VmFlags:"))?;
    let (mut size, mut largest) = (0, 0);
    for line in maps.lines() {
        let mut words = line.split_whitespace();
        match (words.next(), words.next()) {
            (Some("Size:"), Some(kib)) => size = kib.parse::<u64>().unwrap() * 1024,
            (Some("VmFlags:"), flags) if flags.into_iter().chain(words).any(|flag| flag == "hg") => {
                largest = size.max(largest);
            }
            _ => {}
        }
    }
    Some(largest)
}

#[test]
fn a_load_can_be_stopped_by_its_progress_callback() {
    run(async {
        let (_dir, path) = file();
        let calls = Arc::new(AtomicUsize::new(0));
        let counted = calls.clone();
        let progress = move |share: f32| {
            assert!((0.0..=1.0).contains(&share));
            counted.fetch_add(1, Ordering::Relaxed) < 2
        };
        let stopped = ModelOptions { progress: Some(Arc::new(progress)), ..options() };
        let result = AsyncModel::load_with(&path, stopped).await;
        assert!(matches!(result, Err(MullamaError::Cancelled)), "{result:?}");
        assert_eq!(calls.load(Ordering::Relaxed), 3, "it is not asked again");

        let panics = ModelOptions { progress: Some(Arc::new(|_| panic!("on purpose"))), ..options() };
        let result = AsyncModel::load_with(&path, panics).await;
        assert!(matches!(result, Err(MullamaError::Internal(_) | MullamaError::Cancelled)), "{result:?}");
    });
}

#[test]
fn a_load_can_be_stopped_by_a_token_or_by_dropping_it() {
    run(async {
        let (_dir, path) = file();
        let token = tokio_util::sync::CancellationToken::new();
        token.cancel();
        let result = AsyncModel::load_with(&path, ModelOptions { cancellation: Some(token), ..options() }).await;
        assert!(matches!(result, Err(MullamaError::Cancelled)), "{result:?}");

        // The load waits inside its first callback until the future is gone.
        let (started, has_started) = std::sync::mpsc::channel();
        let (go_on, may_go_on) = std::sync::mpsc::channel::<()>();
        let may_go_on = std::sync::Mutex::new(may_go_on);
        let shares = Arc::new(std::sync::Mutex::new(Vec::new()));
        let seen = shares.clone();
        let progress = move |share: f32| {
            seen.lock().unwrap().push(share);
            let _ = started.send(());
            let _ = may_go_on.lock().unwrap().recv();
            true
        };
        let loading = tokio::spawn({
            let path = path.clone();
            async move {
                AsyncModel::load_with(&path, ModelOptions { progress: Some(Arc::new(progress)), ..options() }).await
            }
        });
        tokio::task::spawn_blocking(move || has_started.recv().unwrap()).await.unwrap();
        loading.abort();
        assert!(loading.await.unwrap_err().is_cancelled());
        drop(go_on);
        // The engine's thread drops the callback when it ends.
        while Arc::strong_count(&shares) > 1 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        assert_eq!(*shares.lock().unwrap(), [0.0], "nothing was loaded after the drop");
    });
}

/// A model's file, and its directory, which lives as long.
fn file() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tiny.gguf");
    TinyModel::llama().seed(3).n_layer(4).write_to(&path).unwrap();
    (dir, path)
}

/// Waits until a count is at least `n`.
fn reaches(count: &AtomicUsize, n: usize) -> bool {
    let started = Instant::now();
    while count.load(Ordering::SeqCst) < n {
        assert!(started.elapsed() < LIMIT, "the other load does not come");
        thread::sleep(Duration::from_millis(1));
    }
    true
}
