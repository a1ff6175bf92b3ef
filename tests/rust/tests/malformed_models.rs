//! No file may take the process down. Malformed ones are refused before
//! llama.cpp sees them; what passes the check, llama.cpp must survive.

#![forbid(unsafe_code)]

use mullama::{Model, ModelOptions, MullamaError};
use mullama_test_support::{Kind, TinyModel, corrupt, mutate};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Mutations of each kind of model: random damage and senseless values in
/// turn. Most are refused; a load takes some hundredths of a second.
const MUTATIONS: u64 = 2_000;
/// Tells the child which kind to mutate and where to note how far it came.
const CHILD_KIND: &str = "MULLAMA_TEST_MUTATED_KIND";
const CHILD_DIR: &str = "MULLAMA_TEST_MUTATED_DIR";
const CHILD_LIMIT: Duration = Duration::from_secs(180);

fn load(path: &Path) -> Result<Model, MullamaError> {
    let options =
        ModelOptions { context_size: 64, batch_size: 32, max_concurrent: 1, threads: 1, ..Default::default() };
    Model::load_with(path, options)
}

fn refusal(path: &Path) -> MullamaError {
    match load(path) {
        Ok(_) => panic!("'{}' was loaded", path.display()),
        Err(error) => error,
    }
}

#[test]
fn every_corruption_is_refused_with_a_reason_that_names_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.gguf");
    for corruption in corrupt::ALL {
        corruption.write_to(&path).unwrap();
        match refusal(&path) {
            MullamaError::InvalidModel { path: shown, reason } => {
                assert_eq!(shown, path.display().to_string());
                assert!(reason.contains(corruption.mentions), "{corruption:?}: {reason}");
                assert!(!reason.ends_with('.'), "{corruption:?}: {reason}");
            }
            error => panic!("{corruption:?}: {error:?}"),
        }
    }
}

#[test]
fn a_model_cut_anywhere_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.gguf");
    let model = TinyModel::llama().build();
    let bytes = model.to_bytes();
    let header = model.header().len();
    for len in (0..header).step_by(97).chain([header, header + 40_000, bytes.len() - 1]) {
        fs::write(&path, &bytes[..len]).unwrap();
        let error = refusal(&path);
        assert!(matches!(error, MullamaError::InvalidModel { .. }), "cut to {len} bytes: {error:?}");
    }
}

#[test]
fn a_missing_file_and_a_directory_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let missing = refusal(&dir.path().join("missing.gguf"));
    assert!(matches!(missing, MullamaError::ModelNotFound { .. }), "{missing:?}");
    let directory = refusal(dir.path());
    assert!(
        matches!(&directory, MullamaError::InvalidModel { reason, .. } if reason.contains("directory")),
        "{directory:?}"
    );
}

#[test]
fn mutated_llama_models_never_kill_the_process() {
    run_child("llama");
}

#[test]
fn mutated_sliding_window_models_never_kill_the_process() {
    run_child("sliding-window");
}

#[test]
fn mutated_recurrent_models_never_kill_the_process() {
    run_child("recurrent");
}

/// Runs `the_child_loads_mutated_models` in a process of its own, so that an
/// abort fails one test and not all of them.
fn run_child(kind: &str) {
    let dir = tempfile::tempdir().unwrap();
    let log = fs::File::create(dir.path().join("log")).unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "the_child_loads_mutated_models", "--ignored", "--nocapture"])
        .env(CHILD_KIND, kind)
        .env(CHILD_DIR, dir.path())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let start = Instant::now();
    let status = loop {
        match child.try_wait().unwrap() {
            Some(status) => break Some(status),
            None if start.elapsed() > CHILD_LIMIT => {
                child.kill().unwrap();
                child.wait().unwrap();
                break None;
            }
            None => std::thread::sleep(Duration::from_millis(20)),
        }
    };
    if status.is_some_and(|status| status.success()) {
        return;
    }
    let seed = fs::read_to_string(dir.path().join("seed")).unwrap_or_default();
    let log = fs::read_to_string(dir.path().join("log")).unwrap_or_default();
    let ended = status.map_or_else(|| format!("did not end in {CHILD_LIMIT:?}"), |status| status.to_string());
    panic!("mutation {seed} of a {kind} model: the process {ended}\n{log}");
}

#[test]
#[ignore = "a part of the tests above, which run it in a process of its own"]
fn the_child_loads_mutated_models() {
    let (Ok(kind), Ok(dir)) = (std::env::var(CHILD_KIND), std::env::var(CHILD_DIR)) else { return };
    let dir = PathBuf::from(dir);
    let (_, kind) = Kind::ALL.into_iter().find(|(name, _)| *name == kind).unwrap();
    let model = TinyModel::new(kind).seed(7).build();
    let (bytes, header) = (model.to_bytes(), model.header().len());
    let path = dir.join("model.gguf");
    let (mut n_loaded, mut n_refused) = (0, 0);
    for seed in 0..MUTATIONS {
        fs::write(dir.join("seed"), seed.to_string()).unwrap();
        // Removed first, since a mapped file must not change.
        let _ = fs::remove_file(&path);
        let mutated = match seed % 2 {
            0 => mutate::mutated(&bytes, header, seed),
            _ => mutate::altered(&model, seed).to_bytes(),
        };
        fs::write(&path, mutated).unwrap();
        match load(&path) {
            Ok(model) => {
                n_loaded += 1;
                // Either outcome is fine: a model may be unable to turn this
                // text into tokens.
                let _ = model.generate("hello caf\u{e9} \u{1f600}", 3);
            }
            Err(MullamaError::InvalidModel { .. }) => n_refused += 1,
            Err(
                MullamaError::ModelLoad { .. }
                | MullamaError::Context(_)
                | MullamaError::OutOfMemory(_)
                | MullamaError::InvalidInput { .. },
            ) => {}
            Err(error) => panic!("mutation {seed}: {error:?}"),
        }
    }
    assert!(n_loaded >= MUTATIONS / 50, "only {n_loaded} mutations were harmless: the test tests too little");
    assert!(n_refused >= MUTATIONS / 4, "only {n_refused} mutations were refused");
}
