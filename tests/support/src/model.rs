//! The one real model that the end-to-end tests use.

use std::path::PathBuf;

/// The name of the demo model's file.
pub const DEMO_MODEL_FILE: &str = "SmolLM2-135M-Instruct.Q4_1.gguf";

/// The path of the demo model: `MULLAMA_TEST_MODEL`, or the file in mullama's
/// cache folder.
///
/// # Panics
///
/// If there is no such file.
#[must_use]
pub fn demo_model_path() -> PathBuf {
    let path = variable("MULLAMA_TEST_MODEL").unwrap_or_else(|| cache_dir().join("models").join(DEMO_MODEL_FILE));
    assert!(path.is_file(), "the demo model is missing at '{}': run `make model`", path.display());
    path
}

/// The folder that outlives the checkout: `MULLAMA_CACHE`, or `mullama` in the
/// user's cache folder.
///
/// # Panics
///
/// If no environment variable names a home folder.
#[must_use]
pub fn cache_dir() -> PathBuf {
    variable("MULLAMA_CACHE")
        .or_else(|| variable("XDG_CACHE_HOME").map(|cache| cache.join("mullama")))
        .or_else(|| variable("HOME").map(|home| home.join(".cache").join("mullama")))
        .expect("set MULLAMA_CACHE: neither it nor XDG_CACHE_HOME nor HOME is set")
}

/// An empty variable counts as one that isn't set.
fn variable(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}
